"""The size of a new model that nobody named."""

import json

import pytest
import yaml

from hf_gpt import HfGptForCausalLM
from hf_gpt.cli.pretrain import choose_options, main
from hf_gpt.models.configuration_hf_gpt import PRESETS
from hf_gpt.training.preset_choice import (
    block_parameters,
    choose_passes,
    choose_preset,
    cpu_seconds,
    options_for_text,
)
from tests.fine_tuning import called_here


# Options under which a step takes no time.
SMALL = ["--tokenizer_vocab_size", "300", "--max_length", "32", "--per_device_train_batch_size", "2"]


@pytest.fixture(autouse=True)
def without_a_process(monkeypatch):
    """The saved model is opened again in this process."""
    monkeypatch.setattr("hf_gpt.training.monitoring.reload_check.in_fresh_process", called_here)


@pytest.mark.parametrize("name", ["nano", "mini", "124m"])
def test_parameters_of_the_blocks(name):
    import torch

    from hf_gpt import HfGptConfig, HfGptModel

    with torch.device("meta"):
        model = HfGptModel(HfGptConfig.preset(name, vocab_size=8))
    counted = sum(weight.numel() for key, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in key)
    assert block_parameters(name) == counted


@pytest.mark.parametrize(
    "tokens, passes, cores, expected",
    [
        (1_000, 1, 2, "nano"),
        (4 * 10**6, 1, 2, "micro"),
        (10**7, 1, 2, "nano"),
        (10**9, 1, 2, "nano"),
        (10**9, 1, 64, "nano"),
        (3 * 10**7, 1, 64, "mini"),
        (10**7, 1, None, "mini"),
        (10**12, 1, None, "124m"),
    ],
)
def test_the_size_fits_text_and_machine(tokens, passes, cores, expected):
    assert choose_preset(tokens, passes, cores) == expected


def test_more_of_either_never_makes_it_smaller():
    sizes = list(PRESETS)
    by_tokens = [sizes.index(choose_preset(10**power, 1, None)) for power in range(3, 12)]
    by_cores = [sizes.index(choose_preset(10**8, 1, cores)) for cores in (1, 2, 8, 64)]
    assert by_tokens == sorted(by_tokens) and by_cores == sorted(by_cores)


@pytest.mark.parametrize(
    "size, expected", [([], "nano"), (["--preset", "auto"], "nano"), (["--preset", "micro"], "micro")]
)
def test_pretraining_names_the_size_it_chose(tmp_path, capsys, size, expected):
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question. " * 200)
    options = [*SMALL, "--train_file", str(tmp_path / "text.txt"), *size]
    assert (
        main([*options, "--max_steps", "1", "--output_dir", str(tmp_path / "run"), "--sample_max_new_tokens", "2"]) == 0
    )
    model = HfGptForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert model.config.hidden_size == PRESETS[expected]["hidden_size"]
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["preset"] == expected
    assert ("--preset names another size" in capsys.readouterr().out) == (size != ["--preset", "micro"])


def test_a_resumed_run_keeps_the_size_it_began_with(tmp_path, monkeypatch, capsys):
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question. " * 200)
    options = [*SMALL, "--train_file", str(tmp_path / "text.txt")]
    options += ["--output_dir", str(tmp_path / "run"), "--sample_max_new_tokens", "2", "--save_steps", "1"]
    assert main([*options, "--max_steps", "1"]) == 0
    # What a run of more steps would be given.
    monkeypatch.setattr("hf_gpt.training.preset_choice.choose_preset", lambda *args: "micro")
    assert main([*options, "--max_steps", "2", "--resume_from_checkpoint"]) == 0
    model = HfGptForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert model.config.hidden_size == PRESETS["nano"]["hidden_size"]


def test_only_pretraining_chooses_a_size(tmp_path, capsys):
    from hf_gpt.cli.finetune import main as finetune

    rows = [json.dumps({"text": f"text {number}", "label": "odd" if number % 2 else "even"}) for number in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    options = ["--task", "classification", "--train_file", str(tmp_path / "rows.jsonl"), "--preset", "auto"]
    assert finetune([*options, "--output_dir", str(tmp_path / "run")]) == 2
    assert "--preset auto chooses the size for hf-gpt pretrain alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    "size, vocabulary, is_small",
    [(0, 512, True), (1_115_394, 1024, True), (2**24, 4096, False), (2**40, 32_768, False)],
)
def test_vocabulary_rows_and_rate_fit_the_text(size, vocabulary, is_small):
    chosen = options_for_text(size)
    assert chosen["tokenizer_vocab_size"] == vocabulary
    assert chosen == {"tokenizer_vocab_size": vocabulary} | (
        {"max_length": 256, "learning_rate": 5e-3} if is_small else {}
    )


def test_options_are_chosen_for_an_open_size_alone_and_may_be_overridden(tmp_path):
    (tmp_path / "text.txt").write_text("to be or not to be " * 100)
    file = ["--train_file", str(tmp_path / "text.txt")]
    assert choose_options(file) == choose_options([*file, "--preset", "auto"]) == options_for_text(1900)
    assert choose_options([])["tokenizer_vocab_size"] == 1024
    for named in (
        ["--preset", "nano"],
        ["--model_name_or_path", "runs/x"],
        ["--model_type", "llama"],
        ["--config_overrides", "{}"],
        ["--streaming"],
    ):
        assert choose_options([*file, *named]) == {}
    assert choose_options(["--train_file", str(tmp_path / "nowhere.txt")]) == {}
    options = [*file, "--learning_rate", "1e-3", "--max_steps", "1", "--sample_max_new_tokens", "2"]
    options += ["--per_device_train_batch_size", "1"]
    assert main([*options, "--output_dir", str(tmp_path / "run")]) == 0
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert (recipe["learning_rate"], recipe["max_length"], recipe["tokenizer_vocab_size"]) == (1e-3, 256, 512)


@pytest.mark.parametrize("steps, passes", [(0.5, 20), (15, 20), (50, 6), (99, 4), (100, 3), (10**5, 3)])
def test_a_small_text_is_gone_over_more_often(steps, passes):
    assert choose_passes(3.0, steps) == passes


def test_the_time_of_a_cpu_is_that_of_the_demo():
    # 11 k tokens per second on two cores, by the 0.86 M weights of `nano` and its head of 1,024 tokens.
    parameters = block_parameters("nano") + 1024 * PRESETS["nano"]["hidden_size"]
    assert 0.8 < cpu_seconds(parameters, 11_000, 2) < 1.25
    assert cpu_seconds(parameters, 11_000, 4) == cpu_seconds(parameters, 11_000, 2) / 2


def test_passes_are_chosen_where_nobody_names_them_or_steps(tmp_path, corpus_text, capsys):
    (tmp_path / "text.txt").write_text(corpus_text[:1500], encoding="utf-8")
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    options = [*SMALL, "--train_file", str(tmp_path / "text.txt")]
    options += [f"--config_overrides={json.dumps(shape)}", "--use_cpu", "--report_to", "none", "--save_strategy", "no"]
    options += ["--output_dir", str(tmp_path / "run"), "--sample_max_new_tokens", "2"]
    assert main(options) == 0
    output = capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["num_train_epochs"] == 20
    lines = output.splitlines()
    time = next(number for number, line in enumerate(lines) if line.startswith("time "))
    sampled = next(number for number, line in enumerate(lines) if line.startswith("----- prompt"))
    assert "CPU core" in lines[time] and time < sampled
    assert main([*options, "--num_train_epochs", "1", "--overwrite_output_dir"]) == 0
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["num_train_epochs"] == 1
