"""A particle filter: k beginnings of each text grow side by side and are drawn anew by what a critic says of them.

Of k whole texts a choice can gain at most log k nats, however far from the generator the critic's distribution is. Here
the choice is made again after every few tokens (sequential importance resampling, Gordon et al. 1993; of language
models Lew et al. 2023, arXiv:2306.03081), so that the gain grows with the length of the texts.
"""

import dataclasses
from collections.abc import Callable, Sequence
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
from hf_gpt.generation.sampling.rollout import Rollout, as_prompts, check_positions, rollout, special_tokens
from hf_gpt.generation.scoring.discriminator import check_length
from hf_gpt.generation.scoring.log_ratio import is_language_model
from hf_gpt.generation.scoring.logprobs import join, unwrap


Resampling = Literal["systematic", "multinomial"]
_RESAMPLING = {"systematic": resample_systematically, "multinomial": resample}

# A group whose effective number of particles is above this share of them is left alone: nearly equal weights need no
# new draw, which costs different beginnings.
RESAMPLED_BELOW = 0.5

# Draws the next tokens of beginnings: their numbers (n,), contexts and masks (n, T), padded at the left, the place
# in the completion and the number of tokens.
Sample = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int, int], "Block"]


@dataclasses.dataclass
class Block:
    """What n beginnings grew by.

    Attributes:
        samples: The new tokens as completions of what was there before.
        finished: (n,) bool, which texts ended.
    """

    samples: Rollout
    finished: torch.Tensor


