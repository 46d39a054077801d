"""How commands end: one line on standard error, and the exit status."""

import errno

import pytest

from hf_gpt.cli.command import exit_status
from hf_gpt.errors import UserError
from hf_gpt.installation import install_hint


def raises(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("wrong\n  value"), 2, "error: wrong value\n"),
        (KeyboardInterrupt(), 130, "Stopped.\n"),
        (
            OSError(errno.ENOSPC, "No space left"),
            2,
            "error: [Errno 28] No space left. Make room on the disk. Files that are there are whole.\n",
        ),
    ],
)
def test_an_end_in_one_line(error, status, said, capsys):
    assert exit_status(raises(error), expected=(UserError,)) == status
    assert capsys.readouterr().err == said


def test_what_is_not_expected_keeps_its_traceback():
    with pytest.raises(FileNotFoundError):
        exit_status(raises(FileNotFoundError("lost")), expected=(UserError,))
    with pytest.raises(ImportError):
        exit_status(raises(ImportError("lost")))


def test_missing_packages_and_missing_folders_are_named(capsys):
    assert exit_status(raises(ImportError("no gradio")), extra="app") == 2
    assert install_hint("app") in capsys.readouterr().err
    assert exit_status(raises(OSError("no model")), paths=("./nowhere", None)) == 2
    assert capsys.readouterr().err == "error: no model There is no folder ./nowhere.\n"


def test_work_without_a_status_ends_well():
    assert exit_status(lambda: None) == 0
