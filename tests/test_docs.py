"""The pages of docs/: every Python example runs, commands and links lead somewhere, the option reference is current."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.cli import COMMANDS
from hf_gpt.training.option_reference import reference
from hf_gpt.training.tokenizer import train_tokenizer


ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL))
]


@pytest.fixture
def checkpoint(tmp_path):
    tokenizer = train_tokenizer(iter(["ROMEO:\nto be or not to be"]), 300, model_max_length=128)
    config = HfGptConfig.preset(
        "nano", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    HfGptForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("code", EXAMPLES)
def test_example_runs(code, checkpoint, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    exec(compile(code.replace("runs/demo/model", str(checkpoint)), "example", "exec"), {})


@pytest.mark.parametrize(
    ("name", "says"),
    [("own_gpt", r"held-out loss \d\.\d+ before, \d\.\d+ after"), ("critic", r"AUC 0\.\d+ \(0\.\d+ to [01]\.\d+\)\Z")],
)
def test_notebook_runs(name, says, tmp_path, monkeypatch):
    monkeypatch.setenv("STEPS", "2")
    command = [sys.executable, str(ROOT / "docs" / "notebooks" / f"{name}.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert re.search(says, done.stdout.strip()), done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_exist(page):
    assert set(re.findall(r"^ *hf-gpt (\w+)", page.read_text(), flags=re.MULTILINE)) <= set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make ([\w-]+)`", (ROOT / "README.md").read_text())):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_option_reference_is_current():
    assert (ROOT / "docs" / "options.md").read_text() == reference(), (
        "make it anew: python -m hf_gpt.training.option_reference > docs/options.md"
    )
