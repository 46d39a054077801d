"""What all commands do alike: options that several have, errors in one line, exit status, Ctrl-C."""

import errno
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hf_gpt.errors import UserError
from hf_gpt.installation import install_hint
from hf_gpt.terminal import INTERRUPTED


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def exit_status(
    work: Callable[[], int | None],
    *,
    expected: tuple[type[Exception], ...] = (UserError, OSError),
    stopped: str = "Stopped.",
    paths: Sequence[str | None] = (),
    extra: str | None = None,
) -> int:
    """Runs the work of a command and returns its exit status.

    Args:
        work: Does it; returns the exit status, or None for 0.
        expected: Errors that the user can put right. A full disk always is one.
        stopped: What Ctrl-C is answered with.
        paths: Models that were asked for. An error of the Hub client does not say which of them is missing.
        extra: The extra of hf-gpt that holds packages which may be missing.

    Returns:
        That of the work; 2 after an expected error, with one line on standard error; 130 after Ctrl-C.
    """
    try:
        return work() or 0
    except ImportError as error:
        if extra is None:
            raise
        print(f"error: this needs more packages ({error}): {install_hint(extra)}", file=sys.stderr)
    except (OSError, *expected) as error:
        is_full = isinstance(error, OSError) and error.errno in _NO_ROOM
        if not is_full and not isinstance(error, expected):
            raise
        advice = ". Make room on the disk. Files that are there are whole." if is_full else ""
        # Errors of libraries fill several lines.
        message = re.sub(r"\s*\n\s*", " ", with_missing_paths(error, *paths))
        print(f"error: {message}{advice}", file=sys.stderr)
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return INTERRUPTED
    return 2


def with_missing_paths(error: Exception, *paths: str | None) -> str:
    """The message of an error; that of an `OSError` also names the paths that are no folders here."""
    absent = [path for path in paths if path is not None and path not in str(error) and not Path(path).exists()]
    return f"{error} There is no folder {' or '.join(absent)}." if absent and isinstance(error, OSError) else str(error)


def add_loading_options(parser: Any, *, dtype: bool = True, revision: bool = True) -> None:
    """Adds the options of how a model is loaded: `--dtype`, `--device`, `--revision`, `--trust_remote_code`.

    Args:
        parser: A parser or a group of its arguments.
    """
    if dtype:
        parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    parser.add_argument("--device", help="cpu, cuda, ...; left out: an accelerator if there is one")
    if revision:
        parser.add_argument("--revision", default="main", help="branch, tag or commit of a Hub id (%(default)s)")
    parser.add_argument("--trust_remote_code", action="store_true", help="run model code that comes with a checkpoint")


def describe_texts(count: int, args: Any) -> tuple[str, str]:
    """Name and text of the line about what was read from `--train_file`."""
    from hf_gpt.data.corpus import describe_split

    documents = f"{count:,} document{'' if count == 1 else 's'}"
    split = describe_split(args.train_file, args.document_separator)
    return "corpus", f"{', '.join(args.train_file)}: {documents}{split}"


def add_text_options(parser: Any) -> None:
    """Adds the options of how texts are read from files: `--text_column`, `--document_separator`.

    Args:
        parser: A parser or a group of its arguments.
    """
    parser.add_argument("--text_column", default="text", help="column of a table that holds the text (%(default)s)")
    parser.add_argument(
        "--document_separator", help=r"what parts a text file into texts, e.g. '\n'; left out: one file is one text"
    )
