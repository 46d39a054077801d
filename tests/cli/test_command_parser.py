"""What commands say to options that they do not know: one line, with the nearest."""

import pytest

from hf_gpt import option_names
from hf_gpt.cli.parser import CommandParser
from hf_gpt.errors import ConfigError
from hf_gpt.training.settings import check_option_names, read_recipe


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


@pytest.fixture
def renamed_option(monkeypatch):
    """`--paint` of former versions is `--colour` today."""
    monkeypatch.setitem(option_names.RENAMED_OPTIONS, "paint", "colour")


@pytest.mark.parametrize(("former", "present"), option_names.RENAMED_OPTIONS.items())
def test_the_table_of_former_names_leads_from_a_name_to_another(former, present):
    assert option_names.renamed(former, [present]) == present


@pytest.mark.parametrize("argv", [["--paint", "red"], ["--paint=red"]])
def test_a_former_name_is_refused_with_the_present_one(argv, renamed_option, capsys):
    parser = CommandParser(prog="paint")
    parser.add_argument("--colour")
    parser.add_argument("--required", required=True)
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(argv)
    assert stopped.value.code == 2 and capsys.readouterr().err == "error: --paint is now --colour. Rename it.\n"


def test_a_name_in_use_is_not_refused_although_another_command_has_renamed_it(renamed_option):
    parser = CommandParser(prog="paint")
    parser.add_argument("--paint")
    assert parser.parse_args(["--paint", "red"]).paint == "red"


def test_recipes_and_training_commands_refuse_former_names(renamed_option, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("paint: red\n")
    with pytest.raises(ConfigError, match="'paint' is now 'colour'"):
        read_recipe(path, ["colour"])
    with pytest.raises(ConfigError, match="--paint is now --colour"):
        check_option_names(["--paint", "red"], ["colour"])
    with pytest.raises(ConfigError, match="unknown option --paint"):
        check_option_names(["--paint", "red"], ["size"])
