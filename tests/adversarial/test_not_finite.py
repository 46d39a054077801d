"""A step that is not finite changes neither player."""

import math

import pytest
import torch
from transformers import TrainerCallback

from hf_gpt.adversarial import trainer as trainer_module
from hf_gpt.training.monitoring.nonfinite import NonFiniteError
from tests.adversarial.players import logged, make_trainer


class Copies(TrainerCallback):
    """Both players after each step."""

    def __init__(self):
        self.generator, self.discriminator = {}, {}

    def on_step_end(self, args, state, control, **kwargs):
        for model, found in ((self.trainer.model, self.generator), (self.trainer.discriminator, self.discriminator)):
            found[state.global_step] = {name: tensor.clone() for name, tensor in model.named_parameters()}


def same(one, other):
    return all(torch.equal(one[name], tensor) for name, tensor in other.items())


def make(folder, **settings):
    copies = Copies()
    settings = {"discriminator_warmup_steps": 0, "discriminator_weight_decay": 0.5, "weight_decay": 0.5, **settings}
    copies.trainer = make_trainer(folder, callbacks=[copies], nan_action="skip", **settings)
    return copies.trainer, copies


@pytest.mark.parametrize("poison", [lambda loss: 0.0 * loss + math.nan, lambda loss: loss * math.nan])
def test_a_bad_update_of_the_discriminator(tmp_path, poison):
    trainer, copies = make(tmp_path)
    make_loss, calls = trainer.loop._discriminator_loss, []

    def poisoned(*args):
        loss = make_loss(*args)
        calls.append(1)
        return (lambda scorer: poison(loss(scorer))) if len(calls) == 3 else loss

    begin = trainer._begin_run

    def begin_run():
        begin()
        nonlocal make_loss
        make_loss = trainer.loop._discriminator_loss
        trainer.loop._discriminator_loss = poisoned

    trainer._begin_run = begin_run
    trainer.train()
    assert same(copies.discriminator[2], copies.discriminator[3])
    assert not same(copies.discriminator[3], copies.discriminator[4])
    assert trainer.discriminator_trainer.skipped == 1 and trainer.discriminator_trainer.updates == 5
    assert logged(trainer, "d_skipped_updates")[-1] == 1
    assert len(logged(trainer, "d_loss")) == 5 and all(map(math.isfinite, logged(trainer, "d_loss")))
    assert all(map(math.isfinite, trainer.loop.history.train.real))

    calls.clear()
    trainer.args.nan_action = "stop"
    with pytest.raises(NonFiniteError, match=r"update 3 of the discriminator: .*nan_action skip"):
        trainer.train()


def test_a_bad_step_of_the_generator(tmp_path, monkeypatch):
    trainer, copies = make(tmp_path, ema_decay=0.9)
    original, calls = trainer_module.anchor_loss, []

    def poisoned(model, inputs, *args):
        loss = original(model, inputs, *args)
        calls.append(model.training)
        return 0.0 * loss + math.nan if sum(calls) == 3 else loss

    monkeypatch.setattr(trainer_module, "anchor_loss", poisoned)
    # The lesson's gradient is sound, that of the anchor is zero.
    trainer.train()
    assert same(copies.generator[2], copies.generator[3]) and not same(copies.generator[3], copies.generator[4])
    assert trainer._recorder.skipped == 1 and trainer._average.average.num_updates == 5
    assert trainer.schedule.adversarial_steps == 6
