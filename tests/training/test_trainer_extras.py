import json
import math
from types import SimpleNamespace

import datasets
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback

from hf_gpt.data.collators import PackedRowsCollator
from hf_gpt.data.packed_dataset import tokenize_and_pack
from hf_gpt.errors import CheckpointError, ConfigError
from hf_gpt.training.distributed.sharding import named_parameters
from hf_gpt.training.monitoring.cost_model import model_flops_per_token
from hf_gpt.training.monitoring.mfu import measured_peak_flops
from hf_gpt.training.monitoring.nonfinite import NonFiniteError
from hf_gpt.training.optim.ema import WEIGHT_AVERAGE_NAME, WeightAverage
from hf_gpt.training.trainer import HfGptTrainer
from hf_gpt.training.training_arguments import HfGptTrainingArguments


@pytest.fixture(scope="module")
def rows(corpus_text, tokenizer):
    documents = datasets.Dataset.from_dict({"text": [part for part in corpus_text.split("\n\n") if part]})
    return tokenize_and_pack(documents, tokenizer, 32)


@pytest.fixture
def make_trainer(rows, tokenizer, make_model, tmp_path):
    def make(folder="run", trainer_class=HfGptTrainer, **overrides):
        settings = {
            "output_dir": str(tmp_path / folder),
            "per_device_train_batch_size": 4,
            "max_steps": 6,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "save_strategy": "no",
            "disable_tqdm": True,
        }
        return trainer_class(
            model=make_model(),
            args=HfGptTrainingArguments(**{**settings, **overrides}),
            train_dataset=rows,
            eval_dataset=rows.select(range(8)),
            processing_class=tokenizer,
            data_collator=PackedRowsCollator(),
        )

    return make


def copy_of(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_the_average_follows_its_formula(make_model):
    model = make_model()
    average, expected = WeightAverage(model, 0.2), copy_of(model)
    for step in range(4):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        average.update(model)
        decay = min(0.2, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * parameter.detach()
    assert all(torch.allclose(average.weights[name], expected[name], atol=1e-6) for name in expected)
    assert "lm_head.weight" not in average.weights

    former = copy_of(model)
    with pytest.raises(ZeroDivisionError), average.applied(model):
        assert equal(copy_of(model), average.weights)
        raise ZeroDivisionError
    assert equal(copy_of(model), former)


def test_the_average_is_evaluated_and_saved(make_trainer, tmp_path):
    trainer = make_trainer(ema_decay=0.9)
    trainer.train()
    raw = copy_of(trainer.model)
    averaged = trainer.evaluate()["eval_loss"]
    trainer.save_model(str(tmp_path / "model"))
    assert equal(copy_of(trainer.model), raw)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert equal(copy_of(saved), trainer._average.average.weights) and not equal(copy_of(saved), raw)
    trainer._average = None
    assert trainer.evaluate()["eval_loss"] != averaged


def test_the_average_resumes_bit_for_bit(make_trainer):
    options = {"ema_decay": 0.95, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 5}
    straight = make_trainer("straight", **options)
    straight.train()
    resumed = make_trainer("resumed", **options)
    resumed.train(resume_from_checkpoint=f"{straight.args.output_dir}/checkpoint-2")
    assert equal(straight._average.average.weights, resumed._average.average.weights)
    assert equal(copy_of(straight.model), copy_of(resumed.model))
    assert straight._average.average.num_updates == resumed._average.average.num_updates == 6


def test_the_best_checkpoint_brings_its_average(make_trainer):
    steps = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    trainer = make_trainer(ema_decay=0.9, load_best_model_at_end=True, **steps)
    trainer.train()
    best = load_file(f"{trainer.state.best_model_checkpoint}/{WEIGHT_AVERAGE_NAME}")
    assert equal(best, trainer._average.average.weights)


def test_a_checkpoint_without_an_average_is_refused(make_trainer):
    plain = make_trainer("plain", save_strategy="steps", save_steps=2, max_steps=2)
    plain.train()
    with pytest.raises(CheckpointError, match="has no weight_average"):
        make_trainer(ema_decay=0.9).train(resume_from_checkpoint=f"{plain.args.output_dir}/checkpoint-2")


def test_names_are_those_of_a_model_without_wrappers(make_model):
    """Of which a checkpoint of Accelerate's FSDP with checkpointed activations is resumed without them."""
    model = make_model()
    plain = WeightAverage(model, 0.9)
    model.model.layers[0] = checkpoint_wrapper(model.model.layers[0])
    wrapped = WeightAverage(model, 0.9)
    assert list(wrapped.weights) == list(plain.weights)
    with torch.no_grad():
        model.model.norm.weight.add_(1.0)
    wrapped.update(model)
    with wrapped.applied(model):
        assert equal(wrapped.weights, named_parameters(model))


@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        ("is_fsdp_enabled", {"ema_decay": 0.9}, "--ema_decay does not work with FSDP of version 1"),
        ("is_deepspeed_enabled", {"ema_decay": 0.9, "optimizer": "adamw"}, "not work with DeepSpeed ZeRO-3"),
        ("is_deepspeed_enabled", {"optimizer": "muon"}, "--optimizer muon works on whole matrices"),
    ],
)
def test_shards_that_the_library_made_and_that_cannot_be_averaged(make_trainer, engine, options, message, monkeypatch):
    made = Trainer.create_accelerator_and_postprocess

    def create(trainer):
        made(trainer)
        setattr(trainer, engine, True)
        monkeypatch.setattr(AcceleratorState, "deepspeed_plugin", SimpleNamespace(zero_stage=3))

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", create)
    with pytest.raises(ConfigError, match=message):
        make_trainer(**options)


