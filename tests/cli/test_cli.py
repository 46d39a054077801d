import importlib
import subprocess
import sys

import pytest

from hf_gpt.cli.main import COMMANDS, main


def run(*argv):
    return subprocess.run([sys.executable, "-m", "hf_gpt", *argv], capture_output=True, text=True)


@pytest.mark.parametrize("argv", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_is_printed(argv):
    process = run(*argv)
    assert process.returncode == 0 and "usage: hf-gpt" in process.stdout and process.stderr == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_does_not_import_pytorch(name):
    script = f"""
import sys
from hf_gpt.cli.main import main
try:
    main([{name!r}, "--help"])
except SystemExit:
    pass
print([name for name in ("torch", "transformers", "datasets") if name in sys.modules], file=sys.stderr)
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stderr.strip() == "[]"


def test_help_lists_the_options_of_the_library_too():
    output = run("pretrain", "--help", "all").stdout
    for option in ("--preset", "--train_file", "--muon_learning_rate", "--gradient_accumulation_steps", "--config"):
        assert option in output


@pytest.mark.parametrize("name, recipe", [("pretrain", "demo"), ("finetune", "summarization"), ("adversarial", "gad")])
def test_short_help_has_what_people_set_and_the_recipes(name, recipe):
    output = run(name, "--help").stdout
    assert output.count("\n  --") <= 12 and "--model_name_or_path" in output and "--muon_learning_rate" not in output
    assert f"\n  {recipe} " in output and f"hf-gpt {name} --help all lists all" in output
    assert max(map(len, output.splitlines())) <= 120


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["pretran"], "did you mean pretrain?"),
        (["pretrain", "--max_lenght", "3"], "did you mean --max_length?"),
        (["pretrain", "--config", "demmo"], "did you mean demo?"),
        (["pretrain", "--config"], "needs a value"),
        (
            ["adversarial", "--config", "reinforce", "texts.txt"],
            "'texts.txt' belongs to no option: files to train on go",
        ),
    ],
)
def test_slips_are_answered_without_a_traceback(argv, message):
    process = run(*argv)
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr.startswith("error: ") and message in process.stderr and "Traceback" not in process.stderr


def test_no_command(capsys):
    assert main([]) == 2
    assert "pretrain" in capsys.readouterr().out


def test_version(capsys):
    from hf_gpt.version import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hf-gpt {__version__}\n"


def test_tokenizer_command(tmp_path, corpus_file, capsys):
    from transformers import AutoTokenizer

    argv = [
        "tokenizer",
        "--train_file",
        str(corpus_file),
        "--vocab_size",
        "300",
        "--output_dir",
        str(tmp_path / "tokenizer"),
    ]
    assert main(argv) == 0
    assert len(AutoTokenizer.from_pretrained(tmp_path / "tokenizer")) == 300
    assert main(argv) == 2 and "--overwrite" in capsys.readouterr().err
    assert main([*argv, "--overwrite"]) == 0
    argv[2] = str(tmp_path / "nothing.txt")
    assert main([*argv, "--overwrite"]) == 2 and "no such file" in capsys.readouterr().err


def test_tokenizer_command_does_not_replace_a_model(tmp_path, corpus_file, capsys):
    (tmp_path / "model").mkdir()
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "model" / name).touch()
    assert main(["tokenizer", "--train_file", str(corpus_file), "--output_dir", str(corpus_file)]) == 2
    assert "is a file" in capsys.readouterr().err
    argv = ["tokenizer", "--train_file", str(corpus_file), "--output_dir", str(tmp_path / "model"), "--overwrite"]
    assert main(argv) == 2 and "choose another folder" in capsys.readouterr().err


def test_generate_without_a_model(capsys):
    assert main(["generate", "./nowhere", "prompt"]) == 2
    assert "there is no folder ./nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"app", "demo"}))
def test_help_is_short_and_has_an_example(name):
    output = run(name, "--help").stdout
    options = [line for line in output.splitlines() if line.startswith("  --") and not line.startswith("  --help")]
    assert len(options) <= 12, options
    assert any(line.startswith(f"  hf-gpt {name}") for line in output.splitlines()), output
    whole = run(name, "--help", "all").stdout
    assert all(line.split()[0] in whole for line in options)


def test_every_option_has_a_help():
    for name in ("generate", "discriminator", "eval", "plan", "score"):
        parser = importlib.import_module(COMMANDS[name].module).make_parser()
        assert all(action.help for action in parser._actions)
