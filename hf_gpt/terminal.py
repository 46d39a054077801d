"""Standard output that cannot kill a run: what a terminal, pipe or disk does not take is replaced or dropped.

A console may know fewer characters than a text has, the reader of a pipe may leave, the disk behind a redirection may
be full, and a stream may be closed. None of that is a reason to lose what was trained.
"""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO


# Errors after which nothing more can be written; a full disk is none of them.
_FINAL = (errno.EPIPE, errno.EBADF, errno.EIO, errno.ECONNRESET)


# Exit status of a program that Ctrl-C has ended.
INTERRUPTED = 130


class OutputClosedError(SystemExit):
    """The result of a command was being printed, and nothing takes it any more."""


class SafeStream:
    """A text stream whose `write` and `flush` never raise; all else is the stream's own.

    Args:
        stream: What is written to; None, as Python has it for a stream that is closed, takes everything.
        stops: Whether a stream that fails ends the program by `OutputClosedError`, as its text is what was asked for.

    Attributes:
        error: Why a write failed last, if one did.
    """

    def __init__(self, stream: TextIO | None, stops: bool = False):
        self._stream = io.StringIO() if stream is None else stream
        self._is_closed, self._stops = stream is None, stops
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Writes a text; characters that the stream's encoding lacks become escapes such as `\\U0001f600`."""
        if not self._is_closed:
            self._try(self._write, text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes one text after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hands on what is buffered."""
        if not self._is_closed:
            self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def _try(self, act: Callable[..., Any], *arguments: Any) -> None:
        try:
            act(*arguments)
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) and not getattr(self._stream, "closed", False):
                raise
            self.error = error if isinstance(error, OSError) else OSError(errno.EBADF, str(error))
            # A reader that has gone does not come back; a disk may have room again.
            self._is_closed = self.error.errno in _FINAL
            if self._stops:
                raise OutputClosedError(2) from error


@contextlib.contextmanager
def safe_output(stops: bool = False) -> Iterator[None]:
    """Inside, `print` never fails for what standard output or standard error cannot take.

    Args:
        stops: Whether standard output that fails ends the program, see `SafeStream`.
    """
    former = sys.stdout, sys.stderr
    for name, ends in (("stdout", stops), ("stderr", False)):
        if not isinstance(getattr(sys, name), SafeStream):
            setattr(sys, name, SafeStream(getattr(sys, name), ends))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = former


def run_program(main: Callable[[], int | None], *, prints_result: bool = False) -> int:
    """Runs the `main` of a program, the way every command and every `python -m` of ours begins.

    Args:
        main: Returns the exit status.
        prints_result: Whether standard output is what the program is for. Then it ends where its output cannot be
            written: quietly if the reader of a pipe has gone, with an error and status 2 otherwise. Other programs
            leave files, and go on.

    Returns:
        The exit status.
    """
    _open_standard_files()
    with safe_output(stops=prints_result):
        stdout, stderr = sys.stdout, sys.stderr
        hide_bars()
        try:
            status = main() or 0
        except OutputClosedError:
            status = 0
        except KeyboardInterrupt:
            # A program that has something to say of what is saved says it itself.
            print("Stopped.", file=stderr)
            status = INTERRUPTED
        except SystemExit as ending:
            # Such as argparse's, after a help that may not have been written.
            ending.code = _end(stdout, stderr, ending.code, prints_result)
            raise
        return _end(stdout, stderr, status, prints_result)


def hide_bars() -> None:
    """Keeps the progress bars of libraries that are imported already out of files and pipes."""
    if sys.stderr.isatty():
        return
    switches = {"datasets": "disable_progress_bars", "transformers.utils.logging": "disable_progress_bar"}
    for library, switch in switches.items():
        if library in sys.modules:
            getattr(sys.modules[library], switch)()


def _end(stdout: Any, stderr: Any, status: Any, prints_result: bool) -> Any:
    """Writes what is left and says what could not be written; returns the exit status."""
    error = _drain(stdout)
    if error is not None and error.errno != errno.EPIPE:
        if prints_result:
            print(f"error: standard output cannot be written: {error.strerror}.", file=stderr)
            status = status or 2
        else:
            print(f"warning: standard output was cut ({error.strerror}); all else is done.", file=stderr)
    _drain(stderr)
    return status


def _drain(stream: Any) -> OSError | None:
    """Writes what is left, or drops it, so that the end of the process does not try again; returns what went wrong."""
    with contextlib.suppress(OutputClosedError):
        stream.flush()
    error = getattr(stream, "error", None)
    if error is not None:
        with contextlib.suppress(OSError, ValueError):
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, stream.fileno())
            os.close(sink)
    return error


def _open_standard_files() -> None:
    """Makes sure that the three standard files are open, and that input of another encoding can be read."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Else the next file that is opened would get this number, and with it what others print.
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    elif hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")
