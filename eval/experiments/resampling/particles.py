"""Texts of a model of words whose prefixes another one resamples, as a pool."""

import torch

from eval.experiments.resampling.pools import Pool
from hf_gpt.evaluation.language_model.word_model import WordModel
from hf_gpt.evaluation.text.vocabulary import BOS, EOS, PAD
from hf_gpt.generation.guidance.particle_filter import grow_particles
from hf_gpt.generation.sampling.distribution import SamplingConfig


def sample_by_particles(
    q: WordModel,
    psi: WordModel,
    number: int,
    *,
    particles: int,
    block: int,
    seed: int,
    q_temperature: float = 1.0,
    psi_temperature: float = 1.0,
    batch_size: int = 500,
) -> Pool:
    """Texts sampled from q, their prefixes resampled by the log-ratio of psi to q; see `grow_particles`.

    Args:
        q, psi: Language models of the same words, each at its temperature.
        number: Texts.
        particles: Prefixes of each text.
        block: Tokens sampled between two resamplings.
        seed: Of all samples.
        batch_size: Particles that a model reads at once.
    """
    generator = torch.Generator().manual_seed(seed)
    samples = grow_particles(
        q.model,
        psi.model,
        sampling=SamplingConfig(
            q_temperature,
            max_new_tokens=q.max_length + 1,
            num_return_sequences=number,
            bos_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=PAD,
        ),
        num_particles=particles,
        block_size=block,
        discriminator_temperature=psi_temperature,
        resampling="multinomial",
        generator=generator,
        batch_size=batch_size,
    ).sample(generator)
    return Pool(samples.sequences.int(), samples.attention_mask.sum(1))
