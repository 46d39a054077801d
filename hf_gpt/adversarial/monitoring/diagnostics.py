"""
Metrics of failures in adversarial training: pure functions of scores, samples and log-probabilities.

`monitors` compares them with thresholds. "Texts" are rows of token ids, right padded, with a mask that is 1 at tokens.
"""

import math
from collections.abc import Iterable, Sequence

import torch

from hf_gpt.adversarial.discriminator.losses import split_groups
from hf_gpt.adversarial.masked_reductions import masked_mean
from hf_gpt.evaluation.text import diversity
from hf_gpt.evaluation.text.copying import copied_whole
from hf_gpt.evaluation.two_sample.auc_interval import auc as two_sample_auc


def auc(real_scores: torch.Tensor, generated_scores: torch.Tensor) -> float:
    """Probability that a real text scores above a generated one, ties counting half (Mann-Whitney): 0.5 is chance.

    Its standard error at n texts a side is about 0.29 sqrt(2/n) near 0.5: 0.018 for 500.
    """
    real, generated = (scores.detach().double().flatten().cpu().numpy() for scores in (real_scores, generated_scores))
    return two_sample_auc(real, generated)


def accuracy(real_scores: torch.Tensor, generated_scores: torch.Tensor) -> float:
    """Share of texts on the right side of a logit of 0, both kinds weighing the same."""
    real, generated = real_scores.detach() > 0, generated_scores.detach() < 0
    return (real.double().mean() + generated.double().mean()).item() / 2


def format_features(input_ids: torch.Tensor, mask: torch.Tensor, special_token_ids: Sequence[int]) -> torch.Tensor:
    """Length and special tokens of each text, (B, F) float64.

    Columns: number of tokens, its square, whether the first and the last token are special, and the count of each
    special token.

    Args:
        input_ids: (B, T).
        mask: (B, T).
        special_token_ids: BOS, EOS, padding and the like.
    """
    mask = mask.bool()
    length = mask.sum(1)
    special = torch.tensor(list(special_token_ids), device=input_ids.device, dtype=input_ids.dtype)
    is_special = (input_ids.unsqueeze(-1) == special) & mask.unsqueeze(-1)
    last = is_special.any(-1).gather(1, (length - 1).clamp(min=0).unsqueeze(1)).squeeze(1)
    columns = [length, length**2, is_special[:, 0].any(-1), last, *is_special.sum(1).unbind(1)]
    return torch.stack([column.double() for column in columns], dim=1)


def shortcut_auc(real_features: torch.Tensor, generated_features: torch.Tensor, ridge: float = 1e-2) -> float:
    """AUC of a logistic regression on `format_features`, fitted on every other text and measured on the rest.

    Far above 0.5, real and generated texts differ in length or format, and a discriminator need not read them.
    """
    fit, held_out = slice(0, None, 2), slice(1, None, 2)
    pooled = torch.cat([real_features[fit], generated_features[fit]])
    mean, std = pooled.mean(0), pooled.std(0).clamp(min=1e-9)

    def prepare(features: torch.Tensor) -> torch.Tensor:
        standardised = ((features - mean) / std).clamp(-10, 10)
        return torch.cat([standardised, torch.ones_like(standardised[:, :1])], dim=1)

    inputs = prepare(pooled)
    labels = torch.cat([torch.ones(len(real_features[fit])), torch.zeros(len(generated_features[fit]))]).to(inputs)
    # Newton's method; the ridge keeps separable classes finite.
    weight = inputs.new_zeros(inputs.shape[1])
    penalty = ridge * len(inputs) * torch.eye(inputs.shape[1], dtype=inputs.dtype, device=inputs.device)
    for _ in range(15):
        predicted = torch.sigmoid(inputs @ weight)
        gradient = inputs.T @ (predicted - labels) + penalty @ weight
        hessian = (inputs * (predicted * (1 - predicted)).unsqueeze(1)).T @ inputs + penalty
        weight = weight - torch.linalg.solve(hessian, gradient)
    return auc(prepare(real_features[held_out]) @ weight, prepare(generated_features[held_out]) @ weight)


def low_contrast_share(rewards: torch.Tensor, group_size: int, ratio: float = 0.15) -> float:
    """Share of groups whose rewards spread less than `ratio` of the spread of all rewards (GRGC); 1 where nothing
    spreads.

    Args:
        rewards: (B,); those of a prompt are adjacent.
        group_size: Texts a prompt, at least 2.
        ratio: Of standard deviations.
    """
    rewards = rewards.detach().double()
    overall = rewards.std()
    # Equal rewards up to rounding.
    if not overall > 1e-6 * (1 + rewards.abs().max()):
        return 1.0
    return (split_groups(rewards, group_size).std(1) < ratio * overall).double().mean().item()


def entropy_per_token(logps: torch.Tensor, mask: torch.Tensor) -> float:
    """-log q of a generator's own samples, the mean over tokens: its entropy H(q) a token in nats ("NLL_div").

    q is the distribution that they were sampled from, if `logps` are its: of a lower temperature, H(q) is lower.
    """
    return -masked_mean(logps.detach(), mask).item()


def distinct_ngrams(texts: Sequence[Sequence[int]], n: int) -> int:
    """How many different n-grams there are; compare only between equally many texts."""
    return diversity.distinct_ngrams(texts, n)[-1][0]


def duplicate_rate(texts: Iterable[Sequence[int]]) -> float:
    """Share of texts that repeat an earlier one."""
    return diversity.duplicate_rate([tuple(text) for text in texts])


def repetition_rate(texts: Sequence[Sequence[int]]) -> float:
    """Share of texts that share half of their tokens with another; compare only between equally many texts."""
    return diversity.repetition_rate(texts)


def copy_rate(texts: Sequence[Sequence[int]], training_texts: Sequence[Sequence[int]]) -> float:
    """Share of texts that are copies of a training text, or of a part of one."""
    return float(copied_whole(texts, training_texts).mean())


def rate_deviation(rate: float, count: int) -> float:
    """Standard deviation of a rate measured on `count` texts, that of one hit where there was none."""
    likely = min(max(rate, 1 / count), 1 - 1 / count)
    return math.sqrt(likely * (1 - likely) / count)


def length_drift(generated_lengths: torch.Tensor, real_lengths: torch.Tensor) -> float:
    """How far the mean length of generated texts is from that of real ones, in standard deviations of the real lengths.

    The deviation counts as at least one token.
    """
    real = real_lengths.double()
    return ((generated_lengths.double().mean() - real.mean()).abs() / real.std().clamp(min=1.0)).item()


def logp_mismatch(sampled: torch.Tensor, recomputed: torch.Tensor, mask: torch.Tensor) -> float:
    """Mean absolute difference, over tokens, of log q in sampling and in the training pass.

    About 0 in float32. Another temperature, other weights, dropout or another precision in one of the two raise it.
    """
    return masked_mean((sampled - recomputed).detach().abs(), mask).item()


def unpadded(input_ids: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    """The texts as lists of their tokens."""
    return [row[keep].tolist() for row, keep in zip(input_ids, mask.bool(), strict=True)]
