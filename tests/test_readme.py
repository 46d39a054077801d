"""Every Python example of the README runs, and every command that it names exists."""

import re
from pathlib import Path

import pytest

from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.cli import COMMANDS
from hf_gpt.training.tokenizer import train_tokenizer


README = (Path(__file__).parents[1] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def checkpoint(tmp_path):
    tokenizer = train_tokenizer(iter(["ROMEO:\nto be or not to be"]), 300, model_max_length=128)
    config = HfGptConfig.preset(
        "nano", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    HfGptForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("code", EXAMPLES)
def test_example_runs(code, checkpoint):
    exec(compile(code.replace("runs/demo/model", str(checkpoint)), "README.md", "exec"), {})


def test_commands_exist():
    named = set(re.findall(r"^hf-gpt (\w+)", README, flags=re.MULTILINE))
    assert named and named <= set(COMMANDS)


def test_make_targets_exist():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for target in set(re.findall(r"make ([\w-]+)", README)) - {"is"}:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
