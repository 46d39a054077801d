"""`hf-gpt pull`: a checkpoint from the Hub."""

from dataclasses import asdict, dataclass

from hf_gpt.cli.command import REQUIRED, command, option
from hf_gpt.cli.next_step import print_next, use_of_model


@dataclass(frozen=True, kw_only=True)
class PullOptions:
    """The options of the command."""

    repo_id: str = option(REQUIRED, "owner/name", positional=True)
    destination: str = option(REQUIRED, "folder to write", positional=True)
    subfolder: str | None = option(None, "folder of the repository that is wanted; left out: all of it")
    revision: str | None = option(None, "branch, tag or commit")
    overwrite: bool = option(False, "replace a checkpoint at the destination")


def _pull(args: PullOptions) -> None:
    from hf_gpt.hub.transfer import pull

    folder = pull(**asdict(args))
    print(f"{args.repo_id} is in {folder}")
    print_next(use_of_model(folder))


make_parser, main = command(
    "hf-gpt pull",
    "Downloads a checkpoint from the Hub into a folder. Code that comes along is not run.",
    PullOptions,
    _pull,
    examples=["owner/name runs/pulled"],
)
