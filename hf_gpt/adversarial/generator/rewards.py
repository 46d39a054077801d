"""
From a discriminator's scores to rewards, returns, baselines and advantages.

Scores are logits l, positive for real; rewards carry no gradient. `completion_mask` (B, C) is 1 at generated tokens
up to and including the end-of-text token. p is the distribution of the data, q that of the generator. Generations for
one prompt are adjacent, `group_size` of them.
"""

from collections.abc import Callable

import torch
from torch.nn.functional import logsigmoid, softplus

from hf_gpt.adversarial.discriminator.losses import split_groups
from hf_gpt.adversarial.masked_reductions import masked_mean


# Divisors below this share of the spread over all groups amplify noise (GRGC's mark of a group without contrast).
MIN_RELATIVE_STD = 0.15


# What a generator descends that follows the policy gradient of f(l) against the optimal score l = log p/q. For a reward
# r(p/q), the divergence E_q[g(p/q)] has that gradient if g(u) - u g'(u) = -r(u).
REWARDS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    # l: KL(q || p), the mode-seeking one. Unbounded below: one impossible token outweighs everything.
    "logit": lambda scores: scores,
    # log s(l): KL(q || p) - 2 JSD(p, q) (Arjovsky & Bottou 2017, arXiv:1701.04862, theorem 2.5).
    "log_sigmoid": logsigmoid,
    # -log(1 - s(l)) = log(1 + p/q): 2 JSD(p, q), the generator's side of the original GAN (arXiv:1406.2661).
    "softplus": softplus,
    # s(l), SeqGAN's reward (arXiv:1609.05473): KL(p || (p + q)/2), bounded.
    "sigmoid": torch.sigmoid,
    # 2 s(l) - 1, ScratchGAN's reward (arXiv:1905.09922): that of SeqGAN, centred.
    "centred_sigmoid": lambda scores: 2 * torch.sigmoid(scores) - 1,
    # e^l = p/q, MaliGAN's reward (arXiv:1702.07983): KL(p || q), the likelihood's own; unbounded above.
    "ratio": torch.exp,
}


def score_rewards(scores: torch.Tensor, kind: str = "logit") -> torch.Tensor:
    """Rewards from logits, elementwise and without gradient; `REWARDS` says what each kind descends.

    Args:
        scores: Logits, any shape.
        kind: A key of `REWARDS`.

    Raises:
        ValueError: There is no such kind.
    """
    if kind not in REWARDS:
        raise ValueError(f"there is no reward {kind!r}; choose from {', '.join(REWARDS)}")
    return REWARDS[kind](scores.detach().float())


def logit_difference_rewards(
    prefix_scores: torch.Tensor, completion_mask: torch.Tensor, prompt_scores: torch.Tensor | None = None
) -> torch.Tensor:
    """r_t = l_t - l_{t-1}: what each token did to the score; the rewards of a text add up to l_T - l_0.

    With gamma = 1 they descend KL(q || p) as the reward "logit" at the end does, with a baseline of l_{t-1} built in.
    With l = log p/q of prefixes, r_t = log p(y_t | s_t) - log q(y_t | s_t).

    Source: potential-based shaping, Ng et al. 1999, applied to the discriminator's logit.

    Args:
        prefix_scores: l_t after each token, (B, C).
        completion_mask: (B, C).
        prompt_scores: l_0, (B,); left out: 0, that of a text not yet begun.

    Returns:
        (B, C) fp32, 0 outside the mask.
    """
    scores = prefix_scores.detach().float()
    first = scores.new_zeros(scores.shape[0]) if prompt_scores is None else prompt_scores.detach().float()
    before = torch.cat([first.unsqueeze(1), scores[:, :-1]], dim=1)
    return torch.where(completion_mask.bool(), scores - before, 0.0)


def sparse_rewards(rewards: torch.Tensor, completion_mask: torch.Tensor) -> torch.Tensor:
    """A reward (B,) for a text as rewards (B, C) of its tokens: all of it at the last one."""
    mask = completion_mask.bool()
    last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
    return torch.where(last, rewards.detach().float().unsqueeze(1), 0.0)


