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
    parser.add_argument(
        "--allowed_hosts",
        nargs="+",
        default=[],
        metavar="NAME",
        help="further names that the page is reached by; addresses in numbers and this machine's name always are",
    )
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

    if not hasattr(gradio, "Blocks"):
        # Files that it made outlive it, and a folder alone can be imported.
        raise ImportError("gradio was taken away and left a folder")
    from starlette.middleware import Middleware

    from hf_gpt.app.examples import example_prompts
    from hf_gpt.app.hosts import HostCheck
    from hf_gpt.app.judge import Judge, open_judge
    from hf_gpt.app.page import make_page
    from hf_gpt.app.sessions import Writer
    from hf_gpt.app.style import launch_options
    from hf_gpt.evaluation.tasks.loading import name_models, open_candidate
    from hf_gpt.files.checkpoints import find_model
    from hf_gpt.terminal import hide_bars

    hide_bars()
    options = {key: getattr(args, key) for key in ("device", "dtype", "revision", "trust_remote_code")}
    writers: dict[str, Writer] = {}
    for name, path in name_models(args.models).items():
        candidate = open_candidate(name, path, **options)
        if candidate.head != "causal":
            raise ValueError(f"{path} is a {candidate.head} model; the app writes with causal language models.")
        is_chat = bool(candidate.tokenizer.chat_template)
        writers[name] = Writer(candidate, example_prompts(find_model(path), is_chat))
    judge: Judge | None = None
    if args.discriminator is not None:
        judge = open_judge(args.discriminator, args.device, args.revision, args.trust_remote_code)
    page = make_page(gradio, writers, judge)
    middleware = [Middleware(HostCheck, names=[args.host, *args.allowed_hosts])]
    options = {"server_name": args.host, "server_port": args.port, "inbrowser": args.open, **launch_options(gradio)}
    options["app_kwargs"] = {"middleware": middleware}
    try:
        _, address, _ = page.launch(share=False, quiet=True, prevent_thread_lock=True, **options)
    except OSError as error:
        raise OSError(
            f"port {args.port} of {args.host} cannot be had. Choose another with --port, or an address of this machine "
            "with --host."
        ) from error
    print(f"The page is at {address} until Ctrl-C.", flush=True)
    page.block_thread()
    return 0
