"""Held-out likelihood of a residual energy-based model: reads texts by both of its parts and samples log Z."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hf_gpt.data.collators import pad_rows
from hf_gpt.data.special_tokens import begin_and_end, tokenize
from hf_gpt.evaluation.language_model.likelihood import perplexity_of
from hf_gpt.evaluation.language_model.residual import ResidualGain, log_partition_bounds, residual_gain
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.rollout import rollout
from hf_gpt.generation.scoring.discriminator import check_length, evaluating, sequence_scores
from hf_gpt.generation.scoring.logprobs import completion_logps


# Fewer samples of a prompt leave bounds that are too far apart to say anything.
LEAST_SAMPLES_OF_A_PROMPT = 8
# The smallest number of samples that convergence is shown at.
_FIRST_SIZE = 8


@dataclass(frozen=True)
class ResidualLikelihood:
    """Texts under q(x) and under p(x) = q(x) e^l(x) / Z.

    Attributes:
        nll: (M,) float64, nats of each text under q.
        tokens: (M,) int64, predicted tokens of each text.
        scores: (M,) float64, logits l of the texts.
        sample_scores: (P, N) float64, logits of N samples of q for each of P prompts. P is 1 where all texts share
            one prompt, such as the begin token, and M otherwise.
    """

    nll: np.ndarray
    tokens: np.ndarray
    scores: np.ndarray
    sample_scores: np.ndarray

    @property
    def gain(self) -> ResidualGain:
        """Nats a text that p gains over q, with bounds and the 95 % interval."""
        return residual_gain(self.scores, self.sample_scores)

    def perplexity(self, gain: float = 0.0) -> float:
        """Perplexity a token of a model that gains so many nats a text over q; by default that of q."""
        return perplexity_of((float(self.nll.sum()) - gain * len(self.nll)) / int(self.tokens.sum()))

    def convergence(self) -> list[dict[str, float]]:
        """Bounds of log Z by the number of samples, which doubles: `samples`, `lower`, `upper`.

        Means over the disjoint parts of that size, and over prompts. The bounds meet as the number grows.
        """
        number, sizes = self.sample_scores.shape[1], []
        size = number
        while size >= min(number, _FIRST_SIZE) and size > 1:
            sizes.append(size)
            size //= 2
        found = []
        for size in reversed(sizes):
            whole = self.sample_scores[:, : number // size * size]
            below, above = log_partition_bounds(whole.reshape(-1, size))
            found.append({"samples": size, "lower": float(below.mean()), "upper": float(above.mean())})
        return found

    def to_dict(self) -> dict[str, Any]:
        """The metrics by name, with those of q as `base_perplexity`."""
        gain = self.gain
        return {
            "perplexity": self.perplexity(gain.gain),
            # The lower bound of the gain is the upper bound of the perplexity.
            "perplexity_low": self.perplexity(gain.high),
            "perplexity_high": self.perplexity(gain.low),
            "base_perplexity": self.perplexity(),
            "gain": gain.gain,
            "gain_low": gain.low,
            "gain_high": gain.high,
            "gain_lower_bound": gain.lower,
            "gain_upper_bound": gain.upper,
            "texts": len(self.nll),
            "tokens": int(self.tokens.sum()),
            "samples": int(self.sample_scores.size),
            "convergence": self.convergence(),
        }


def text_rows(
    processing_class: Any, texts: Sequence[str], max_new_tokens: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Texts as prompts, the begin token alone, and completions of at most `max_new_tokens` tokens.

    A text that is not cut ends with the end token. A special token that is spelled out in a text stays text.

    Raises:
        ConfigError: the tokenizer has no end token.
    """
    begin, end = begin_and_end(processing_class)
    rows = tokenize(processing_class, texts)["input_ids"]
    return [[begin]] * len(rows), [[*row, end][:max_new_tokens] for row in rows]


def own_sampling(processing_class: Any, max_new_tokens: int) -> SamplingConfig:
    """How a generator samples texts of at most so many tokens from its own distribution, nothing cut."""
    _, end = begin_and_end(processing_class)
    return SamplingConfig(max_new_tokens=max_new_tokens, eos_token_id=end, pad_token_id=processing_class.pad_token_id)


