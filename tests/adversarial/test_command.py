"""`hf-gpt adversarial`: each recipe runs offline, and slips are answered in one line."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from hf_gpt.adversarial.discriminator.held_out_auc import read_held_out_auc
from hf_gpt.cli.adversarial import ADVERSARIAL_RECIPES, main
from hf_gpt.training.settings import built_in_recipes


NAMES = built_in_recipes(ADVERSARIAL_RECIPES)
PUBLISHED = {
    "gad": "2511.10643",
    "grgc": "GRGC (2026)",
    "seqgan": "1609.05473",
    "maligan": "1702.07983",
    "relgan": "rJedV3R5tm",
    "scratchgan": "1905.09922",
    "textgail": "2004.13796",
    "selfgan": "2106.06363",
    "cot": "1804.03782",
    "spin": "2401.01335",
    "distil_sequence": "1606.07947",
    "distil_token": "1503.02531",
    "distil_on_policy": "2306.13649",
}
SHAPE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
OPTIONS = {
    "config_overrides": json.dumps({**SHAPE, "num_key_value_heads": 2}),
    "tokenizer_vocab_size": 300,
    "max_new_tokens": 6,
    "max_train_samples": 200,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "mle_warmup_steps": 0,
    "discriminator_warmup_steps": 1,
    "discriminator_steps": 1,
    "gate_auc": 0,
    "max_steps": 3,
    "monitor_steps": 2,
    "num_eval_samples": 40,
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": "false",
    "metric_for_best_model": "loss",
    "logging_steps": 1,
    "bf16": "false",
    "report_to": "none",
}


@pytest.fixture
def texts(tmp_path):
    """Short speeches, so that texts are many and small."""
    from hf_gpt.data.corpus import CORPORA

    whole = (CORPORA / "tinyshakespeare.txt").read_text(encoding="utf-8")
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(whole.split("\n\n")[:240]), encoding="utf-8")
    return path


@pytest.mark.parametrize("corpus", [[], ["--train_file", "tinyshakespeare"]])
def test_prompts_are_columns_of_a_table(corpus, tmp_path, capsys):
    assert main(["--prompt_column", "question", *corpus, "--output_dir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --prompt_column question needs --train_file, a table with that column (.jsonl")


def run(texts, folder, *argv):
    small = [f"--{name}={value}" for name, value in OPTIONS.items()]
    return main([*small, *argv, "--train_file", str(texts), "--output_dir", str(folder)])


def test_every_method_has_a_recipe_with_its_source():
    assert set(NAMES) == {"distil_larger", "reinforce", *PUBLISHED}
    for name, source in PUBLISHED.items():
        assert source in (ADVERSARIAL_RECIPES / f"{name}.yaml").read_text(encoding="utf-8").split("output_dir")[0]


def test_the_former_name_of_a_recipe_is_refused_with_the_new_one(texts, tmp_path, capsys):
    assert run(texts, tmp_path / "run", "--config", "default") == 2
    assert "--config default is now --config distil_larger" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_recipes_run(name, texts, tmp_path, capsys):
    folder = tmp_path / "run"
    overrides = []
    if name == "seqgan":
        overrides = ['--discriminator_overrides={"kernel_sizes":[1,2],"num_filters":[8,8],"embedding_size":8}']
    assert run(texts, folder, "--config", name, *overrides) == 0, capsys.readouterr().err
    output = capsys.readouterr().out
    assert "held-out loss" in output and (folder / "report.html").is_file()
    assert (folder / "model" / "model.safetensors").is_file()
    assert (folder / "model" / "discriminator" / "config.json").is_file() == (name not in ("spin", "distil_sequence"))
    recipe = yaml.safe_load((ADVERSARIAL_RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    written = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    assert written["estimator"] == recipe["estimator"] and written["max_new_tokens"] == 6


def test_an_auc_has_its_interval_and_real_text_beside_it(texts, tmp_path, capsys):
    folder = tmp_path / "run"
    assert run(texts, folder, "--config", "reinforce", "--validation_fraction", "0.3") == 0
    lines = capsys.readouterr().out.splitlines()
    shown = r" +\d\.\d{4} \(\d\.\d\d to \d\.\d\d; 40 texts of each kind\)"
    names = ("fresh auc", "fresh auc real", "discriminator auc")
    assert [bool(re.fullmatch(name + shown, line)) for name in names for line in lines].count(True) == 3
    assert not any("fresh auc error" in line or "40.0000" in line for line in lines)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "of each); compare with the control" in page and "0.5 is" not in page
    stored = read_held_out_auc(folder / "model" / "discriminator")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    measured = [metrics[f"eval_discriminator_auc{part}"] for part in ("_low", "", "_high", "_texts")]
    assert [stored.low, stored.auc, stored.high, stored.num_texts] == measured and measured[3] == 40


def test_a_new_language_model_as_discriminator(texts, tmp_path, capsys):
    from transformers import AutoModelForCausalLM

    sizes = '--discriminator_overrides={"hidden_size":24,"num_hidden_layers":2,"num_attention_heads":2}'
    assert run(texts, tmp_path / "run", "--config", "distil_larger", sizes) == 0, capsys.readouterr().err
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    density = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model" / "discriminator")
    assert (density.config.hidden_size, model.config.hidden_size) == (24, 16)
    assert density.config.vocab_size == model.config.vocab_size
    refused = ["--discriminator_loss", "bce", "--estimator", "reinforce", "--token_divergence", "reverse_kl"]
    refused += ["--anchor_soft_targets", "0", "--distillation_warmup_steps", "0"]
    assert run(texts, tmp_path / "other", "--config", "distil_larger", sizes, *refused) == 2
    assert "has no label" in capsys.readouterr().err


def test_prompts_and_what_was_saved(tmp_path, capsys):
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    rows = [{"question": f"What is {n % 10} and {n % 7}?", "answer": f"It is {n % 10 + n % 7}."} for n in range(60)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    columns = ["--prompt_column", "question", "--completion_column", "answer", "--group_size", "4"]
    assert run(path, tmp_path / "run", "--config", "reinforce", *columns) == 0, capsys.readouterr().err
    model = tmp_path / "run" / "model"
    assert AutoModelForCausalLM.from_pretrained(model).generation_config.max_new_tokens == 6
    assert AutoModelForSequenceClassification.from_pretrained(model / "discriminator").config.num_labels == 1
    assert AutoTokenizer.from_pretrained(model / "discriminator").eos_token_id is not None


def test_a_trunk_for_both(texts, tmp_path, capsys):
    from transformers import AutoModelForSequenceClassification

    options = ["--discriminator", "from_generator", "--discriminator_trunk", "detached"]
    assert run(texts, tmp_path / "run", "--config", "reinforce", *options) == 0, capsys.readouterr().err
    saved = tmp_path / "run" / "model" / "discriminator"
    assert AutoModelForSequenceClassification.from_pretrained(saved).config.num_labels == 1


@pytest.mark.slow
def test_both_players_in_shards(texts, tmp_path):
    """The whole command in two processes, to the report."""
    settings = {**OPTIONS, "train_file": str(texts), "output_dir": str(tmp_path / "run")}
    settings["per_device_train_batch_size"] = 4
    argv = [f"--{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "hf_gpt", "adversarial", "--config", "reinforce", *argv]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    launch = ["--accelerate", "fsdp2", "--num_processes", "2"]
    process = subprocess.run([*command, *launch], capture_output=True, text=True, env=environment, timeout=500)
    assert process.returncode == 0, process.stderr[-3000:]
    assert (tmp_path / "run" / "report.html").is_file()
    assert (tmp_path / "run" / "model" / "discriminator" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config", "gadd"], "did you mean gad?"),
        (["--estimater", "grpo"], "did you mean --estimator?"),
        (["--estimator", "exact_token"], "mediator"),
        (["--token_divergence", "jsd"], "--reward chooses the divergence"),
        (["--token_divergence_beta", "1"], "both excluded, got 1.0. The limits of jsd"),
        (["--group_size", "3"], "does not divide"),
        (["--replay_fraction", "2"], "--replay_fraction"),
        (["--reward", "logit_difference"], "--reward_level prefix"),
        (["--num_iterations", "2"], "--estimator grpo"),
        (["--discriminator", "ngram_cnn", "--discriminator_overrides", "kernel_size=3"], "did you mean"),
        (["--fp16"], "--bf16"),
        (
            ["--discriminator", "./nowhere"],
            "error: --discriminator ./nowhere: there is no folder ./nowhere",
        ),
        (["--discriminator", "ngram_cnn", "--discriminator_trunk", "frozen"], "--discriminator from_generator"),
        (["--vllm_server", "http://127.0.0.1:9"], "vLLM"),
    ],
)
def test_slips(argv, message, texts, tmp_path, capsys):
    assert run(texts, tmp_path / "run", *argv) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and "Traceback" not in error


@pytest.mark.parametrize("kind", ["other words", "as many tokens", "too few tokens", "too many tokens"])
def test_a_discriminator_of_other_tokens_is_refused(tmp_path, texts, capsys, kind):
    """Without a tokenizer it would read the generator's tokens; with one of its own it has no scores of prefixes."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    from hf_gpt.data.tokenizer import train_tokenizer

    size = {"other words": 330, "as many tokens": 300, "too few tokens": 60, "too many tokens": 900}[kind]
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    folder = tmp_path / "discriminator"
    BertForSequenceClassification(BertConfig(vocab_size=size, num_labels=1, **small)).save_pretrained(folder)
    if kind == "other words":
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(325))]
        BertTokenizer(vocab={word: number for number, word in enumerate(words)}).save_pretrained(folder)
    elif kind == "as many tokens":
        train_tokenizer(["zebras quiz jazzy wizards", "fizz buzz"] * 50, 300).save_pretrained(folder)
    options = [part for name, value in OPTIONS.items() for part in (f"--{name}", str(value))]
    command = ["--config", "reinforce", "--train_file", str(texts), *options, "--output_dir", str(tmp_path / "run")]
    command += ["--discriminator", str(folder)]
    has_tokenizer = kind in ("other words", "as many tokens")
    if has_tokenizer:
        command += ["--reward_level", "prefix"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert ("does not score every prefix" if has_tokenizer else "tokenizer") in error and "Traceback" not in error
    assert not list(tmp_path.glob("run/checkpoint-*")) and not (tmp_path / "run" / "model").exists()
