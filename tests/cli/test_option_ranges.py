"""Every number of every command has a range, and one outside it is refused before any work, in a sentence."""

import dataclasses
import importlib
import re

import pytest

from hf_gpt.adversarial.arguments import AdversarialArguments
from hf_gpt.cli.main import COMMANDS, main
from hf_gpt.cli.options import options_of, training_options
from hf_gpt.option_ranges import RANGES, wrong_number
from hf_gpt.training import arguments
from hf_gpt.training.settings import ADVERSARIAL_RECIPES, RECIPES, read_recipe


NEEDED = "--model_name_or_path runs/x --train_file x"


def numeric_options():
    """Name, command or class, and default of each."""
    kinds = [kind for kind in vars(arguments).values() if dataclasses.is_dataclass(kind)]
    for kind in [*kinds, AdversarialArguments]:
        for option in options_of(kind):
            if re.search(r"\b(int|float)\b", option.type):
                yield option.name, kind.__name__, option.default
    for options in training_options():
        for option in options:
            if re.search(r"\b(int|float)\b", option.type):
                yield option.name, "training", option.default
    for name, command in COMMANDS.items():
        module = importlib.import_module(command.module)
        if command.module.startswith("hf_gpt.training.") and not hasattr(module, "CommandParser"):
            continue
        for action in module.make_parser()._actions:
            if action.type in (int, float):
                yield action.dest, name, "" if action.default is None else action.default


def test_every_numeric_option_has_a_range_that_holds_its_default():
    for name, where, default in numeric_options():
        assert name in RANGES, f"--{name} of {where} has no row in hf_gpt/option_ranges.py"
        defaults = default if isinstance(default, list) else str(default).split()
        for value in defaults:
            assert RANGES[name].holds(float(value)), (name, where, value)


ALL_RECIPES = sorted([*RECIPES.glob("*.yaml"), *ADVERSARIAL_RECIPES.glob("*.yaml")])


@pytest.mark.parametrize("path", ALL_RECIPES, ids=lambda path: path.stem)
def test_recipes_are_in_range(path):
    names = set(RANGES) | {line.partition(":")[0] for line in path.read_text().splitlines()}
    assert wrong_number(read_recipe(path, names)) is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("adversarial --discriminator_learning_rate -1e-4", "must be at least 0 and at most 1,000, got -0.0001."),
        ("pretrain --learning_rate -1", "--learning_rate must be at least 0 and at most 1,000, got -1.0."),
        ("pretrain --learning_rate 1e9", "--learning_rate must be at least 0 and at most 1,000"),
        ("pretrain --learning_rate nan", "--learning_rate must be at least 0 and at most 1,000, got nan."),
        ("pretrain --weight_decay inf", "--weight_decay must be at least 0, got inf."),
        ("pretrain --weight_decay 1e30", "must be at least 0 and at most 2,147,483,647, got 1e+30."),
        ("pretrain --max_length 0", "--max_length must be at least 1 and at most 16,777,216, got 0."),
        ("pretrain --max_steps -5", "--max_steps must be at least 1, got -5."),
        ("pretrain --seed -1", "--seed must be at least 0 and at most 4,294,967,295, got -1."),
        ("pretrain --adam_beta2 1", "--adam_beta2 must be at least 0 and below 1, got 1.0."),
        ("pretrain --save_total_limit 0", "--save_total_limit must be at least 1, got 0."),
        ("pretrain --sample_top_p 1.5", "--sample_top_p must be above 0 and at most 1, got 1.5."),
        ("pretrain --per_device_train_batch_size 100000000000", "--per_device_train_batch_size must be"),
        ("finetune --validation_fraction 1", "--validation_fraction must be above 0 and below 1, got 1.0."),
        ("finetune --lora_r 0", "--lora_r must be at least 1, got 0."),
        ("finetune --num_beams -3", "--num_beams must be at least 1, got -3."),
        ("adversarial --temperature -1", "--temperature must be at least 0, got -1.0."),
        (
            f"discriminator {NEEDED} --max_new_tokens 0",
            "--max_new_tokens must be at least 1 and at most 16,777,216, got 0.",
        ),
        (f"discriminator {NEEDED} --learning_rate -1", "--learning_rate must be at least 0"),
        ("generate runs/x hello --num_return_sequences 0", "--num_return_sequences must be at least 1, got 0."),
        ("generate runs/x hello --temperature nan", "--temperature must be at least 0, got nan."),
        ("generate runs/x hello --top_p 0", "--top_p must be above 0 and at most 1, got 0.0."),
        ("generate runs/x hello --top_k -1", "--top_k must be at least 0, got -1."),
        ("generate runs/x hello --seed 99999999999999999999999", "--seed must be at least 0"),
        ("chat runs/x --repetition_penalty 0", "--repetition_penalty must be above 0, got 0.0."),
        ("score --discriminator runs/x texts.txt --batch_size 0", "--batch_size must be at least 1, got 0."),
        ("eval runs/x --temperatures 1 -2", "--temperatures must be at least 0, got -2.0."),
        ("eval runs/x --bootstrap -1", "--bootstrap must be at least 0, got -1."),
        (
            "tokenizer --train_file x.txt --output_dir y --vocab_size -1",
            "--vocab_size must be at least 1 and at most 16,777,216, got -1.",
        ),
        ("demo --seconds -1", "--seconds must be at least 0, got -1.0."),
        ("demo --pretrain_steps 0", "--pretrain_steps must be at least 1, got 0."),
        ("plan --gpus 0", "--gpus must be at least 1, got 0."),
        ("plan --mfu 2", "--mfu must be above 0 and at most 1, got 2.0."),
        ("app runs/x --port 70000", "--port must be at least 1 and at most 65,535, got 70000."),
    ],
)
def test_numbers_out_of_range_are_refused_before_work(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(argv.split())
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2
    assert message in error and "Traceback" not in error and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())
