"""Texts of words as language models of them read and sample them."""

from collections.abc import Sequence

import torch

from hf_gpt.data.collators import pad_rows
from hf_gpt.evaluation.language_model.word_model import WordModel
from hf_gpt.evaluation.text.vocabulary import BOS, EOS, PAD, WordVocabulary
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.rollout import Rollout, rollout
from hf_gpt.generation.scoring.log_ratio import as_texts


def sampling_of(model: WordModel, number: int, **policy: float) -> SamplingConfig:
    """`number` whole texts of a model, by temperature, top-p and so on."""
    return SamplingConfig(
        max_new_tokens=model.max_length + 1,
        num_return_sequences=number,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        **policy,
    )


def sample_words(model: WordModel, number: int, seed: int, **policy: float) -> Rollout:
    """`number` texts of a model, by the seed."""
    generator = torch.Generator().manual_seed(seed)
    return rollout(model.model, sampling=sampling_of(model, number, **policy), generator=generator, batch_size=500)


def encode(texts: Sequence[Sequence[str]], vocabulary: WordVocabulary, max_words: int) -> Rollout:
    """Real texts as samples."""
    return as_texts(*pad_rows(vocabulary.encode(texts, max_words)), prompt_length=1)


def words_of(texts: Rollout, vocabulary: WordVocabulary) -> list[list[str]]:
    """The known words of each sample."""
    spelling = {number: word for word, number in vocabulary.numbers.items()}
    return [[spelling[token] for token in row if token in spelling] for row in texts.completions.tolist()]
