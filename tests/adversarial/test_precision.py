"""bfloat16: both players compute in it, their weights do not, and a resumed run is the straight one."""

import shutil

import pytest
import torch

from tests.adversarial.players import logged, make_discriminator, make_generator, make_trainer


SETTINGS = {"bf16": True, "max_steps": 4, "mle_warmup_steps": 1, "advantage_scale": "none"}


def dtypes_of(model):
    """Fills with the dtypes that the model's linear layers give, while it is trained and while it judges."""
    found = set()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda module, inputs, output: found.add((output.dtype, output.requires_grad)))
    return found


def test_both_players_compute_in_bfloat16(tmp_path):
    generator, discriminator = make_generator(), make_discriminator("llama")
    seen = [dtypes_of(generator), dtypes_of(discriminator)]
    trainer = make_trainer(tmp_path, generator, discriminator, **SETTINGS)
    trainer.train()
    for dtypes in seen:
        assert dtypes == {(torch.bfloat16, True), (torch.bfloat16, False)}
    players = (trainer.model, trainer.discriminator)
    assert {p.dtype for model in players for p in model.parameters()} == {torch.float32}
    plain = make_trainer(tmp_path, make_generator(), make_discriminator("llama"), **{**SETTINGS, "bf16": False})
    plain.train()
    for name in ("loss", "d_loss"):
        assert logged(trainer, name) == pytest.approx(logged(plain, name), rel=0.05, abs=0.05)
        assert logged(trainer, name) != logged(plain, name)


def test_a_resumed_run_in_bfloat16(tmp_path):
    settings = {**SETTINGS, "save_strategy": "steps", "save_steps": 2}

    def play(folder, checkpoint=None):
        trainer = make_trainer(folder, make_generator(hidden_dropout=0.1), make_discriminator("llama"), **settings)
        trainer.train(resume_from_checkpoint=checkpoint)
        return trainer

    straight = play(tmp_path / "straight")
    shutil.copytree(tmp_path / "straight" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    resumed = play(tmp_path / "resumed", str(tmp_path / "resumed" / "checkpoint-2"))
    for name in ("model", "discriminator"):
        expected, found = (dict(getattr(each, name).named_parameters()) for each in (straight, resumed))
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
