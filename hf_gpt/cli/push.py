"""`hf-gpt push`: a checkpoint to the Hub."""

from dataclasses import asdict, dataclass
from shlex import quote
from typing import Any

from hf_gpt.cli.command import REQUIRED, command, option
from hf_gpt.cli.next_step import print_next
from hf_gpt.installation import as_typed


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """The options of the command."""

    folder: str | None = option(None, "checkpoint, run or adapter; none with --code_only", positional=True, nargs="?")
    repo_id: str = option(REQUIRED, "where to: owner/name, made if it is not there", positional=True)
    code_only: bool = option(False, "bring the model code there up to date, no more", aliases=("--code-only",))
    discriminator: str | None = option(None, "checkpoint that goes to the subfolder discriminator")
    base_model: str | None = option(None, "Hub id of the model that an adapter is for")
    results: str | None = option(None, "results.json of hf-gpt eval, whose metrics the card shows")
    subfolder: str | None = option(None, "folder of the repository to put it in")
    revision: str | None = option(None, "branch, made if it is not there")
    private: bool = option(False, "make the repository visible to its owner alone")
    commit_message: str | None = option(None, "what the commit says")


def _wrong(args: Any) -> str | None:
    if (args.folder is None) == args.code_only:
        return None
    return "give a folder and a repository; with --code_only the repository alone"


def _push(args: PushOptions) -> None:
    from hf_gpt.hub.transfer import push, push_code

    options = asdict(args)
    del options["code_only"]
    if args.code_only:
        done = push_code(args.repo_id, revision=args.revision, commit_message=args.commit_message)
    else:
        done = push(**{**options, "private": args.private or None})
    kept = f"\nleft out, no part of a checkpoint: {', '.join(done.left_out)}" if done.left_out else ""
    print(f"{done.url}: {len(done.files)} files{kept}")
    where = "" if args.subfolder is None else f" --subfolder {quote(args.subfolder)}"
    where += "" if args.revision is None else f" --revision {quote(args.revision)}"
    folder = quote(f"runs/{args.repo_id.partition('/')[2] or args.repo_id}-pulled")
    print_next(as_typed(f"hf-gpt pull {quote(args.repo_id)} {folder}{where}"))


make_parser, main = command(
    "hf-gpt push",
    "Uploads a checkpoint to the Hub: weights, model code, tokenizer, generation config and a card. Nothing else that "
    "lies in the folder goes along. Log in first by `hf auth login`, or set HF_TOKEN.",
    PushOptions,
    _push,
    examples=["runs/book/model owner/name", "--code_only owner/name"],
    check=_wrong,
)
