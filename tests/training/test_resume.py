"""What a resumed run may change, what it is refused for, and that it goes on as the straight one."""

import json
import os
import shutil
import signal

import pytest
import torch
import yaml
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from hf_gpt.cli import finetune, pretrain
from hf_gpt.errors import CheckpointError, ConfigError
from hf_gpt.files.checkpoint_parts import lack_of, read_record
from hf_gpt.training.monitoring import reload_check
from hf_gpt.training.monitoring.callbacks import StopOnSignalCallback
from tests.fine_tuning import called_here
from tests.training.resumed_runs import difference, make_trainer, result


PLAIN = {
    "options": {
        "optimizer": "adamw",
        "max_steps": 6,
        "learning_rate": 1e-2,
        "warmup_steps": 0,
        "lr_scheduler_type": "linear",
        "per_device_train_batch_size": 2,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 3,
    },
    "rows": 12,
    "stream": False,
    "dropout": 0.0,
    "adapter": False,
}


def resumed(folder, name, at=3, samples=PLAIN, **changes):
    trainer = make_trainer(folder / name, samples, **changes)
    trainer.train(resume_from_checkpoint=str(folder / "straight" / f"checkpoint-{at}"))
    return trainer


def rates(trainer):
    return {entry["step"]: entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    trainer = make_trainer(folder / "straight", PLAIN)
    trainer.train()
    return folder, trainer


# What a checkpoint must hold


def test_lost_and_damaged_files_are_named(straight, tmp_path):
    source = straight[0] / "straight" / "checkpoint-3"
    assert lack_of(source) is None
    cut = lambda path: path.write_bytes(path.read_bytes()[:-9])  # noqa: E731

    def scribble(path):
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 256] = bytes(byte ^ 255 for byte in content[middle : middle + 256])
        path.write_bytes(content)

    for name, change, words in (
        ("optimizer.pt", lambda path: path.unlink(), "has no optimizer.pt"),
        ("scheduler.pt", lambda path: path.unlink(), "has no scheduler.pt"),
        ("rng_state.pth", lambda path: path.unlink(), "has no rng_state.pth"),
        ("trainer_state.json", lambda path: path.unlink(), "has no trainer_state.json"),
        ("model.safetensors", lambda path: path.unlink(), "has no weights"),
        ("model.safetensors", cut, "weights that are damaged or cut off (model.safetensors)"),
        ("optimizer.pt", cut, "has a optimizer.pt that is damaged or cut off"),
        ("optimizer.pt", scribble, "has a optimizer.pt that is damaged or cut off"),
        ("trainer_state.json", cut, "has a trainer_state.json that is damaged or cut off"),
        ("run_record.json", cut, "has a run_record.json that is damaged or cut off"),
    ):
        folder = tmp_path / "checkpoint-3"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        change(folder / name)
        assert words in str(lack_of(folder)), name
        with pytest.raises(CheckpointError, match="not a complete checkpoint"):
            make_trainer(tmp_path / "run", PLAIN).train(resume_from_checkpoint=str(folder))


def test_the_newest_whole_checkpoint_is_taken_and_said(straight, tmp_path, caplog):
    shutil.copytree(straight[0] / "straight", tmp_path / "run")
    (tmp_path / "run" / "checkpoint-6" / "optimizer.pt").unlink()
    trainer = make_trainer(tmp_path / "run", PLAIN, save_strategy="no")
    trainer.train(resume_from_checkpoint=True)
    assert "checkpoint-6 has no optimizer.pt: going on from checkpoint-3." in caplog.text
    assert len(trainer.seen) == 3


def test_weights_alone_are_refused(tmp_path):
    make_trainer(tmp_path / "straight", PLAIN, save_only_model=True).train()
    with pytest.raises(CheckpointError, match="save_only_model asked: start a new run by --model_name_or_path"):
        resumed(tmp_path, "run")
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        make_trainer(tmp_path / "straight", PLAIN).train(resume_from_checkpoint=True)


# What may change