@dataclasses.dataclass
class Particles:
    """k weighted continuations of each of B prompts.

    Attributes:
        texts: B k rows, those of a prompt adjacent. They share their beginnings where they were drawn anew.
        weights: (B, k) float32 on the CPU, each row summing to 1.
        scores: (B, k) float32 on the CPU, what the critic says of each whole text: its logit, or log psi - log q.
        num_resampled: (B,) int64, how often the particles were drawn anew.
    """

    texts: Rollout
    weights: torch.Tensor
    scores: torch.Tensor
    num_resampled: torch.Tensor

    @property
    def effective_sample_size(self) -> torch.Tensor:
        """(B,) float32 from 1 to k, of the weights left at the end."""
        return effective_sample_size(self.weights)

    def sample(self, generator: torch.Generator | None = None) -> Rollout:
        """One text for each prompt, by weight: (B,) rows."""
        return self.texts.rows(self.choose(generator))

    def choose(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """(B,) int64 numbers of rows of `texts`, drawn by weight."""
        groups, count = self.weights.shape
        chosen = resample(self.weights.log(), generator=generator)[:, 0]
        return (torch.arange(groups) * count + chosen).to(self.texts.sequences.device)


def grow_particles(
    model: nn.Module,
    discriminator: nn.Module | Scorer,
    prompt_ids: torch.Tensor | None = None,
    prompt_mask: torch.Tensor | None = None,
    *,
    max_new_tokens: int,
    num_particles: int = 16,
    block_size: int = 4,
    num_samples: int | None = None,
    num_return_sequences: int = 1,
    temperature: float = 1.0,
    discriminator_temperature: float = 1.0,
    resampling: Resampling = "systematic",
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int | None = None,
    bos_token_id: int | None = None,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> Particles:
    """Continuations of prompts, or texts from their beginning, drawn from q and resampled by a critic as they grow.

    The target is psi where the critic is a language model psi of the same tokens, whose weights are log psi - log q,
    each at its temperature; and q e^l, up to a factor for each prompt, where it gives logits l. With k = 1 particle the
    texts are those of q, as `rollout` draws them; they tend to the target as k grows. A critic that judges whole texts
    alone has the same limit, but the resampling on the way helps only if it judges unfinished ones well
    (`hf-gpt discriminator --level prefix`). A finished text keeps its weight.

    Args:
        model: q, a causal language model.
        discriminator: A causal language model; a sequence classifier with one label, over the generator's tokens; or a
            function of sequences and mask, (n, T) both, that returns (n,) logits.
        num_particles: k, of each text.
        block_size: Tokens drawn between two looks of the critic. Particles are drawn anew where their effective sample
            size is below k / 2.
        temperature: Of q.
        discriminator_temperature: Divides psi's logits of the next token, or l.
        resampling: `"systematic"`, whose draws vary less, or `"multinomial"`.
        batch_size: Particles that a model reads at a time; the texts do not depend on it. None: all.
        prompt_ids, prompt_mask, max_new_tokens, num_samples, num_return_sequences, eos_token_id, pad_token_id,
            bos_token_id, generator: As for `rollout`.

    Returns:
        The particles of every text, with weights; `.draw(generator)` takes one for each.

    Raises:
        ValueError: settings out of range, an encoder-decoder, more tokens than one of the models has positions for, or
            what `rollout` raises.
    """
    if unwrap(model).config.is_encoder_decoder:
        raise ValueError("grow_particles takes causal language models, not encoder-decoders.")
    device = next(model.parameters()).device
    ids, mask = as_prompts(prompt_ids, prompt_mask, num_samples, bos_token_id, device)
    ids, mask = (tensor.repeat_interleave(num_return_sequences, 0) for tensor in (ids, mask))
    check_positions(unwrap(model), ids.shape[1], max_new_tokens)
    if is_language_model(discriminator):
        check_positions(unwrap(discriminator), ids.shape[1], max_new_tokens)
    elif isinstance(discriminator, nn.Module):
        check_length(discriminator, int(mask.sum(1).max()) + max_new_tokens)
    ends, pad_token_id = special_tokens(eos_token_id, pad_token_id)
    # One number for each token of each particle: what one draws depends neither on the others nor on batches.
    uniforms = torch.rand(len(ids) * num_particles, max_new_tokens, dtype=torch.float64, generator=generator)

    def sample(
        rows: torch.Tensor, context: torch.Tensor, context_mask: torch.Tensor, position: int, count: int
    ) -> Block:
        samples = rollout(
            model,
            context,
            context_mask,
            max_new_tokens=count,
            temperature=temperature,
            eos_token_id=ends,
            pad_token_id=pad_token_id,
            uniforms=uniforms[rows.cpu(), position : position + count],
            batch_size=batch_size,
        )
        ended = torch.isin(samples.completions, torch.tensor(ends, device=device)) & samples.completion_mask.bool()
        return Block(samples, ended.any(1))

    log_weight = make_log_weight(discriminator, model, discriminator_temperature, temperature, batch_size)
    weight_temperature = 1.0 if is_language_model(discriminator) else discriminator_temperature
    cloud = ParticleFilter(len(ids), num_particles, weight_temperature, resampling, generator)
    return grow(sample, log_weight, cloud, ids, mask, max_new_tokens, block_size, pad_token_id)


class ParticleFilter:
    """The weights of B groups of k particles, and their resampling.

    Args:
        groups: B.
        particles: k.
        temperature: Divides what the weights are made of.
        resampling: As for `grow_particles`.
        generator: A CPU generator; None: the global one.

    Attributes:
        log_weights: (B, k) float32 on the CPU, up to a constant for each group.
        scores: (B, k) float32 on the CPU, what the critic says of the particles, whatever was drawn anew.
        num_resampled: (B,) int64.

    Raises:
        ValueError: no particle, no temperature above 0, or no such resampling.
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
            raise ValueError(f"the temperature of a critic must be above 0, got {temperature}.")
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
        """Weighs the particles by what they have gained since they were drawn, and draws anew where few weigh most.

        Args:
            scores: (B k,), what the critic says of the particles now. A particle is ruled out, by minus infinity, only
                as long as the critic does so: beginnings that it shuns may end well.
            growing: (B k,) bool, which go on. A group of none keeps its particles: weights tell more than a new draw.

        Returns:
            (B k,) int64: which particle now stands at each place; None where all stayed.
        """
        groups, particles = self.log_weights.shape
        self.scores = scores.detach().float().cpu().view(groups, particles)
        self.log_weights = (self.scores - self._sampled_at) / self.temperature
        # All ruled out: nothing is left to choose by.
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
    """The filter's loop, whatever draws tokens and whatever weighs them.

    Args:
        sample, log_weight: What does.
        cloud: Weights of the particles, as they are before the first token.
        prompt_ids, prompt_mask: (B, L) int64, padded at the left.
        max_new_tokens, block_size, pad_token_id: As for `grow_particles`.
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
        # Whoever still grows has grown as much as all others that do.
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
