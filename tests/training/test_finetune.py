import copy
import json
import os
import shutil
import signal

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_gpt.cli import finetune
from hf_gpt.cli.finetune import main, with_task_recipe
from hf_gpt.training.monitoring import reload_check
from hf_gpt.training.monitoring.reload_check import in_fresh_process
from hf_gpt.training.tasks import RECIPES_OF_TASKS, TASKS, make_task
from hf_gpt.training.trainer import HfGptTrainer


TINY = {
    "config_overrides": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    "tokenizer_vocab_size": 300,
    "num_train_epochs": 1,
    "max_steps": 2,
    "max_new_tokens": 4,
    "max_eval_samples": 3,
}


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe for a run of seconds on a task's sample and returns its path."""

    def write(task, **changes):
        built_in = yaml.safe_load((finetune_recipes() / f"{task}.yaml").read_text())
        overrides = {**built_in.pop("config_overrides"), **TINY["config_overrides"]}
        settings = {**built_in, **TINY, "config_overrides": overrides, "output_dir": str(tmp_path / "run")}
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({**settings, "preset": None, **changes}))
        return str(path)

    return write


def finetune_recipes():
    from hf_gpt.training.settings import RECIPES

    return RECIPES


@pytest.fixture
def pretrained(tmp_path, make_model, tokenizer):
    """The folder of a causal language model with its tokenizer."""
    path = tmp_path / "pretrained"
    make_model(max_position_embeddings=512).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("task", [task for task in TASKS if task not in RECIPES_OF_TASKS])
def test_every_task_runs_on_its_sample(task, recipe, tmp_path, capsys):
    assert main(["--config", recipe(task)]) == 0
    run = tmp_path / "run"
    assert sorted(path.name for path in run.iterdir()) == [
        "metrics.json",
        "model",
        "predictions.jsonl",
        "recipe.yaml",
        "report.html",
    ]
    output = capsys.readouterr().out
    assert "3 of 3 predictions are the same" in output
    kind = make_task(finetune.TaskArguments(task=task))
    metrics = json.loads((run / "metrics.json").read_text())
    assert f"eval_{kind.main_metric}" in metrics and metrics["eval_loss"] > 0
    assert len((run / "predictions.jsonl").read_text().splitlines()) == 3
    model = getattr(transformers, kind.auto_class).from_pretrained(run / "model")
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    assert model(**tokenizer("a text", return_tensors="pt")) is not None
    assert kind.main_metric in output

    if task == "classification":
        assert model.config.id2label == {0: "negative", 1: "positive"} and model.config.is_causal is False
    if task == "dialogue":
        assert "generation" in tokenizer.chat_template


def test_the_saved_model_gives_the_predictions_of_the_file(recipe, tmp_path):
    from transformers import pipeline

    assert main(["--config", recipe("classification", max_steps=8)]) == 0
    classify = pipeline("text-classification", model=str(tmp_path / "run" / "model"))
    for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert classify(row["text"])[0]["label"] == row["prediction"]


