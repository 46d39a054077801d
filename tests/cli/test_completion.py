"""The script of `hf-gpt completion`, read by bash, and what it costs."""

import shutil
import subprocess
import sys

import pytest

from hf_gpt.cli.completion import parser_of_all
from hf_gpt.cli.main import COMMANDS, main


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    process = subprocess.run([sys.executable, "-m", "hf_gpt", "completion", "bash"], capture_output=True, text=True)
    assert process.returncode == 0 and process.stderr == ""
    path = tmp_path_factory.mktemp("completion") / "hf-gpt.bash"
    path.write_text(process.stdout, encoding="utf-8")
    return path


def complete(script, *words):
    """What bash offers for the last word."""
    line = " ".join(f"'{word}'" for word in words)
    code = f'source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_hf_gpt; echo "${{COMPREPLY[@]}}"'
    return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["pre"], {"pretrain"}),
        (["pretrain", "--train_f"], {"--train_file", "--train_file_weights"}),
        (["pretrain", "--config", ""], {"demo"}),
        (["adversarial", "--config", "g"], {"gad", "grgc"}),
        (["finetune", "--task", "cl"], {"classification", "closed_book_qa"}),
        (["finetune", "--config", "summ"], {"summarization"}),
        (["pretrain", "--accelerate", "fs"], {"fsdp2"}),
        (["generate", "runs", "--guidance", "b"], {"best_of_n"}),
        (["convert", "a", "b", "--to", "l"], {"llama"}),
        (["completion", "b"], {"bash"}),
    ],
)
def test_bash_offers_commands_options_and_values(script, words, offered):
    assert set(complete(script, "hf-gpt", *words)) == offered


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_offers_files_and_folders(script, tmp_path):
    (tmp_path / "book.txt").touch()
    (tmp_path / "books").mkdir()
    assert complete(script, "hf-gpt", "pretrain", "--train_file", f"{tmp_path}/bo") == [
        f"{tmp_path}/book.txt",
        f"{tmp_path}/books",
    ]
    assert complete(script, "hf-gpt", "pretrain", "--output_dir", f"{tmp_path}/bo") == [f"{tmp_path}/books"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh"])
def test_scripts_know_every_command(shell, capsys):
    assert main(["completion", shell]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in COMMANDS)


def test_every_option_of_a_command_is_completed():
    parser = parser_of_all(COMMANDS)
    commands = next(action for action in parser._actions if action.dest == "command").choices
    assert set(commands) == set(COMMANDS)
    assert {"--learning_rate", "--gate_auc", "--accelerate"} <= set(commands["adversarial"]._option_string_actions)


def test_no_heavy_library_is_imported():
    script = """
import sys
from hf_gpt.cli.main import main
main(["completion", "zsh"])
print([name for name in ("torch", "transformers", "datasets", "numpy") if name in sys.modules], file=sys.stderr)
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.stderr.strip() == "[]"
