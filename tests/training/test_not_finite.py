"""A step whose loss or gradient is not finite changes no weight, no average and no state of an optimizer."""

import copy
import math

import datasets
import pytest
import torch
from transformers import TrainerCallback

from hf_gpt.data.collators import PackedRowsCollator
from hf_gpt.data.packed_dataset import tokenize_and_pack
from hf_gpt.training.monitoring.nonfinite import NonFiniteError
from hf_gpt.training.trainer import HfGptTrainer
from hf_gpt.training.training_arguments import HfGptTrainingArguments


# What is done to the loss of the bad micro-batch: a gradient of zero, a sound one, or none that is finite.
POISONS = {
    "no gradient": lambda loss: 0.0 * loss + math.nan,
    "sound gradient": lambda loss: loss + math.nan,
    "infinite": lambda loss: loss + math.inf,
    "bad gradient": lambda loss: loss * math.nan,
}


class Poisoned(HfGptTrainer):
    """The loss of the second micro-batch of step 3 is not finite."""

    poison = staticmethod(POISONS["no gradient"])

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        self.calls = getattr(self, "calls", 0) + 1
        return self.poison(loss) if self.calls == 6 else loss


class Copies(TrainerCallback):
    """Weights, averages and the optimizer's state after each step."""

    def __init__(self):
        self.found = {}

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        average = self.trainer._average
        tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if average is not None:
            tensors |= {f"average.{name}": tensor.clone() for name, tensor in average.average.weights.items()}
        states = copy.deepcopy(optimizer.state_dict()["state"])
        for number, values in states.items():
            tensors |= {f"{number}.{name}": torch.as_tensor(value) for name, value in values.items()}
        self.found[state.global_step] = tensors


@pytest.fixture
def make(corpus_text, tokenizer, make_model, tmp_path):
    rows = tokenize_and_pack(datasets.Dataset.from_dict({"text": corpus_text.split("\n\n")}), tokenizer, 32)

    def make(poison="no gradient", model=None, **options):
        settings = {
            "output_dir": str(tmp_path / "run"),
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "max_steps": 4,
            "learning_rate": 1e-2,
            "warmup_steps": 0,
            "weight_decay": 0.5,
            "logging_steps": 1,
            "save_strategy": "no",
            "nan_action": "skip",
            "disable_tqdm": True,
        }
        copies = Copies()
        copies.trainer = Poisoned(
            model=model or make_model(),
            args=HfGptTrainingArguments(**{**settings, **options}),
            train_dataset=rows,
            data_collator=PackedRowsCollator(),
            callbacks=[copies],
        )
        copies.trainer.poison = POISONS[poison]
        return copies.trainer, copies.found

    return make


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "muon"},
        {"optimizer": "adamw", "max_grad_norm": 0.0},
        {"optimizer": "adamw", "optim": "adamw_torch"},
        {"optimizer": "adamw", "optim": "sgd", "optim_args": "momentum=0.9"},
        {"optimizer": "adamw", "optim": "adafactor"},
        {"bf16": True},
    ],
    ids=["muon", "unclipped", "adamw", "sgd", "adafactor", "bf16"],
)
def test_nothing_moves_in_a_bad_step(make, poison, options):
    trainer, found = make(poison, ema_decay=0.9, **options)
    trainer.train()
    assert same(found[2], found[3])
    assert not same(found[1], found[2]) and not same(found[3], found[4])
    assert trainer._average.average.num_updates == 3 and trainer._recorder.skipped == 1
    # The schedule goes by steps, and the bad one was a step.
    assert trainer.lr_scheduler.last_epoch == trainer.state.global_step == 4


@pytest.mark.parametrize("poison", POISONS)
def test_it_stops_unless_it_may_go_on(make, poison, tmp_path):
    trainer, found = make(poison, nan_action="stop")
    with pytest.raises(NonFiniteError, match=r"step 3: the loss is .*(nan|inf)"):
        trainer.train()
    last = {name: tensor for name, tensor in found[2].items() if name in trainer.model.state_dict()}
    assert same(last, trainer.model.state_dict())
    assert len(list((tmp_path / "run").glob("not_finite_step_3_*"))) == 1


def test_an_adapter_is_left_alone(make, make_model):
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    model = peft.get_peft_model(make_model(), peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    trainer, found = make(model=model, optimizer="adamw")
    trainer.train()
    assert same(found[2], found[3]) and not same(found[3], found[4])
