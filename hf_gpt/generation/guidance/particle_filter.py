"""A particle filter (sequential Monte Carlo): k prefixes of each text grow side by side and are resampled.

A choice among k whole texts improves by at most log k nats. Here the choice is made again after every few tokens, so
the improvement grows with the length (Gordon et al. 1993; of language models Lew et al. 2023, arXiv:2306.03081).
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from hf_gpt.generation.guidance.log_weights import LogWeight, make_log_weight
from hf_gpt.generation.guidance.logits_processor import Scorer
from hf_gpt.generation.guidance.selection import (
    effective_sample_size,
    importance_weights,
    resample,
    resample_systematically,
)
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.rollout import Rollout, as_prompts, check_positions, rollout
from hf_gpt.generation.scoring.discriminator import check_length
from hf_gpt.generation.scoring.log_ratio import is_language_model
from hf_gpt.generation.scoring.logprobs import join, unwrap


Resampling = Literal["systematic", "multinomial"]
_RESAMPLING = {"systematic": resample_systematically, "multinomial": resample}

# Particles are resampled where their effective number falls below this share: resampling costs distinct prefixes.
RESAMPLED_BELOW = 0.5

# Samples the next tokens of prefixes. Arguments: row numbers (n,), contexts and masks (n, T) padded at the left,
# position in the completion, number of tokens.
Sample = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int, int], "Block"]


@dataclasses.dataclass
class Block:
    """What n prefixes grew by.

    Attributes:
        samples: The new tokens, as completions of the prefixes.
        finished: (n,) bool, which texts ended.
    """

    samples: Rollout
    finished: torch.Tensor


@dataclasses.dataclass
class Particles:
    """k weighted continuations of each of B prompts.

    Attributes:
        texts: B k rows, those of a prompt adjacent. They share prefixes where they were resampled.
        weights: (B, k) float32 on the CPU, each row summing to 1.
        scores: (B, k) float32 on the CPU, the discriminator's score of each whole text: its logit, or log psi - log q.
        num_resampled: (B,) int64, how often the particles were resampled.
    """

    texts: Rollout
    weights: torch.Tensor
    scores: torch.Tensor
    num_resampled: torch.Tensor

    @property
    def effective_sample_size(self) -> torch.Tensor:
        """(B,) float32 from 1 to k, of the final weights."""
        return effective_sample_size(self.weights)

    def sample(self, generator: torch.Generator | None = None) -> Rollout:
        """One text for each prompt, by weight: (B,) rows."""
        return self.texts.rows(self.choose(generator))

    def choose(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """(B,) int64 numbers of rows of `texts`, sampled by weight."""
        groups, count = self.weights.shape
        chosen = resample(self.weights.log(), generator=generator)[:, 0]
        return (torch.arange(groups) * count + chosen).to(self.texts.sequences.device)


def grow_particles(
    model: nn.Module,
    discriminator: nn.Module | Scorer,
    prompts: tuple[torch.Tensor, torch.Tensor] | None = None,
    *,
    sampling: SamplingConfig,
    num_particles: int = 16,
    block_size: int = 4,
    discriminator_temperature: float = 1.0,
    resampling: Resampling = "systematic",
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> Particles:
    """Samples continuations of prompts from q, and resamples them by a discriminator as they grow.

    With a language model psi the weights are log psi - log q, and the target is psi. With logits l the target is
    q e^l, up to a factor for each prompt. One particle gives the samples of `rollout`; more particles approach the
    target. Resampling helps only if the discriminator judges prefixes well (`hf-gpt discriminator --level prefix`).
    A finished text keeps its weight.

    Args:
        model: q, a causal language model.
        discriminator: A causal language model; a sequence classifier with one label, over the generator's tokens; or a
            function of sequences and mask, both (n, T), that returns (n,) logits.
        prompts: Ids and mask, both (P, L) int64, as for `rollout`. None: texts that begin with `bos_token_id`.
        sampling: How q samples.
        num_particles: k, of each text.
        block_size: Tokens between two scorings. Particles are resampled where their effective sample size is below
            k / 2.
        discriminator_temperature: Divides psi's logits of the next token, or l.
        resampling: `"systematic"`, which varies less, or `"multinomial"`.
        generator: A CPU generator.
        batch_size: Particles that a model reads at a time; it does not change the texts. None: all.

    Returns:
        The particles of every text, with weights; `.sample(generator)` takes one for each.

    Raises:
        ValueError: settings out of range, an encoder-decoder, more tokens than one of the models has positions for, or
            what `rollout` raises.
    """
    if unwrap(model).config.is_encoder_decoder:
        raise ValueError("grow_particles takes causal language models, not encoder-decoders.")
    if sampling.max_new_tokens is None:
        raise ValueError("grow_particles needs max_new_tokens: set it in the SamplingConfig.")
    limit, device = sampling.max_new_tokens, next(model.parameters()).device
    ids, mask = as_prompts(*(prompts or (None, None)), sampling, device)
    check_positions(unwrap(model), ids.shape[1], limit)
    if is_language_model(discriminator):
        check_positions(unwrap(discriminator), ids.shape[1], limit)
    elif isinstance(discriminator, nn.Module):
        check_length(discriminator, int(mask.sum(1).max()) + limit)
    ends = torch.tensor(sampling.end_tokens, device=device)
    # One number for each token of each particle: a sample depends neither on the others nor on batches.
    uniforms = torch.rand(len(ids) * num_particles, limit, dtype=torch.float64, generator=generator)

    def sample(rows: torch.Tensor, context: torch.Tensor, mask: torch.Tensor, position: int, count: int) -> Block:
        part = dataclasses.replace(sampling, max_new_tokens=count, num_return_sequences=1)
        numbers = uniforms[rows.cpu(), position : position + count]
        samples = rollout(model, context, mask, sampling=part, uniforms=numbers, batch_size=batch_size)
        ended = torch.isin(samples.completions, ends) & samples.completion_mask.bool()
        return Block(samples, ended.any(1))

    log_weight = make_log_weight(discriminator, model, discriminator_temperature, sampling, batch_size)
    weight_temperature = 1.0 if is_language_model(discriminator) else discriminator_temperature
    cloud = ParticleFilter(len(ids), num_particles, weight_temperature, resampling, generator)
    return grow(sample, log_weight, cloud, ids, mask, limit, block_size, sampling.padding_token)


class ParticleFilter:
    """The weights of B groups of k particles, and their resampling.

    Args:
        groups: B.
        particles: k.
        temperature: Divides the log-weights.
        resampling: As for `grow_particles`.
        generator: A CPU generator; None: the global one.

    Attributes:
        log_weights: (B, k) float32 on the CPU, up to a constant for each group.
        scores: (B, k) float32 on the CPU, the discriminator's scores of the particles, whether resampled or not.
        num_resampled: (B,) int64.

    Raises:
        ValueError: no particle, a temperature not above 0, or no such resampling.
    """

    def __init__(
        self,
        groups: int,
        particles: int,
        temperature: float = 1.0,
        resampling: Resampling = "systematic",
        generator: torch.Generator | None = None,
    ):
        if particles < 1:
            raise ValueError(f"a particle filter needs at least 1 particle of each text, got {particles}.")
        if temperature <= 0:
            raise ValueError(f"the temperature of a discriminator must be above 0, got {temperature}.")
        if resampling not in _RESAMPLING:
            raise ValueError(f"there is no resampling {resampling!r}. Choose one of: {', '.join(_RESAMPLING)}.")
        self.log_weights, self.scores, self._sampled_at = (torch.zeros(groups, particles) for _ in range(3))
        self.temperature = temperature
        self.num_resampled = torch.zeros(groups, dtype=torch.long)
        self.generator = generator
        self._resample = _RESAMPLING[resampling]

    @property
    def weights(self) -> torch.Tensor:
        """(B, k) float32, normalised."""
        return importance_weights(self.log_weights)

    def update(self, scores: torch.Tensor, growing: torch.Tensor) -> torch.Tensor | None:
        """Weighs the particles by the change of their scores since the last resampling, and resamples uneven groups.

        Args:
            scores: (B k,), the discriminator's scores of the particles now. Minus infinity rules a particle out until
                its score is finite: a prefix that is ruled out may end well.
            growing: (B k,) bool, which go on. A finished group is not resampled, since weights lose less.

        Returns:
            (B k,) int64: which particle now stands at each position; None where all stayed.
        """
        groups, particles = self.log_weights.shape
        self.scores = scores.detach().float().cpu().view(groups, particles)
        self.log_weights = (self.scores - self._sampled_at) / self.temperature
        # All ruled out: equal weights.
        self.log_weights[(self.log_weights == -torch.inf).all(1)] = 0.0
        poor = effective_sample_size(self.weights) < RESAMPLED_BELOW * particles
        poor &= growing.cpu().view(groups, particles).any(1)
        if not poor.any():
            return None
        chosen = torch.arange(particles).repeat(groups, 1)
        chosen[poor] = self._resample(self.log_weights[poor], particles, generator=self.generator)
        self.log_weights[poor] = 0.0
        self.scores = self.scores.gather(1, chosen)
        self._sampled_at[poor] = self.scores[poor]
        self.num_resampled += poor
        return (torch.arange(groups)[:, None] * particles + chosen).flatten()


@torch.no_grad()
def grow(
    sample: Sample,
    log_weight: LogWeight,
    cloud: ParticleFilter,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    max_new_tokens: int,
    block_size: int,
    pad_token_id: int,
) -> Particles:
    """The filter's loop, for any sampler and any log-weight.

    Args:
        sample, log_weight: Grow and weigh the particles.
        cloud: Weights of the particles, before the first token.
        prompt_ids, prompt_mask: (B, L) int64, padded at the left.
        max_new_tokens, pad_token_id: As in `SamplingConfig`.
        block_size: As for `grow_particles`.
    """
    if block_size < 1:
        raise ValueError(f"particles grow by at least 1 token between two resamplings, got {block_size}.")
    particles = cloud.log_weights.shape[1]
    ids, mask = (tensor.repeat_interleave(particles, 0) for tensor in (prompt_ids, prompt_mask))
    rows, device = len(ids), ids.device
    completions = torch.full((rows, max_new_tokens), pad_token_id, device=device)
    logps = torch.zeros(rows, max_new_tokens, device=device)
    lengths = torch.zeros(rows, dtype=torch.long, device=device)
    finished = torch.zeros(rows, dtype=torch.bool, device=device)
    for position in range(0, max_new_tokens, block_size):
        growing = (~finished).nonzero()[:, 0]
        if not len(growing):
            break
        # All texts that still grow have the same number of new tokens.
        context = torch.cat([ids[growing], completions[growing, :position]], 1)
        context_mask = torch.cat([mask[growing], mask.new_ones(len(growing), position)], 1)
        block = sample(growing, context, context_mask, position, min(block_size, max_new_tokens - position))
        samples = block.samples
        end = position + samples.completions.shape[1]
        completions[growing, position:end], logps[growing, position:end] = samples.completions, samples.logps
        lengths[growing] += samples.completion_mask.sum(1).long()
        finished[growing] = block.finished
        scores = cloud.scores.flatten().to(device, copy=True)
        scores[growing] = log_weight(scores[growing], samples)
        is_last = position + block_size >= max_new_tokens
        chosen = cloud.update(scores, torch.zeros_like(finished) if is_last else ~finished)
        if chosen is not None:
            chosen = chosen.to(device)
            completions, logps, lengths, finished = (
                tensor[chosen] for tensor in (completions, logps, lengths, finished)
            )
    width = int(lengths.max()) if rows else 0
    completion_mask = torch.arange(width, device=device) < lengths[:, None]
    completions, logps = completions[:, :width].masked_fill(~completion_mask, pad_token_id), logps[:, :width]
    sequences, attention_mask = join(ids, mask, completions, completion_mask, pad_token_id)
    texts = Rollout(sequences, attention_mask, completions, completion_mask.float(), logps, mask.sum(1))
    return Particles(texts, cloud.weights, cloud.scores, cloud.num_resampled)
