"""What commands say to options that they do not know: one line, with the nearest."""

import pytest

from hf_gpt.cli.parser import CommandParser


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--colur", "red"], "error: unrecognized arguments: --colur red; did you mean --colour? paint --help"),
        (["--colour", "redd"], "did you mean red? paint --help"),
        (["--colour"], "error: argument --colour: expected one argument. paint --help"),
        (["--xyz"], "error: unrecognized arguments: --xyz. paint --help"),
        (["--col", "red"], "unrecognized arguments: --col red; did you mean --colour?"),
    ],
)
def test_a_slip_is_answered_in_one_line_that_names_the_nearest(argv, said, capsys):
    parser = CommandParser(prog="paint")
    parser.add_argument("--colour", choices=["red", "blue"])
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(argv)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and said in error and error.count("\n") == 1
