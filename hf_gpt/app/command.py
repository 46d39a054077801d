"""`hf-gpt app`: its options, and the server."""

import argparse
import os
from collections.abc import Sequence

from hf_gpt.cli.command import add_loading_options, exit_status
from hf_gpt.cli.parser import CommandParser


def make_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = CommandParser(
        prog="hf-gpt app",
        description="Opens a page on this machine that writes with models, colours texts by "
        "a discriminator's score, and compares two models. It needs no connection and sends nothing.",
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folders or Hub ids; NAME=MODEL names one")
    parser.add_argument("--discriminator", help="folder of a discriminator or checkpoint, or a Hub id")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 serves other machines too (%(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="of the page (%(default)s)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    add_loading_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = make_parser().parse_args(argv)
    # Read when the library is imported, which would ask its maker for news.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    return exit_status(lambda: serve(args), expected=(OSError, ValueError), extra="app")


def serve(args: argparse.Namespace) -> int:
    """Loads the models and serves the page until it is stopped."""
    import gradio

    from hf_gpt.app.page import launch_options, make_page
    from hf_gpt.app.sessions import Judge, Writer, open_judge
    from hf_gpt.evaluation.tasks.loading import name_models, open_candidate
    from hf_gpt.terminal import hide_bars

    hide_bars()
    options = {key: getattr(args, key) for key in ("device", "dtype", "revision", "trust_remote_code")}
    writers: dict[str, Writer] = {}
    for name, path in name_models(args.models).items():
        candidate = open_candidate(name, path, **options)
        if candidate.head != "causal":
            raise ValueError(f"{path} is a {candidate.head} model; the app writes with causal language models.")
        writers[name] = Writer(candidate)
    judge: Judge | None = None
    if args.discriminator is not None:
        judge = open_judge(args.discriminator, args.device, args.revision, args.trust_remote_code)
    page = make_page(gradio, writers, judge)
    options = {"server_name": args.host, "server_port": args.port, "inbrowser": args.open, **launch_options(gradio)}
    try:
        _, address, _ = page.launch(share=False, quiet=True, prevent_thread_lock=True, **options)
    except OSError as error:
        raise OSError(f"port {args.port} of {args.host} cannot be had. Choose another with --port.") from error
    print(f"The page is at {address} until Ctrl-C.", flush=True)
    page.block_thread()
    return 0
