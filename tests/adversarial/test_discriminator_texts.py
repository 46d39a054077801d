"""Which texts an update of the discriminator is on."""

import math

import pytest

from hf_gpt.adversarial.loop import AdversarialLoop
from hf_gpt.errors import ConfigError
from tests.adversarial.players import logged, make_trainer


@pytest.fixture
def seen(monkeypatch):
    """Numbers of real, generated and fresh texts in each batch."""
    sizes, update = [], AdversarialLoop._update_discriminator

    def record(self, model, due, *rest):
        sizes.extend((len(real), len(generated), len(fresh)) for real, generated, _, fresh in due)
        assert all(partners.tolist() == list(range(len(generated))) for _, generated, partners, _ in due)
        return update(self, model, due, *rest)

    monkeypatch.setattr(AdversarialLoop, "_update_discriminator", record)
    return sizes


@pytest.mark.parametrize("loss", ["bce", "bradley_terry"])
@pytest.mark.parametrize("group_size", [None, 4, 2])
def test_without_prompts_calibrated_texts_have_as_many_real_ones(tmp_path, seen, loss, group_size):
    settings = {"discriminator_loss": loss, "calibration_weight": 0.1, "group_size": group_size}
    trainer = make_trainer(tmp_path, **settings)
    trainer.train()
    assert seen[0] == (8, 8, 8) and set(seen[1:]) == {(8, 8, 6)}
    assert all(map(math.isfinite, logged(trainer, "d_loss")))


def test_a_single_fresh_text_cannot_be_calibrated(tmp_path):
    with pytest.raises(ConfigError, match="new texts in a batch"):
        make_trainer(tmp_path, calibration_weight=0.1, per_device_train_batch_size=2, replay_fraction=0.5)


@pytest.mark.parametrize("texts", ["own", "shared"])
def test_replayed_texts_are_the_share_that_is_asked_for(tmp_path, seen, texts):
    settings = {"discriminator_texts": texts, "per_device_train_batch_size": 12, "replay_fraction": 0.25}
    make_trainer(tmp_path, discriminator_warmup_steps=0, **settings).train()
    assert set(seen[1:]) == {(16, 16, 12) if texts == "shared" else (12, 12, 9)}
