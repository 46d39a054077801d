"""`hf-gpt app`: its options, and the server."""

import argparse
import os
import sys
from collections.abc import Sequence

from hf_gpt.cli.parser import CommandParser
from hf_gpt.terminal import INTERRUPTED


def make_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = CommandParser(
        prog="hf-gpt app",
        description="Opens a page on this machine that writes with models, guided by a discriminator or not, colours "
        "texts by its score, and compares two models. It needs no connection and tells nobody anything.",
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folders or Hub ids; NAME=MODEL names one")
    parser.add_argument("--discriminator", help="folder of a discriminator or checkpoint, or a Hub id")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 serves other machines too (%(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="of the page (%(default)s)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    parser.add_argument("--device", help="cpu, cuda, ...; left out: an accelerator if there is one")
    parser.add_argument("--revision", default="main", help="branch, tag or commit of Hub ids")
    parser.add_argument("--trust_remote_code", action="store_true", help="run model code that comes with a checkpoint")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = make_parser().parse_args(argv)
    # Read when the library is imported, which would ask its maker for news.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        print(f"error: the app needs more packages ({error}): pip install 'hf-gpt[app]'", file=sys.stderr)
        return 2
    try:
        return serve(args, gradio)
    except (OSError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def serve(args: argparse.Namespace, gradio: object) -> int:
    """Loads the models and serves the page until it is stopped."""
    from transformers.utils import logging

    from hf_gpt.app.page import launch_options, make_page
    from hf_gpt.app.sessions import Judge, Writer, open_judge
    from hf_gpt.evaluation.tasks.loading import name_models, open_candidate

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
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


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
