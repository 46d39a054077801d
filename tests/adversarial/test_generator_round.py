"""What the generator is given to learn from."""

import torch

from tests.adversarial.players import make_trainer


def largest_advantage(trainer):
    inputs = next(iter(trainer.get_train_dataloader()))
    return trainer.generator_step.experience(trainer.model, inputs).advantages.abs().max().item()


def test_a_discriminator_of_which_nothing_is_known_moves_nothing(tmp_path):
    """Held-out scores are too few at first; whoever opens the gate and leaves the warm-up out learns no noise."""
    trainer = make_trainer(tmp_path, advantage_scale="auc", discriminator_warmup_steps=0, gate_auc=0.0)
    assert largest_advantage(trainer) == 0
    trainer.loop.history.heldout.add(torch.ones(64), -torch.ones(64))
    assert largest_advantage(trainer) > 0.1


def test_a_reward_that_is_known_to_be_right_counts_from_the_start(tmp_path):
    reward = {"discriminator": None, "reward_function": lambda samples: samples.completion_mask.sum(-1)}
    assert largest_advantage(make_trainer(tmp_path, advantage_scale="auc", **reward)) > 0.1
