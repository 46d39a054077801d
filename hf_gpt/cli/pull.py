"""`hf-gpt pull`: a checkpoint from the Hub."""

import argparse
from collections.abc import Sequence

from hf_gpt.cli.command import exit_status
from hf_gpt.cli.parser import CommandParser


def make_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = CommandParser(
        prog="hf-gpt pull",
        description="Downloads a checkpoint from the Hub into a folder. Code that comes along is not run.",
    )
    parser.add_argument("repo_id", help="owner/name")
    parser.add_argument("destination", help="folder to write")
    parser.add_argument("--subfolder", help="folder of the repository that is wanted; left out: all of it")
    parser.add_argument("--revision", help="branch, tag or commit")
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint at the destination")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = make_parser().parse_args(argv)
    return exit_status(lambda: print(_pull(args)))


def _pull(args: argparse.Namespace) -> str:
    from hf_gpt.hub.transfer import pull

    folder = pull(
        args.repo_id,
        args.destination,
        revision=args.revision,
        subfolder=args.subfolder,
        overwrite=args.overwrite,
    )
    return f"{args.repo_id} is in {folder}"