def test_more_steps_go_on_by_the_longer_schedule(straight):
    folder, trainer = straight
    assert rates(trainer)[6] > 0 and trainer.lr_scheduler.get_last_lr() == [0.0, 0.0]
    longer = resumed(folder, "longer", at=6, max_steps=12)
    assert rates(longer) == {step: pytest.approx(1e-2 * (13 - step) / 12) for step in range(7, 13)} | rates(trainer)
    assert longer.state.global_step == 12 and longer.history == ["since step 6: --max_steps 6 -> 12"]
    record = read_record(folder / "longer" / "checkpoint-12")
    assert record["options"]["max_steps"] == 12 and record["history"] == longer.history
    again = resumed(folder, "epochs", at=6, max_steps=-1, num_train_epochs=2)
    assert again.state.global_step == 12 and rates(again) == rates(longer)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_settings_of_the_optimizer_take_effect(tmp_path, optimizer, caplog):
    samples = {**PLAIN, "options": {**PLAIN["options"], "optimizer": optimizer}}
    make_trainer(tmp_path / "straight", samples).train()
    trainer = resumed(tmp_path, "run", samples=samples, learning_rate=4e-2, weight_decay=0.3, adam_beta1=0.5)
    assert {step: rate for step, rate in rates(trainer).items() if step > 3} == {
        step: pytest.approx(4e-2 * (7 - step) / 6) for step in (4, 5, 6)
    }
    groups = trainer.optimizer.param_groups
    assert {group["initial_lr"] for group in groups} == {4e-2} and 0.3 in {group["weight_decay"] for group in groups}
    assert 0.5 in {group["betas"][0] for group in groups if "betas" in group}
    assert "--learning_rate 0.01 -> 0.04" in caplog.text and "--weight_decay 0.1 -> 0.3" in caplog.text
    assert "From step 3 on, learning rates are those that the schedule of 6 steps has there." in caplog.text


def test_cadence_is_that_of_the_resumed_run(straight):
    trainer = resumed(straight[0], "cadence", logging_steps=3, save_steps=2, eval_strategy="steps", eval_steps=2)
    later = [entry for entry in trainer.state.log_history if entry["step"] > 3]
    assert [entry["step"] for entry in later if "loss" in entry] == [6]
    assert [entry["step"] for entry in later if "eval_loss" in entry] == [4, 6]
    # That of step 6 is the last step's too.
    assert sorted(path.name for path in (straight[0] / "cadence").iterdir()) == ["checkpoint-4", "checkpoint-6"]


def test_a_finished_run_takes_no_step(straight):
    trainer = resumed(straight[0], "finished", at=6)
    assert trainer.seen == {} and difference(result(trainer), result(straight[1])) in ([], [".random"])


# What is refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "--seed 42 -> 1"),
        ({"optimizer": "muon"}, "--optimizer adamw -> muon"),
        ({"per_device_train_batch_size": 4}, "--per_device_train_batch_size 2 -> 4; rows of a step 2 -> 4"),
        ({"gradient_accumulation_steps": 2}, "--gradient_accumulation_steps 1 -> 2"),
        ({"label_smoothing_factor": 0.1}, "--label_smoothing_factor 0.0 -> 0.1"),
        ({"train_sampling_strategy": "sequential"}, "--train_sampling_strategy random -> sequential"),
        ({"max_steps": 2}, "is at step 3, and the run is to have 2"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps"}, "cannot take each other's place"),
        ({"ema_decay": 0.9}, "has no weight_average.safetensors"),
    ],
)
def test_another_run_is_refused_by_name(straight, changes, words):
    with pytest.raises((ConfigError, CheckpointError)) as error:
        resumed(straight[0], "refused", **changes)
    assert words in str(error.value)


def test_the_same_rows_in_other_batches_go_on(straight, caplog):
    samples = {**PLAIN, "options": {**PLAIN["options"], "per_device_train_batch_size": 1}}
    trainer = resumed(straight[0], "parts", samples=samples, gradient_accumulation_steps=2)
    assert "--per_device_train_batch_size 2 -> 1" in caplog.text
    rows = {step: [row[:2] for batch in batches for row in batch] for step, batches in trainer.seen.items()}
    before = {step: [row[:2] for batch in batches for row in batch] for step, batches in straight[1].seen.items()}
    assert rows == {step: before[step] for step in (3, 4, 5)}


def test_other_data_and_other_models_are_refused(straight):
    trainer = make_trainer(straight[0] / "refused", PLAIN)
    trainer.train_dataset[5] = {**trainer.train_dataset[5], "input_ids": [3] * 7}
    checkpoint = str(straight[0] / "straight" / "checkpoint-3")
    with pytest.raises(ConfigError, match="the content of the training data has changed"):
        trainer.train(resume_from_checkpoint=checkpoint)
    with pytest.raises(CheckpointError, match=r"of another model: hidden_dropout 0\.0 -> 0\.5"):
        make_trainer(straight[0] / "refused", {**PLAIN, "dropout": 0.5}).train(resume_from_checkpoint=checkpoint)


