"""transformers' example scripts train and evaluate our checkpoints: what they call, called here in their order."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from hf_gpt.cli.pretrain import main
from hf_gpt.training.monitoring import reload_check
from tests.fine_tuning import called_here


SCRIPTS = Path(__file__).with_name("example_scripts.py")


@pytest.fixture(scope="module")
def scripts():
    spec = importlib.util.spec_from_file_location("example_scripts", SCRIPTS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, corpus_text):
    """The folder of a model as `hf-gpt pretrain` writes it."""
    folder = tmp_path_factory.mktemp("pretrained")
    (folder / "corpus.txt").write_text(corpus_text, encoding="utf-8")
    recipe = {
        "train_file": [str(folder / "corpus.txt")],
        "output_dir": str(folder / "run"),
        "config_overrides": {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        "tokenizer_vocab_size": 300,
        "max_length": 64,
        "max_steps": 2,
        "save_strategy": "no",
        "sample_max_new_tokens": 2,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reload_check, "in_fresh_process", called_here)
        assert main(["--config", str(folder / "recipe.yaml")]) == 0
    return str(folder / "run" / "model")


def check(name, result):
    assert math.isfinite(result["train_loss"]) and result["train_loss"] > 0
    if name == "run_clm":
        assert result["block_size"] == 64 and 0 <= result["eval_accuracy"] <= 1
    if name == "run_glue":
        assert result["num_predictions"] == 40 and 0 <= result["eval_accuracy"] <= 1
    if name == "run_glue_regression":
        # The labels' own variance is 2.1; binary cross-entropy would run away from targets up to 5.
        assert result["eval_mse"] < 2.2
    if name == "run_qa":
        assert result["finite"] and result["windows"] > 9


@pytest.mark.parametrize("name", ["run_clm", "run_glue", "run_glue_regression", "run_qa"])
def test_a_script_runs_where_hf_gpt_is_installed(name, scripts, checkpoint, tmp_path):
    check(name, getattr(scripts, name)(checkpoint, str(tmp_path / "out"), False))
    if name == "run_clm":
        saved = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        assert saved.config.max_position_embeddings == 64
    if name == "run_glue_regression":
        assert AutoConfig.from_pretrained(tmp_path / "out").problem_type == "regression"


@pytest.mark.parametrize("name", ["run_clm", "run_glue", "run_qa"])
def test_a_script_runs_where_hf_gpt_is_not_installed(name, checkpoint, tmp_path):
    check(name, in_fresh_process(name, checkpoint, tmp_path / "out"))
    assert (tmp_path / "out" / "modeling_hf_gpt.py").is_file()


def in_fresh_process(name, checkpoint, output):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_MODULES_CACHE": str(output.parent / "modules")}
    command = [sys.executable, str(SCRIPTS), name, checkpoint, str(output)]
    process = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=output.parent, timeout=300, check=False
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.strip().splitlines()[-1])


def test_a_translation_script_trains_an_encoder_decoder(scripts, tokenizer, tmp_path):
    from transformers import AutoModelForSeq2SeqLM

    config = AutoConfig.for_model(
        "hf_gpt_seq2seq",
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    result = scripts.run_seq2seq(str(tmp_path / "model"), str(tmp_path / "out"), False)
    assert math.isfinite(result["train_loss"]) and 0 < result["eval_gen_len"] <= 24
