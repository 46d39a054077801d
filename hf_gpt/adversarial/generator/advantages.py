"""From scores of generated texts to the advantages of the policy gradient, as the arguments say."""

from dataclasses import dataclass

import torch

from hf_gpt.adversarial.config import AdversarialConfig
from hf_gpt.adversarial.generator.rewards import (
    MIN_RELATIVE_STD,
    dense_returns,
    discriminator_reliability,
    grgc_advantages,
    group_advantages,
    logit_difference_rewards,
    moving_average,
    pairwise_rewards,
    position_baseline,
    score_rewards,
    sparse_rewards,
)


@dataclass
class Scores:
    """Scores of generated texts by the discriminator or a reward function.

    Attributes:
        texts: (B,) logits of whole texts.
        prefixes: (B, C) logits of the text up to each token, with reward level "prefix".
        prompts: (B,) logits of the prompts alone, with `prefixes`.
        real: (P,) logits of the prompts' real texts, for pairwise rewards.
        token_rewards: (B, C), in place of rewards from logits.
        added: (B,) rewards of reward functions on texts, on top of the rewards from logits.
        has_logits: Whether `texts` are logits; else `added` is all there is.
    """

    texts: torch.Tensor
    prefixes: torch.Tensor | None = None
    prompts: torch.Tensor | None = None
    real: torch.Tensor | None = None
    token_rewards: torch.Tensor | None = None
    added: torch.Tensor | None = None
    has_logits: bool = True


@dataclass
class Advantages:
    """What a generator learns from.

    Attributes:
        rewards: (B,) reward of each text, for the log.
        values: (B,) or (B, C) advantages, clipped.
        average: The moving average of returns, if there is one.
    """

    rewards: torch.Tensor
    values: torch.Tensor
    average: float | None


def make_advantages(
    args: AdversarialConfig,
    scores: Scores,
    mask: torch.Tensor,
    group_size: int,
    auc: float | None,
    average: float | None,
) -> Advantages:
    """Rewards, baseline, scale and clip.

    Args:
        args: The arguments, which choose them.
        scores: Of the texts.
        mask: (B, C), 1 at generated tokens.
        group_size: Texts of a prompt, adjacent.
        auc: The discriminator's held-out AUC; None for a reward function.
        average: The moving average so far.
    """
    rewards = _rewards(args, scores, mask)
    if scores.added is not None:
        rewards = rewards + (scores.added if rewards.ndim == 1 else sparse_rewards(scores.added, mask))
    turn = _sparse if rewards.ndim == 1 else _dense
    found = turn(args, rewards, mask, group_size, auc, average)
    if args.advantage_clip:
        found.values = found.values.clamp(-args.advantage_clip, args.advantage_clip)
    return found


def _rewards(args: AdversarialConfig, scores: Scores, mask: torch.Tensor) -> torch.Tensor:
    """Rewards of each text (B,) or of each token (B, C)."""
    if not scores.has_logits:
        return torch.zeros_like(scores.texts)
    if scores.token_rewards is not None:
        return scores.token_rewards.detach().float()
    if scores.prefixes is not None:
        if args.reward == "logit_difference":
            return logit_difference_rewards(scores.prefixes, mask, scores.prompts)
        return torch.where(mask.bool(), score_rewards(scores.prefixes, args.reward), 0.0)
    if args.reward == "pairwise":
        return pairwise_rewards(scores.real, scores.texts)
    return score_rewards(scores.texts, args.reward)


def _sparse(args, rewards, mask, group_size, auc, average) -> Advantages:
    """One reward for each text."""
    known = 1.0 if auc is None else auc
    if args.advantage_power != 1:
        scaled = known if args.advantage_scale == "auc" else None
        values = grgc_advantages(
            rewards, group_size, args.advantage_power, args.advantage_min_std, _relative(args), auc=scaled
        )
    elif args.baseline == "group":
        values = group_advantages(
            rewards, group_size, args.advantage_scale, args.advantage_min_std, _relative(args), auc=known
        )
    else:
        values, average = _without_group(args, rewards, rewards.new_ones(rewards.shape), known, average)
    if args.gamma < 1:
        values = dense_returns(sparse_rewards(values, mask), mask, args.gamma)
    return Advantages(rewards, values, average)


def _dense(args, token_rewards, mask, group_size, auc, average) -> Advantages:
    """One reward for each token."""
    known = 1.0 if auc is None else auc
    rewards = torch.where(mask.bool(), token_rewards, 0.0)
    returns = dense_returns(rewards, mask, args.gamma)
    if args.baseline == "group":
        values = torch.where(mask.bool(), returns - position_baseline(returns, mask, group_size), 0.0)
        values = values * _scale(args, values, mask, known)
    else:
        values, average = _without_group(args, returns, mask, known, average)
    return Advantages(rewards.sum(-1), values, average)


def _without_group(args, returns, mask, auc, average) -> tuple[torch.Tensor, float | None]:
    baseline = 0.0
    if args.baseline == "moving_average":
        average = moving_average(average, returns[mask.bool()].mean().item())
        baseline = average
    values = torch.where(mask.bool(), returns - baseline, 0.0)
    return values * _scale(args, values, mask, auc), average


def _scale(args, values, mask, auc) -> float:
    if args.advantage_scale == "none":
        return 1.0
    kept = values[mask.bool()]
    std = kept.std().item() if kept.numel() > 1 else 0.0
    scale = 1 / max(std, args.advantage_min_std, 1e-4)
    return scale * discriminator_reliability(auc) if args.advantage_scale == "auc" else scale


def _relative(args) -> float:
    # A floor of 0 asks for the division as published.
    return MIN_RELATIVE_STD if args.advantage_min_std else 0.0