def test_the_saved_model_is_checked_in_a_process_of_its_own(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reload_check, "in_fresh_process", in_fresh_process)
    assert main(["--config", recipe("classification")]) == 0
    assert "3 of 3 predictions are the same in a fresh process" in capsys.readouterr().out

    # Weights that are not what was trained are noticed, and so are those that do not load.
    original = finetune.save_final_model

    def spoil(trainer, path, options):
        original(trainer, path, options)
        weights = load_file(path / "model.safetensors")
        weights["score.bias"] = torch.tensor([-1e3, 1e3]) * (1 if trainer.predictions[0] == "negative" else -1)
        save_file(weights, path / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(finetune, "save_final_model", spoil)
    assert main(["--config", recipe("classification"), "--overwrite_output_dir"]) == 0
    output = capsys.readouterr()
    assert "3 of 3" not in output.out and "not what was trained" in output.err
    monkeypatch.setattr(finetune, "save_final_model", lambda trainer, path, options: path.mkdir())
    assert main(["--config", recipe("classification"), "--overwrite_output_dir"]) == 2
    assert "does not work in a fresh process" in capsys.readouterr().err


def test_a_model_that_was_drawn_from_becomes_one_that_decodes_greedily(recipe, pretrained, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(pretrained, start)
    sampling = {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "top_k": 7}
    transformers.GenerationConfig(**sampling, eos_token_id=1).save_pretrained(start)
    assert (
        main(["--config", recipe("summarization", model_name_or_path=str(start), config_overrides={}, max_steps=1)])
        == 0
    )
    found = transformers.GenerationConfig.from_pretrained(tmp_path / "run" / "model")
    assert found.do_sample is False and (found.temperature, found.top_p, found.top_k) == (None, None, None)


def test_from_a_pretrained_checkpoint(recipe, pretrained, tmp_path, capsys):
    overrides = {"is_causal": False, "classifier_pooling": "mean"}
    options = {"model_name_or_path": pretrained, "config_overrides": overrides, "max_steps": 1, "learning_rate": 0.0}
    assert main(["--config", recipe("classification", **options)]) == 0
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    former = AutoModelForCausalLM.from_pretrained(pretrained)
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, former.model.layers[0].mlp.up_proj.weight)
    assert model.config.classifier_pooling == "mean" and model.config.num_hidden_layers == 2
    wrong = recipe("classification", **{**options, "config_overrides": {"is_casual": False}})
    assert main(["--config", wrong, "--overwrite_output_dir"]) == 2
    assert "did you mean is_causal?" in capsys.readouterr().err


FEW = {"max_steps": 1, "max_train_samples": 8, "max_eval_samples": 2, "tokenizer_vocab_size": 300}
FEW = [f"--{name}={value}" for name, value in FEW.items()]


@pytest.mark.parametrize(("given", "expected"), [(None, 0.0), ("hidden_dropout=0.1", 0.1), ("hidden_dropout=0.3", 0.3)])
def test_a_loaded_model_keeps_its_own_dropout(make_model, tokenizer, tmp_path, capsys, given, expected):
    start, run = tmp_path / "start", tmp_path / "run"
    make_model(max_position_embeddings=512, hidden_dropout=0.0).save_pretrained(start)
    tokenizer.save_pretrained(start)
    options = ["--model_name_or_path", str(start), "--output_dir", str(run), *FEW]
    options += [] if given is None else ["--config_overrides", given]
    assert main(["--task", "token_classification", *options]) == 0
    assert ("hidden_dropout" in capsys.readouterr().err) == (given is None)
    assert transformers.AutoConfig.from_pretrained(run / "model").hidden_dropout == expected


def test_the_recipe_of_a_task_serves_models_of_the_library(make_model, tokenizer, tmp_path, capsys):
    gpt2, run = tmp_path / "gpt2", tmp_path / "run"
    # As GPT-2 has none.
    make_model("gpt2", max_position_embeddings=512, pad_token_id=None).save_pretrained(gpt2)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(gpt2)
    options = ["--model_name_or_path", str(gpt2), "--output_dir", str(run), *FEW]
    assert main(["--task", "classification", *options]) == 0
    assert "Ignoring recipe options" in capsys.readouterr().err
    assert transformers.AutoConfig.from_pretrained(run / "model").model_type == "gpt2"
    # What was left out is not asked for again.
    assert main(["--config", str(run / "recipe.yaml"), "--overwrite_output_dir"]) == 0
    assert "Left out" not in capsys.readouterr().err
    for wrong in ("is_causal=true", "n_embed=3"):
        assert main(["--task", "classification", *options, "--overwrite_output_dir", "--config_overrides", wrong]) == 2
        assert f"GPT2Config has no field {wrong.partition('=')[0]!r}" in capsys.readouterr().err


def test_the_recipe_of_a_task_serves_new_models_of_other_types(tmp_path, capsys):
    new = ["--task", "classification", "--output_dir", str(tmp_path / "run"), *FEW, "--model_type"]
    assert main([*new, "llama"]) == 2
    assert "name the size of the model by --config_overrides" in capsys.readouterr().err
    small = "hidden_size=16,intermediate_size=32,num_hidden_layers=1,num_attention_heads=2"
    assert main([*new, "llama", "--config_overrides", small]) == 0
    assert main([*new, "hf_lstm", "--overwrite_output_dir"]) == 0
    assert transformers.AutoConfig.from_pretrained(tmp_path / "run" / "model").model_type == "hf_lstm"


def test_a_chat_template_adds_tokens_to_a_pretrained_model(recipe, pretrained, tmp_path):
    assert main(["--config", recipe("dialogue", model_name_or_path=pretrained, config_overrides=None)]) == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert len(tokenizer) == 323 <= model.config.vocab_size


# Epochs have two steps: between the first two of them, and within the second.
@pytest.mark.parametrize("step", [1, 2])
def test_ctrl_c_saves_and_resume_equals_a_straight_run(recipe, tmp_path, monkeypatch, capsys, step):
    changes = {"max_steps": step + 2, "eval_strategy": "no"}
    assert main(["--config", recipe("classification", **changes, output_dir=str(tmp_path / "straight"))]) == 0
    original = HfGptTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(HfGptTrainer, "training_step", interrupted)
    assert main(["--config", recipe("classification", **changes)]) == 130
    monkeypatch.setattr(HfGptTrainer, "training_step", original)
    command = capsys.readouterr().out.splitlines()[-1].split()
    assert command[0].endswith("hf-gpt") and command[1] == "finetune" and main(command[2:]) == 0
    load = transformers.AutoModelForSequenceClassification.from_pretrained
    expected = load(tmp_path / "straight" / "model").state_dict()
    assert all(
        torch.equal(expected[name], value) for name, value in load(tmp_path / "run" / "model").state_dict().items()
    )


def test_an_evaluation_drops_no_rows(recipe, tmp_path):
    changes = {"dataloader_drop_last": True, "per_device_eval_batch_size": 2}
    assert main(["--config", recipe("classification", **changes)]) == 0
    assert len((tmp_path / "run" / "predictions.jsonl").read_text().splitlines()) == 3


def test_dry_run_and_loss_only(recipe, tmp_path, capsys):
    assert main(["--config", recipe("translation"), "--dry_run"]) == 0
    assert not (tmp_path / "run").exists() and "Nothing was trained" in capsys.readouterr().out
    assert main(["--config", recipe("translation"), "--predict_with_generate", "false"]) == 0
    assert not (tmp_path / "run" / "predictions.jsonl").exists()
    assert "eval_sacrebleu" not in json.loads((tmp_path / "run" / "metrics.json").read_text())


def test_probabilities_that_are_sure_train_as_classes_do(recipe, tmp_path, capsys):
    texts = [("good fun", 1), ("a bad film", 0), ("warm and funny", 1), ("dull", 0)] * 2
    rows = {
        "classes": [{"text": text, "label": label} for text, label in texts],
        "probabilities": [{"text": text, "label": [1.0 - label, float(label)]} for text, label in texts],
    }
    for name, content in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    weights, losses = [], []
    for name in rows:
        changes = {"train_file": [str(tmp_path / f"{name}.jsonl")], "output_dir": str(tmp_path / name)}
        changes |= {"validation_file": str(tmp_path / "classes.jsonl"), "per_device_train_batch_size": 2}
        path = recipe("classification", **changes, gradient_accumulation_steps=2, save_strategy="no")
        assert main(["--config", path]) == 0
        weights.append(load_file(tmp_path / name / "model" / "model.safetensors"))
        losses.append(json.loads((tmp_path / name / "metrics.json").read_text())["eval_loss"])
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    smoothed = ["--label_smoothing_factor", "0.1", "--output_dir", str(tmp_path / "smoothed")]
    assert main(["--config", path, *smoothed]) == 2
    assert "label_smoothing_factor" in capsys.readouterr().err


def test_generation_in_batches_equals_one_by_one(make_model, tokenizer, tmp_path):
    from hf_gpt.data.examples import Example
    from hf_gpt.training.tasks.trainer import TaskTrainer
    from hf_gpt.training.training_arguments import HfGptTrainingArguments

    task = make_task(finetune.TaskArguments(task="translation", max_length=40, max_new_tokens=6))
    examples = [Example(source=text, target="x") for text in ("king", "the queen and the king", "a")]
    task.learn(examples, examples)
    rows = task.encode(examples, tokenizer, is_training=True)

    def predictions(batch_size):
        args = HfGptTrainingArguments(output_dir=str(tmp_path), per_device_eval_batch_size=batch_size)
        model = make_model(max_position_embeddings=64, output_projection_init="normal", initializer_range=0.5)
        trainer = TaskTrainer(
            task=task,
            model=model,
            args=args,
            train_dataset=rows,
            eval_dataset=rows,
            eval_examples=examples,
            processing_class=tokenizer,
        )
        return trainer.generate_predictions()

    assert predictions(3) == predictions(1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_file": ["nothing.jsonl"]}, "no such file: nothing.jsonl"),
        ({"text_column": "txt"}, "did you mean text?"),
        ({"model_name_or_path": "./nowhere"}, "nowhere"),
        ({"max_train_samples": 0}, "--max_train_samples must be at least 1"),
        ({"max_train_samples": -5}, "--max_train_samples must be at least 1"),
        ({"max_eval_samples": 0}, "--max_eval_samples must be at least 1"),
        ({"max_new_tokens": 0}, "--max_new_tokens must be at least 1"),
        ({"num_beams": 0}, "--num_beams must be at least 1"),
        ({"max_length": 1}, "--max_length must be at least 3"),
        ({"per_device_train_batch_size": 0}, "--per_device_train_batch_size must be at least 1"),
        ({"gradient_accumulation_steps": 0}, "--gradient_accumulation_steps must be at least 1"),
        ({"text_pair_column": "text", "max_length": 4}, "--max_length 4 leaves no token"),
        ({"start_from_counts": True, "streaming": True}, "leave --streaming out"),
        ({"start_from_counts": True, "task": "translation"}, "--start_from_counts is for --task classification"),
        ({"held_out_groups": ["a"], "group_column": "label", "validation_file": ["a.jsonl"]}, "do not go together"),
        ({"dataset_name": "a", "validation_split": "b", "validation_file": ["a.jsonl"]}, "do not go together"),
    ],
)
def test_bad_settings_are_one_line(recipe, capsys, changes, message):
    assert main(["--config", recipe(**{"task": "classification", **changes})]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error


def test_the_recipe_of_a_task_is_taken_unless_another_is_named():
    assert with_task_recipe(["--task", "dialogue", "--seed", "1"])[:2] == ["--config", "dialogue"]
    assert with_task_recipe(["--task=translation"])[:2] == ["--config", "translation"]
    assert with_task_recipe([])[:2] == ["--config", "classification"]
    assert with_task_recipe(["--task", "dialogue", "--config", "a.yaml"]) == [
        "--task",
        "dialogue",
        "--config",
        "a.yaml",
    ]
    assert with_task_recipe(["--task", "image_classification"])[:2] == ["--config", "digits"]
    assert with_task_recipe(["--task", "unknown"]) == ["--task", "unknown"]


def test_an_unknown_task_names_those_there_are(capsys):
    assert main(["--task", "sumarization"]) == 2
    assert "'summarization'" in capsys.readouterr().err


def test_a_short_run_still_has_a_curve(tmp_path):
    from hf_gpt.training.run import LEAST_POINTS

    main(["--task", "classification", "--output_dir", str(tmp_path), "--max_steps", "43", "--max_length", "16"])
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["logging_steps"] == 2 and LEAST_POINTS <= 43 // 2
