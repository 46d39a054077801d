"""What is refused before anything is trained, beside what `test_trainer` has."""

import pytest
import torch
from torch.nn.utils.parametrizations import spectral_norm

from hf_gpt.errors import UserError
from tests.adversarial.players import make_discriminator, make_trainer


WITHOUT_END = "wasserstein falls without end"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discriminator_loss": "wasserstein"}, WITHOUT_END),
        ({"discriminator_loss": "wasserstein", "reward_level": "prefix"}, WITHOUT_END),
        ({"discriminator_loss": "wasserstein", "r1_gamma": 1.0}, WITHOUT_END),
        ({"discriminator_loss": "relativistic", "reward_level": "prefix"}, "bce, hinge or least_squares"),
        ({"discriminator_loss": "hinge", "reward": "ratio"}, "--reward ratio reads the score as log p/q"),
        ({"discriminator_loss": "least_squares", "reward": "sigmoid"}, "Use --reward logit"),
        ({"discriminator_loss": "hinge", "reward": "pairwise"}, "Use --reward logit"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        make_trainer(tmp_path, **settings)


def test_wasserstein_with_a_bound_is_played(tmp_path):
    make_trainer(tmp_path, discriminator_loss="wasserstein", gradient_penalty_weight=10.0, max_steps=2).train()
    normalised = make_discriminator()
    for module in list(normalised.modules()):
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv1d)):
            spectral_norm(module)
    for level in ("sequence", "prefix"):
        settings = {"discriminator_loss": "wasserstein", "reward_level": level, "max_steps": 2}
        make_trainer(tmp_path, discriminator=normalised, **settings).train()