def pairwise_rewards(real_scores: torch.Tensor, generated_scores: torch.Tensor) -> torch.Tensor:
    """Share of the generated text in the softmax over it and its prompt's real text, s(l_f - l_r), in (0, 1), (P * N,).

    Descends, with w = p/q at the real text, the mean over real texts of E_p[log p / (p + w q)] / w: SeqGAN's bounded
    divergence, with the zero point at the real text instead of at 0.

    Source: TextGAIL, Wu et al. 2021, arXiv:2004.13796.
    Arguments as in `bradley_terry_loss`.
    """
    generated = generated_scores.detach().float().reshape(real_scores.numel(), -1)
    return torch.sigmoid(generated - real_scores.detach().float().reshape(-1, 1)).flatten()


def dense_returns(prefix_rewards: torch.Tensor, completion_mask: torch.Tensor, gamma: float = 1.0) -> torch.Tensor:
    """R_t = sum_{s >= t} gamma^(s-t) r_s, 0 outside the mask.

    gamma = 1 is the gradient of the text's total reward; below 1 it trades bias for variance; at 0 a token answers for
    its own reward alone (ScratchGAN takes 0.23).

    Args:
        prefix_rewards: (B, C).
        completion_mask: (B, C).
        gamma: Discount in [0, 1].

    Returns:
        (B, C) fp32.
    """
    rewards = torch.where(completion_mask.bool(), prefix_rewards.detach().float(), 0.0)
    returns = torch.empty_like(rewards)
    later = torch.zeros_like(rewards[:, 0])
    for position in reversed(range(rewards.shape[1])):
        later = rewards[:, position] + gamma * later
        returns[:, position] = later
    return torch.where(completion_mask.bool(), returns, 0.0)


def future_returns(prefix_rewards: torch.Tensor, completion_mask: torch.Tensor, gamma: float = 1.0) -> torch.Tensor:
    """`dense_returns` without a token's own reward: gamma R_{t+1}, for use beside `exact_token_loss`.

    The exact loss takes the expectation over the token's own log-ratio, these returns sample what the token leads to;
    both together are the gradient of KL(q || p), with less variance than sampling all of it.

    Source: the single-step decomposition of MiniLLM, Gu et al. 2024, arXiv:2306.08543.
    """
    returns = dense_returns(prefix_rewards, completion_mask, gamma)
    own = torch.where(completion_mask.bool(), prefix_rewards.detach().float(), 0.0)
    return returns - own


def differential_rewards(
    prefix_rewards: torch.Tensor, completion_mask: torch.Tensor, average: torch.Tensor | float | None = None
) -> torch.Tensor:
    """r_t less the average of all tokens: what a token's reward is better than that of any.

    A mean over tokens is E[sum_t r_t] / E[T], and a generator moves both: returns of the rewards themselves leave out
    the denominator. Where rewards are minus a divergence, which is never negative, they say that a text should end at
    once, since what follows can only cost. With the average subtracted, `future_returns` beside `exact_token_loss` are
    the gradient of the quotient.

    Source: differential returns of average-reward problems, Sutton and Barto 2018, section 10.3.

    Args:
        prefix_rewards: (B, C).
        completion_mask: (B, C).
        average: Of all texts, if there are more than these. None: over these.

    Returns:
        (B, C) fp32, 0 outside the mask.
    """
    rewards = prefix_rewards.detach().float()
    if average is None:
        average = masked_mean(rewards, completion_mask)
    return torch.where(completion_mask.bool(), rewards - average, 0.0)


def position_baseline(returns: torch.Tensor, completion_mask: torch.Tensor, group_size: int) -> torch.Tensor:
    """Mean return at the same position over the *other* texts of the group, so that no estimate is biased by it.

    Where all others have ended, the mean of their last returns. To be subtracted from `returns`.

    Source: leave-one-out, Kool et al. 2019, openreview r1lgTGL5DE, at each position.

    Args:
        returns: (B, C).
        completion_mask: (B, C).
        group_size: Texts for one prompt, at least 2; B for texts without a prompt.

    Returns:
        (B, C) fp32, 0 outside the mask.
    """
    if group_size < 2:
        raise ValueError(
            "a baseline of the other texts needs group_size >= 2; use moving_average for one text a prompt"
        )
    mask = completion_mask.bool()
    returns = torch.where(mask, returns.float(), 0.0)
    last_index = (mask.sum(1) - 1).clamp(min=0)
    last = returns.gather(1, last_index.unsqueeze(1)).squeeze(1)
    alive, values, ends = (split_groups(x, group_size) for x in (mask.float(), returns, last))
    others_alive = alive.sum(1, keepdim=True) - alive
    others_mean = (values.sum(1, keepdim=True) - values) / others_alive.clamp(min=1)
    others_end = ((ends.sum(1, keepdim=True) - ends) / (group_size - 1)).unsqueeze(-1)
    baseline = torch.where(others_alive > 0, others_mean, others_end).reshape(returns.shape)
    return torch.where(mask, baseline, 0.0)


