"""The generator's update goes on from what drawing its texts worked out, and its weights are those of a whole pass."""

import pytest
import torch

from hf_gpt.adversarial.generator.experience import GeneratorStep
from hf_gpt.generation.decoding.native.structures import native
from hf_gpt.generation.sampling.activation_cache import ActivationCache
from tests.adversarial.players import make_generator, make_pairs, make_trainer


@pytest.mark.parametrize("texts", [None, make_pairs()])
@pytest.mark.parametrize("settings", [{}, {"estimator": "grpo", "lambda_mle": 0.5}])
def test_weights_are_those_of_whole_passes(tmp_path, monkeypatch, texts, settings):
    if native() is None:
        pytest.skip("there is no C compiler")
    taken, is_of = [], ActivationCache.is_of
    monkeypatch.setattr(ActivationCache, "is_of", lambda *args: taken.append(is_of(*args)) or taken[-1])

    def run(folder):
        trainer = make_trainer(folder, make_generator(), texts=texts, heldout_steps=2, **settings)
        trainer.train()
        return trainer

    recorded = run(tmp_path / "recorded")
    assert all(taken) and len(taken) >= 3
    mismatches = [entry["step"] for entry in recorded.state.log_history if "logp_mismatch" in entry]
    assert {3, 6} & set(mismatches) and len(mismatches) < 6
    number = len(taken)
    monkeypatch.setattr(GeneratorStep, "activation_cache", lambda self, step: None)
    plain = run(tmp_path / "plain")
    assert len(taken) == number
    for ours, theirs in zip(recorded.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
