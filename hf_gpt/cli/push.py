"""`hf-gpt push`: a checkpoint to the Hub."""

import argparse
from collections.abc import Sequence
from typing import Any

from hf_gpt.cli.command import exit_status
from hf_gpt.cli.parser import CommandParser


def make_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = CommandParser(
        prog="hf-gpt push",
        description="Uploads a checkpoint to the Hub: weights, model code, tokenizer, generation config and a card. "
        "Nothing else that lies in the folder goes along. Log in first by `hf auth login`, or set HF_TOKEN.",
    )
    parser.add_argument("folder", nargs="?", help="checkpoint, run or adapter; left out with --code_only")
    parser.add_argument("repo_id", help="where to: owner/name, made if it is not there")
    parser.add_argument(
        "--code_only", "--code-only", action="store_true", help="bring the model code there up to date, no more"
    )
    parser.add_argument("--discriminator", help="checkpoint that goes to the subfolder discriminator")
    parser.add_argument("--base_model", help="Hub id of the model that an adapter is for")
    parser.add_argument("--results", help="results.json of hf-gpt eval, whose metrics the card shows")
    parser.add_argument("--subfolder", help="folder of the repository to put it in")
    parser.add_argument("--revision", help="branch, made if it is not there")
    parser.add_argument("--private", action="store_true", help="make the repository visible to its owner alone")
    parser.add_argument("--commit_message", help="what the commit says")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if (args.folder is None) != args.code_only:
        parser.error("give a folder and a repository; with --code_only the repository alone")
    return exit_status(lambda: print(_push(args)))


def _push(args: argparse.Namespace) -> str:
    from hf_gpt.hub.transfer import push, push_code

    options: dict[str, Any] = {"revision": args.revision, "commit_message": args.commit_message}
    if args.code_only:
        done = push_code(args.repo_id, **options)
    else:
        done = push(
            args.folder,
            args.repo_id,
            discriminator=args.discriminator,
            subfolder=args.subfolder,
            private=args.private or None,
            base_model=args.base_model,
            results=args.results,
            **options,
        )
    kept = f"\nleft out, no part of a checkpoint: {', '.join(done.left_out)}" if done.left_out else ""
    return f"{done.url}: {len(done.files)} files{kept}"