def moving_average(previous: float | None, value: float, decay: float = 0.99) -> float:
    """decay * previous + (1 - decay) * value, or `value` at the start: ScratchGAN's baseline over updates."""
    return value if previous is None else decay * previous + (1 - decay) * value


def discriminator_reliability(auc: float) -> float:
    """max(0, 2 AUC - 1): the share of a discriminator's ranking that is better than chance, in [0, 1]."""
    return max(0.0, 2 * auc - 1)


def group_advantages(
    rewards: torch.Tensor,
    group_size: int,
    scale: str = "none",
    min_std: float = 0.1,
    min_relative_std: float = MIN_RELATIVE_STD,
    auc: float | None = None,
) -> torch.Tensor:
    """Rewards minus the mean of their group, in units that `scale` chooses.

    "none" keeps the reward's own units and with them the divergence that it descends. "std" divides by the group's
    standard deviation (GRPO), which forgets how much the group differs from others. "auc" does that too and
    multiplies by `discriminator_reliability`, so that a discriminator at chance moves nothing. The divisor is never
    below `min_std` nor below `min_relative_std` of the spread over the batch: noise is not blown up to the size of a
    signal.

    Source: GRPO, Shao et al. 2024, arXiv:2402.03300, sec. 4.1.2; without the division: Dr. GRPO, arXiv:2503.20783.

    Args:
        rewards: (B,).
        group_size: Texts for one prompt, at least 2.
        scale: "none", "std" or "auc".
        min_std: Least divisor, in units of the reward; 0 with `min_relative_std=0` is GRPO as published.
        min_relative_std: Least divisor as a share of the standard deviation of all `rewards`.
        auc: Held-out AUC of the discriminator; needed for "auc".

    Returns:
        (B,) fp32 without gradient.
    """
    if scale not in ("none", "std", "auc"):
        raise ValueError(f"scale is {scale!r}, and must be none, std or auc")
    if scale == "auc" and auc is None:
        raise ValueError('scale="auc" needs the discriminator\'s held-out AUC')
    if group_size < 2:
        raise ValueError("advantages within a group need group_size >= 2")
    groups = split_groups(rewards.detach().float(), group_size)
    centred = groups - groups.mean(1, keepdim=True)
    if scale == "none":
        return centred.flatten()
    floor = max(min_std, min_relative_std * groups.std().item())
    # As in TRL, so that a floor of 0 divides a group of equal rewards by something.
    advantages = (centred / (groups.std(1, keepdim=True).clamp(min=floor) + 1e-4)).flatten()
    return advantages if auc is None or scale == "std" else advantages * discriminator_reliability(auc)


def signed_power(advantages: torch.Tensor, exponent: float = 1.5) -> torch.Tensor:
    """sign(z) |z|^exponent, elementwise: above 1 the best and worst of a group count for more.

    Source: GRGC 2026, exponent 1.5 on standardised rewards.
    """
    return advantages.sign() * advantages.abs() ** exponent


def grgc_advantages(
    rewards: torch.Tensor,
    group_size: int,
    exponent: float = 1.5,
    min_std: float = 0.1,
    min_relative_std: float = MIN_RELATIVE_STD,
    auc: float | None = None,
) -> torch.Tensor:
    """Standardised within the group, raised to a signed power, standardised again.

    A group that the floors of the first division left small stays small in the second. With `auc`, scaled as by
    `group_advantages(scale="auc")`. As published: both floors 0.

    Source: GRGC 2026. Arguments and result as in `group_advantages`.
    """
    standardised = group_advantages(rewards, group_size, "std", min_std, min_relative_std)
    floor = 0.5 if min_std or min_relative_std else 0.0
    advantages = group_advantages(signed_power(standardised, exponent), group_size, "std", floor, 0.0)
    return advantages if auc is None else advantages * discriminator_reliability(auc)
