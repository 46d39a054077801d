"""Resampling while texts are being drawn: a particle filter, for texts too long to be chosen among as a whole.

Of k whole texts a choice can gain at most log k nats, however far the critic's distribution is. Here k beginnings of
each text grow side by side, and after every few tokens are drawn anew by what a causal critic's logit has gained in
them (sequential importance resampling, Gordon et al. 1993; of language models Lew et al. 2023, arXiv:2306.03081).
"""

import torch

from hf_gpt.eval.experiments.resampling.pools import Pool
from hf_gpt.eval.language_model.word_model import WordModel
from hf_gpt.eval.vocabulary import BOS, EOS, PAD
from hf_gpt.generation.likelihood import token_logps
from hf_gpt.generation.resampling import effective_sample_size, importance_weights, resample
from hf_gpt.generation.rollout import rollout


def draw_by_particles(
    q: WordModel,
    psi: WordModel,
    number: int,
    *,
    particles: int,
    block: int,
    seed: int,
    q_temperature: float = 1.0,
    psi_temperature: float = 1.0,
    batch_size: int = 4000,
) -> Pool:
    """Texts drawn from q, their beginnings resampled by the log-ratio of psi to q.

    Args:
        q, psi: Language models of the same words, each at its temperature.
        number: Texts.
        particles: Beginnings of each text, k. With k = 1 they are samples of q, as it grows they become those of psi.
        block: Tokens drawn between two resamplings. A group is left alone while the effective number of its particles
            is above k / 2.
        seed: Of all draws.
        batch_size: Particles that grow at once.
    """
    generator = torch.Generator().manual_seed(seed)
    groups = max(1, batch_size // particles)
    parts = []
    for start in range(0, number, groups):
        count = min(groups, number - start)
        parts.append(
            _grow(
                q, psi, count, particles, block, generator, q_temperature=q_temperature, psi_temperature=psi_temperature
            )
        )
    width = q.max_length + 2
    return Pool(torch.cat([part.ids[:, :width] for part in parts]), torch.cat([part.lengths for part in parts]))


@torch.no_grad()
def _grow(q, psi, count, particles, block, generator, *, q_temperature, psi_temperature) -> Pool:
    width = q.max_length + 2
    ids = torch.full((count * particles, width), PAD)
    ids[:, 0] = BOS
    lengths = torch.ones(len(ids), dtype=torch.long)
    weights = torch.zeros(count, particles)
    starts = (torch.arange(count) * particles)[:, None]
    for place in range(1, width, block):
        # A text that goes on is as long as all others that do.
        growing = (ids[:, place - 1] != EOS) & (lengths == place)
        if not growing.any():
            break
        end = min(place + block, width)
        drawn = rollout(
            q.model,
            ids[growing, :place],
            max_new_tokens=end - place,
            temperature=q_temperature,
            eos_token_id=EOS,
            pad_token_id=PAD,
            generator=generator,
            batch_size=1000,
        )
        fresh = torch.full((len(drawn), end - place), PAD)
        fresh[:, : drawn.completions.shape[1]] = drawn.completions
        ids[growing, place:end] = fresh
        lengths[growing] += drawn.completion_mask.sum(1).long()
        inside = torch.arange(place, end) < lengths[growing, None]
        gained = torch.zeros(len(ids))
        gained[growing] = _gain(psi, ids[growing, :end], inside, psi_temperature) - _gain(
            q, ids[growing, :end], inside, q_temperature
        )
        weights += gained.view(count, particles)
        # Weights that are nearly equal need no new draw, which costs different beginnings.
        poor = effective_sample_size(importance_weights(weights)) < particles / 2
        chosen = torch.arange(particles).repeat(count, 1)
        if poor.any():
            chosen[poor] = resample(weights[poor], particles, generator=generator)
        weights[poor] = 0.0
        rows = (starts + chosen).flatten()
        ids, lengths = ids[rows], lengths[rows]
    last = (starts + resample(weights, generator=generator))[:, 0]
    return Pool(ids[last].int(), lengths[last])


def _gain(model: WordModel, ids: torch.Tensor, inside: torch.Tensor, temperature: float) -> torch.Tensor:
    """(n,) log-probability of the last tokens of each row of ids (n, T), those that `inside` (n, block) names."""
    count = inside.shape[1]
    found = torch.empty(len(ids))
    for rows in torch.arange(len(ids)).split(256):
        logits = model.model(input_ids=ids[rows], logits_to_keep=count + 1).logits[:, :-1] / temperature
        found[rows] = (token_logps(logits, ids[rows, -count:]) * inside[rows]).sum(1)
    return found
