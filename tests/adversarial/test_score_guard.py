"""Scores that are not finite teach nobody: the step is left out and counted, and a source that goes on is named."""

import math

import pytest
import torch

from hf_gpt.adversarial.monitoring.history import ScoreWindow
from hf_gpt.adversarial.monitoring.score_guard import MOST_IN_A_ROW, NonFiniteScoresError
from hf_gpt.training.monitoring.nonfinite import NonFiniteError
from tests.adversarial.players import make_discriminator, make_generator, make_trainer


def weights_of(model):
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"estimator": "weighted_likelihood", "select_best": 2},
        {"estimator": "grpo", "reward": "sigmoid"},
        {"baseline": "moving_average", "weight_decay": 0.1},
    ],
)
def test_a_step_without_finite_rewards_changes_no_weight(tmp_path, value, settings):
    calls, seen = [], []

    def reward(samples):
        calls.append(1)
        scores = torch.linspace(0, 1, len(samples))
        if len(calls) == 2:
            scores[3] = value
        return scores

    generator = make_generator()
    trainer = make_trainer(
        tmp_path, generator, None, reward_function=reward, max_steps=4, group_size=4, lambda_mle=0.5, **settings
    )
    after, step = trainer._after_step, []

    def look(phase, number):
        seen.append(weights_of(generator))
        after(phase, number)
        step.append(number)

    seen.append(weights_of(generator))
    trainer._after_step = look
    trainer.train()
    # What a step's update did is seen at the end of the next.
    changed = [not torch.equal(a, b) for a, b in zip(seen, [*seen[1:], weights_of(generator)], strict=True)]
    assert changed == [False, True, False, True, True] and weights_of(generator).isfinite().all()
    assert trainer.state.log_history[-2]["steps_with_scores_not_finite"] == 1
    assert trainer.loop.guard.in_a_row == 0


def test_an_accumulation_with_one_is_left_out_as_a_whole(tmp_path):
    calls = []

    def reward(samples):
        calls.append(1)
        return torch.full((len(samples),), math.nan if len(calls) == 2 else 0.0) + torch.arange(len(samples))

    generator = make_generator()
    settings = {"max_steps": 1, "gradient_accumulation_steps": 3, "lambda_mle": 0.5}
    trainer = make_trainer(tmp_path, generator, None, reward_function=reward, **settings)
    before = weights_of(generator)
    trainer.train()
    assert len(calls) == 3 and torch.equal(before, weights_of(generator))


@pytest.mark.parametrize("settings", [{}, {"reward_level": "prefix"}, {"discriminator_loss": "bradley_terry"}])
def test_a_discriminator_that_goes_on_is_named(tmp_path, settings):
    discriminator = make_discriminator("hf_gpt" if settings else "hf_ngram_cnn")
    with torch.no_grad():
        discriminator.get_input_embeddings().weight.fill_(math.nan)
    generator = make_generator()
    before = weights_of(generator)
    options = {"max_steps": 40, "group_size": 4, **settings}
    # By default the discriminator's own update stops the run, and names it too.
    with pytest.raises(NonFiniteError, match=rf"{type(discriminator).__name__}.*damaged"):
        make_trainer(tmp_path, generator, discriminator, **options).train()
    trainer = make_trainer(tmp_path, generator, discriminator, nan_action="skip", **options)
    with pytest.raises(NonFiniteScoresError, match=f"{type(discriminator).__name__} gave") as error:
        trainer.train()
    assert f"{MOST_IN_A_ROW} steps in a row" in str(error.value) and "damaged" in str(error.value)
    assert torch.equal(before, weights_of(generator))


@pytest.mark.parametrize("paired", [False, True])
def test_an_auc_leaves_them_out(paired):
    window = ScoreWindow(4, paired)
    window.add(torch.tensor([1.0, math.nan, 3.0, 2.0, 2.0]), torch.tensor([0.0, -5.0, 0.0, math.inf, 0.0]))
    window.add(torch.tensor([4.0]), torch.tensor([0.0]))
    assert window.auc == 1.0
    if paired:
        assert list(window.real) == [1.0, 3.0, 2.0, 4.0] and list(window.generated) == [0.0] * 4