def test_a_decay_out_of_range(tmp_path):
    with pytest.raises(ConfigError, match="--ema_decay must be above 0"):
        HfGptTrainingArguments(str(tmp_path), ema_decay=1.0)


class Poisoned(HfGptTrainer):
    """Its loss is not a number in the second micro-batch of the third step."""

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        self.calls = getattr(self, "calls", 0) + 1
        return loss * math.nan if self.calls == 6 else loss


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
def test_stop_saves_the_batch(make_trainer, tmp_path, max_grad_norm):
    options = {"gradient_accumulation_steps": 2, "max_grad_norm": max_grad_norm}
    trainer = make_trainer(trainer_class=Poisoned, **options)
    with pytest.raises(NonFiniteError, match=r"step 3: .*nan_action skip") as error:
        trainer.train()
    (path,) = (tmp_path / "run").glob("not_finite_*")
    assert str(path) in str(error.value)
    saved = load_file(path)
    assert sorted(saved) == ["1.input_ids", "1.labels", "1.position_ids"] and saved["1.input_ids"].shape == (4, 32)
    # The weights are those after two steps, the bad one is not in them.
    sound = make_trainer("sound", **options, max_steps=6)
    sound.add_callback(StopAfter(2))
    sound.train()
    assert equal(copy_of(sound.model), copy_of(trainer.model))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_skip_leaves_weights_and_state_alone(make_trainer, optimizer):
    trainer = make_trainer(
        trainer_class=Poisoned, gradient_accumulation_steps=2, optimizer=optimizer, nan_action="skip"
    )
    seen = {}
    trainer.add_callback(History(seen))
    trainer.train()
    assert equal(seen[2], seen[3]) and not equal(seen[3], seen[4])
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())
    state = trainer.optimizer.state_dict()["state"].values()
    assert all(value.isfinite().all() for values in state for value in values.values() if torch.is_tensor(value))
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert logs[-1]["skipped_steps"] == 1 and "skipped_steps" not in logs[0]


def test_utilisation_is_logged(make_trainer):
    trainer = make_trainer(max_steps=2)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    peak = measured_peak_flops("cpu", torch.float32)
    expected = logs[-1]["tokens_per_second"] * model_flops_per_token(trainer.model, 32) / peak
    assert 0 < logs[-1]["mfu"] < 1 and logs[-1]["mfu"] == pytest.approx(expected, abs=1e-4)
    json.dumps(logs)


def test_other_architectures_have_about_the_same_flops(make_model):
    llama = {"hidden_act": "silu", "is_gated_act": True, "use_qk_norm": False, "tie_word_embeddings": False}
    ours = make_model(**llama)
    theirs = make_model("llama", num_key_value_heads=2)
    assert model_flops_per_token(ours, 32) == pytest.approx(model_flops_per_token(theirs, 32), rel=0.01)


class History(TrainerCallback):
    def __init__(self, seen):
        self.seen = seen

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.seen[state.global_step] = copy_of(model)


class StopAfter(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step