def test_another_adapter_is_refused(tmp_path):
    peft = pytest.importorskip("peft")
    samples = {**PLAIN, "adapter": True}
    make_trainer(tmp_path / "straight", samples, max_steps=3).train()
    trainer = resumed(tmp_path, "same", samples=samples)
    trainer.model.peft_config["default"] = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    with pytest.raises(CheckpointError, match="of another adapter: r 2 -> 4"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-3"))


# Callbacks


class Counter(TrainerCallback, ExportableState):
    """A user's callback with a state."""

    def __init__(self, every=1):
        self.every, self.steps = every, 0

    def on_step_end(self, args, state, control, **kwargs):
        self.steps += self.every

    def state(self):
        return {"args": {"every": self.every}, "attributes": {"steps": self.steps}}


def test_early_stopping_counts_on(tmp_path):
    options = {"learning_rate": 0.0, "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "max_steps": 20}
    samples = {**PLAIN, "options": {**PLAIN["options"], **options, "early_stopping_patience": 3}}
    straight = make_trainer(tmp_path / "straight", samples)
    straight.train()
    assert straight.state.global_step == 4
    for at in (1, 3, 4):
        trainer = resumed(tmp_path, f"from {at}", at=at, samples=samples)
        assert trainer.state.global_step == 4, at
        assert [entry["step"] for entry in trainer.state.log_history if "eval_loss" in entry] == [1, 2, 3, 4]
    # With more patience it goes on, by what it has counted.
    assert resumed(tmp_path, "patient", at=4, samples=samples, early_stopping_patience=5).state.global_step == 6
    # Early stopping that the run did not have begins to count.
    plain = {**PLAIN, "options": {**PLAIN["options"], **options}}
    make_trainer(tmp_path / "plain", plain, max_steps=3).train()
    late = make_trainer(tmp_path / "late", samples)
    late.train(resume_from_checkpoint=str(tmp_path / "plain" / "checkpoint-3"))
    assert late.state.global_step == 7


def test_callbacks_of_one_class_keep_their_own_states(tmp_path):
    def run(name, **changes):
        trainer = make_trainer(tmp_path / name, PLAIN, **changes)
        counters = [Counter(1), Counter(10)]
        for counter in counters:
            trainer.add_callback(counter)
        return trainer, counters

    straight, counters = run("straight")
    straight.train()
    trainer, found = run("resumed")
    trainer.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-3"))
    assert [each.steps for each in found] == [each.steps for each in counters] == [6, 60]
    saved = json.loads((tmp_path / "resumed" / "checkpoint-6" / "trainer_state.json").read_text())
    assert [each["attributes"]["steps"] for each in saved["stateful_callbacks"]["Counter"]][:2] == [6, 60]


class Interrupt(TrainerCallback):
    """A signal during the third step."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("rows", [12, 6], ids=["within an epoch", "at the end of an epoch"])
def test_a_stop_on_request_leaves_no_trace(tmp_path, rows):
    options = {"eval_strategy": "epoch", "save_strategy": "epoch", "logging_strategy": "epoch", "max_steps": 9}
    samples = {**PLAIN, "rows": rows, "options": {**PLAIN["options"], **options}}
    straight = make_trainer(tmp_path / "straight", samples)
    straight.train()
    expected = result(straight)
    stopped = make_trainer(tmp_path / "stopped", samples)
    stopped.add_callback(StopOnSignalCallback())
    stopped.add_callback(Interrupt())
    stopped.train()
    assert stopped.state.global_step == 3
    trainer = make_trainer(tmp_path / "stopped", samples)
    trainer.train(resume_from_checkpoint=True)
    assert difference(result(trainer), expected) == []


def test_the_best_checkpoint_is_found_in_a_moved_folder(tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "load_best_model_at_end": True}
    options |= {"metric_for_best_model": "loss", "greater_is_better": True}
    samples = {**PLAIN, "options": {**PLAIN["options"], **options}}
    straight = make_trainer(tmp_path / "straight", samples)
    straight.train()
    best = straight.state.best_global_step
    (tmp_path / "straight").rename(tmp_path / "moved")
    trainer = make_trainer(tmp_path / "moved", samples)
    trainer.train(resume_from_checkpoint=str(tmp_path / "moved" / "checkpoint-5"))
    assert trainer.state.best_model_checkpoint == str(tmp_path / "moved" / f"checkpoint-{best}")
    expected = straight.model.state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in trainer.model.state_dict().items())
    shutil.rmtree(tmp_path / "moved" / f"checkpoint-{best}")
    state = tmp_path / "moved" / "checkpoint-5" / "trainer_state.json"
    state.write_text(state.read_text().replace(str(tmp_path / "moved"), str(tmp_path / "straight")))
    with pytest.raises(CheckpointError, match=f"checkpoint-{best}, the best so far, is neither"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "moved" / "checkpoint-5"))


# The commands


@pytest.fixture
def run(tmp_path, corpus_file, monkeypatch, capsys):
    monkeypatch.setattr(reload_check, "in_fresh_process", called_here)
    tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    common = {
        "config_overrides": tiny,
        "tokenizer_vocab_size": 300,
        "output_dir": str(tmp_path / "run"),
        "max_steps": 4,
        "save_steps": 2,
        "logging_steps": 1,
        "save_total_limit": 9,
    }
    special = {
        "pretrain": {"train_file": [str(corpus_file)], "max_length": 32, "sample_max_new_tokens": 2},
        "finetune": {"task": "classification", "max_length": 32, "max_eval_samples": 4},
    }

    def run(command, *more):
        path = tmp_path / f"{command}.yaml"
        path.write_text(yaml.safe_dump({**common, **special[command]}))
        status = {"pretrain": pretrain, "finetune": finetune}[command].main(["--config", str(path), *more])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("command", "option", "value", "words"),
    [
        ("pretrain", "--per_device_train_batch_size", "8", "--per_device_train_batch_size 16 -> 8"),
        ("pretrain", "--preset", "nano", "--preset unset -> nano"),
        ("pretrain", "--max_length", "16", "--max_length 32 -> 16"),
        ("pretrain", "--packing_strategy", "sequential", "--packing_strategy best_fit -> sequential"),
        ("pretrain", "--tokenizer_vocab_size", "310", "--tokenizer_vocab_size 300 -> 310"),
        ("pretrain", "--train_file", "OTHER", "the content of the training data has changed (--train_file"),
        ("finetune", "--task", "translation", "--task classification -> translation"),
        ("finetune", "--max_train_samples", "5", "--max_train_samples unset -> 5"),
    ],
)
def test_a_command_refuses_by_name(run, tmp_path, corpus_text, command, option, value, words):
    assert run(command)[0] == 0
    recipe = (tmp_path / "run" / "recipe.yaml").read_text()
    if value == "OTHER":
        value = str(tmp_path / "other.txt")
        (tmp_path / "other.txt").write_text(corpus_text.replace("First", "Last!"))
    status, _, error = run(command, option, value, "--resume_from_checkpoint")
    assert status == 2 and words in error and error.count("\n") == 1
    assert (tmp_path / "run" / "recipe.yaml").read_text() == recipe
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_a_command_goes_on_and_says_so(run, tmp_path, corpus_file, corpus_text):
    assert run("pretrain")[0] == 0
    folder = tmp_path / "run"
    (folder / "checkpoint-4" / "scheduler.pt").unlink()
    moved = tmp_path / "moved.txt"
    corpus_file.rename(moved)
    changes = ("--max_steps", "6", "--learning_rate", "1e-3", "--train_file", str(moved), "--resume_from_checkpoint")
    status, out, _ = run("pretrain", *changes)
    assert status == 0
    assert f"{folder / 'checkpoint-4'} has no scheduler.pt: going on from checkpoint-2." in out
    assert "Changed since checkpoint-2:" in out and "--max_steps 4 -> 6" in out
    text = (folder / "recipe.yaml").read_text()
    assert "# since step 2: --max_steps 4 -> 6" in text and yaml.safe_load(text)["learning_rate"] == 1e-3
    assert json.loads((folder / "checkpoint-6" / "trainer_state.json").read_text())["global_step"] == 6
    moved.write_text(corpus_text.replace("Citizen", "Burgher"))
    status, _, error = run("pretrain", *changes)
    assert status == 2 and "the content of the training data has changed" in error


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_a_command_goes_on_with_the_same_rows_in_other_batches(run, tmp_path, command):
    batches = ("--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "1")
    assert run(command, *batches)[0] == 0
    shutil.rmtree(tmp_path / "run" / "checkpoint-4")
    batches = ("--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "4")
    status, out, error = run(command, *batches, "--resume_from_checkpoint")
    assert status == 0, error
    assert "--per_device_train_batch_size 4 -> 1" in out
