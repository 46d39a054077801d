import json
from importlib.util import find_spec

import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    AutoPeftModelForQuestionAnswering,
    AutoPeftModelForSequenceClassification,
    AutoPeftModelForTokenClassification,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_gpt.cli import finetune, pretrain
from hf_gpt.training.monitoring import reload_check
from tests.fine_tuning import called_here


TASKS = {
    "classification": AutoPeftModelForSequenceClassification,
    "token_classification": AutoPeftModelForTokenClassification,
    "question_answering": AutoPeftModelForQuestionAnswering,
    "dialogue": AutoPeftModelForCausalLM,
}


@pytest.fixture
def run(tmp_path, make_model, tokenizer):
    """Trains an adapter for two steps; returns the folder of the run."""
    pretrained = tmp_path / "pretrained"
    # Wide enough for the blocks of 32 in which bitsandbytes lays out weights for inference on a CPU.
    make_model(max_position_embeddings=512, hidden_size=64, intermediate_size=64).save_pretrained(pretrained)
    tokenizer.save_pretrained(pretrained)

    def train(task, *options, status=0):
        argv = ["--task", task, "--model_name_or_path", str(pretrained), "--output_dir", str(tmp_path / "run")]
        argv += ["--use_peft", "--max_steps", "3", "--learning_rate", "0.01", "--max_new_tokens", "4"]
        assert finetune.main([*argv, "--max_eval_samples", "2", "--eval_strategy", "no", *options]) == status
        return tmp_path / "run"

    return train


@pytest.mark.parametrize("task", TASKS)
def test_an_adapter_opens_by_its_folder_alone(task, run):
    folder = run(task)
    assert (folder / "model" / "adapter_config.json").is_file() and not (folder / "model" / "config.json").exists()
    model = TASKS[task].from_pretrained(folder / "model")
    changed = [name for name, weight in model.named_parameters() if "lora_B" in name and weight.abs().sum() > 0]
    assert changed
    if task == "classification":
        assert model.config.is_causal is False and model.config.id2label == {0: "negative", 1: "positive"}
        tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        for line in (folder / "predictions.jsonl").read_text().splitlines():
            row = json.loads(line)
            logits = model(**tokenizer(row["text"], return_tensors="pt")).logits
            assert model.config.id2label[int(logits.argmax())] == row["prediction"]


@pytest.mark.parametrize("method", ["dora", "prefix", "prompt"])
def test_other_methods_write_after_reloading(method, run):
    folder = run("translation", "--peft_method", method, "--num_virtual_tokens", "3")
    model = AutoPeftModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    output = model.generate(**tokenizer("a text", return_tensors="pt"), max_new_tokens=2, do_sample=False)
    assert output.shape[1] > 2


def test_a_merged_adapter_is_a_plain_model_that_scores_alike(run):
    adapted = run("closed_book_qa")
    model = AutoPeftModelForCausalLM.from_pretrained(adapted / "model").eval()
    ids = torch.arange(10)[None]
    expected = model(ids).logits
    merged = run("closed_book_qa", "--merge_adapter", "--overwrite_output_dir")
    plain = AutoModelForCausalLM.from_pretrained(merged / "model").eval()
    assert type(plain).__name__ == "HfGptForCausalLM"
    torch.testing.assert_close(plain(ids).logits, expected, rtol=1e-4, atol=1e-5)


def test_resuming_goes_on_with_the_adapter(run):
    straight = run("closed_book_qa")
    weights = (straight / "model" / "adapter_model.safetensors").read_bytes()
    run("closed_book_qa", "--overwrite_output_dir", "--save_strategy", "steps", "--save_steps", "2")
    resumed = run("closed_book_qa", "--resume_from_checkpoint", str(straight / "checkpoint-2"))
    assert (resumed / "model" / "adapter_model.safetensors").read_bytes() == weights


def test_pretraining_goes_on_with_an_adapter(run, tmp_path, corpus_file, monkeypatch, capsys):
    monkeypatch.setattr(reload_check, "in_fresh_process", called_here)
    run("closed_book_qa", "--dry_run")
    argv = ["--model_name_or_path", str(tmp_path / "pretrained"), "--train_file", str(corpus_file), "--use_peft"]
    argv += ["--output_dir", str(tmp_path / "run"), "--max_length", "32", "--max_steps", "2"]
    argv += ["--sample_max_new_tokens", "4", "--per_device_train_batch_size", "4", "--save_strategy", "no"]
    assert pretrain.main(argv) == 0
    assert "differ by more than rounding" not in capsys.readouterr().err
    assert AutoPeftModelForCausalLM.from_pretrained(tmp_path / "run" / "model") is not None
    assert pretrain.main([*argv, "--overwrite_output_dir", "--peft_method", "prompt"]) == 2
    assert "packed documents" in capsys.readouterr().err


needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")


@needs_bitsandbytes
@pytest.mark.parametrize("task", ["closed_book_qa", "classification"])
def test_an_adapter_on_weights_in_four_bits(task, run):
    from bitsandbytes.nn import Linear4bit

    import hf_gpt.training.tasks.trainer as module

    kinds = []
    with pytest.MonkeyPatch.context() as patch:
        original = module.TaskTrainer.__init__

        def remember(self, *args, model, **kwargs):
            # The check of the saved adapter makes a trainer too, in which nothing is trained.
            trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
            if trained:
                kinds.extend((name, type(part)) for name, part in model.named_modules() if name.endswith("base_layer"))
                assert all("lora" in name or "modules_to_save" in name for name in trained)
            original(self, *args, model=model, **kwargs)

        patch.setattr(module.TaskTrainer, "__init__", remember)
        folder = run(task, "--load_in_4bit")
    assert len(kinds) > 5 and all(kind is Linear4bit for _, kind in kinds)
    model = TASKS.get(task, AutoPeftModelForCausalLM).from_pretrained(folder / "model")
    assert any("lora_B" in name and weight.abs().sum() > 0 for name, weight in model.named_parameters())
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert torch.isfinite(model(**tokenizer("a text", return_tensors="pt")).logits).all()
    if task == "classification":
        for row in lines:
            logits = model(**tokenizer(row["text"], return_tensors="pt")).logits
            assert model.config.id2label[int(logits.argmax())] == row["prediction"]


@needs_bitsandbytes
def test_evaluation_between_steps_changes_nothing_in_four_bits(run):
    # On a CPU bitsandbytes lays weights out anew for inference, through which no gradient comes back. Without dropout,
    # whose draws an evaluation shifts.
    options = ["--load_in_4bit", "--config_overrides", "hidden_dropout=0.0"]
    straight = run("closed_book_qa", *options)
    weights = (straight / "model" / "adapter_model.safetensors").read_bytes()
    often = run("closed_book_qa", *options, "--overwrite_output_dir", "--eval_strategy", "steps", "--eval_steps", "1")
    assert (often / "model" / "adapter_model.safetensors").read_bytes() == weights


@needs_bitsandbytes
def test_pretraining_goes_on_with_weights_in_four_bits(run, tmp_path, corpus_file, monkeypatch, capsys):
    monkeypatch.setattr(reload_check, "in_fresh_process", called_here)
    run("closed_book_qa", "--dry_run")
    argv = ["--model_name_or_path", str(tmp_path / "pretrained"), "--train_file", str(corpus_file), "--use_peft"]
    argv += ["--output_dir", str(tmp_path / "run"), "--max_length", "32", "--max_steps", "2", "--load_in_4bit"]
    argv += ["--sample_max_new_tokens", "4", "--per_device_train_batch_size", "4", "--save_strategy", "no"]
    assert pretrain.main(argv) == 0
    assert "differ by more than rounding" not in capsys.readouterr().err
    assert AutoPeftModelForCausalLM.from_pretrained(tmp_path / "run" / "model") is not None


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("classification", ["--peft_method", "prompt"], "for models that write"),
        ("dialogue", ["--peft_method", "prefix", "--merge_adapter"], "cannot be merged"),
        ("dialogue", ["--use_peft", "false", "--merge_adapter"], "add --use_peft"),
        ("dialogue", ["--use_peft", "false", "--load_in_4bit"], "add --use_peft"),
        pytest.param(
            *("dialogue", ["--load_in_4bit", "--merge_adapter"], "would round the merged weights"),
            marks=needs_bitsandbytes,
        ),
    ],
)
def test_options_that_cannot_work(task, options, message, run, capsys):
    run(task, *options, status=2)
    assert message in capsys.readouterr().err


def test_there_must_be_a_model(tmp_path, capsys):
    assert finetune.main(["--task", "dialogue", "--use_peft", "--output_dir", str(tmp_path / "run")]) == 2
    assert "--model_name_or_path" in capsys.readouterr().err