def residual_likelihood(
    generator: Any,
    discriminator: Any,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    sampling: SamplingConfig,
    num_samples: int = 4096,
    batch_size: int = 64,
    seed: int = 0,
    advance: Callable[[int], object] | None = None,
) -> ResidualLikelihood:
    """Likelihood of texts under a generator alone, and under it weighted by a discriminator.

    Source: Deng et al. 2020, https://arxiv.org/abs/2004.11714.

    Args:
        generator: q, a causal language model.
        discriminator: A sequence classifier with one label whose logit is l. None: l is 0, and p is q.
        prompts: Token ids that each text begins with; they have no likelihood of their own.
        completions: Token ids of the texts, at most `sampling.max_new_tokens` of each.
        sampling: Special tokens and the most tokens of a text. Its distribution must be q itself.
        num_samples: Samples of q in all, at least 8 for each prompt.
        batch_size: Texts at a time.
        seed: Of the samples.
        advance: Called with the number of texts done, M and then the samples.

    Raises:
        ValueError: too few texts or samples, a distribution other than q, or a text too long for the discriminator.
        ScoreError: a logit is not finite.
    """
    if sampling.temperature != 1 or sampling.is_truncated:
        raise ValueError("the likelihood of a residual model needs samples of q itself: temperature 1, nothing cut.")
    if len(completions) < 2 or num_samples < 2 or not all(map(len, completions)):
        raise ValueError(
            f"a residual likelihood needs two texts that are not empty and two samples, got {len(completions)} texts "
            f"and {num_samples} samples."
        )
    if discriminator is not None:
        check_length(discriminator, max(map(len, prompts)) + (sampling.max_new_tokens or 0))
    report = advance or (lambda number: None)
    lengths = np.array([len(row) for row in completions])
    nll, scores = [], []
    for first in range(0, len(prompts), batch_size):
        part = slice(first, first + batch_size)
        nll.append(completion_nats(generator, prompts[part], completions[part], batch_size))
        if discriminator is not None:
            read = _joined(prompts[part], completions[part])[:2]
            scores.append(sequence_scores(discriminator, *read).double().numpy())
        report(len(nll[-1]))
    if discriminator is None:
        return ResidualLikelihood(np.concatenate(nll), lengths, np.zeros(len(lengths)), np.zeros((1, 2)))
    are_one = all(list(prompt) == list(prompts[0]) for prompt in prompts)
    different = [prompts[0]] if are_one else list(prompts)
    each = max(num_samples // len(different), LEAST_SAMPLES_OF_A_PROMPT)
    repeated = [prompt for prompt in different for _ in range(each)]
    uniforms = torch.Generator().manual_seed(seed)
    sampled = []
    for first in range(0, len(repeated), batch_size):
        some = repeated[first : first + batch_size]
        ids, mask = pad_rows(some, sampling.padding_token)
        texts = rollout(generator, ids, mask, sampling=sampling, generator=uniforms)
        sampled.append(sequence_scores(discriminator, texts.sequences, texts.attention_mask).double().cpu())
        report(len(some))
    return ResidualLikelihood(
        np.concatenate(nll),
        lengths,
        np.concatenate(scores),
        torch.cat(sampled).reshape(len(different), each).numpy(),
    )


@torch.no_grad()
def completion_nats(
    model: Any, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], batch_size: int = 64
) -> np.ndarray:
    """Nats (M,), float64, of completions after their prompts under a causal language model, given as token ids."""
    device, found = next(model.parameters()).device, []
    with evaluating(model):
        for first in range(0, len(prompts), batch_size):
            part = slice(first, first + batch_size)
            ids, mask = (tensor.to(device) for tensor in pad_rows(completions[part]))
            joined = _joined(prompts[part], completions[part])
            sequences, attention_mask, lengths = (tensor.to(device) for tensor in joined)
            logps = completion_logps(model, sequences, attention_mask, lengths, ids)
            found.append(-(logps.double() * mask).sum(1).cpu().numpy())
    return np.concatenate(found)


def _joined(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Whole rows with their mask, both (n, longest), and the lengths of the prompts (n,)."""
    rows = [[*prompt, *completion] for prompt, completion in zip(prompts, completions, strict=True)]
    return *pad_rows(rows), torch.tensor([len(prompt) for prompt in prompts])
