"""Texts sampled from a model in large batches, and their log-probabilities under any other of the same words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hf_gpt.evaluation.language_model.word_model import WordModel
from hf_gpt.evaluation.text.vocabulary import BOS, EOS, PAD, WordVocabulary, pad_rows
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.rollout import rollout
from hf_gpt.generation.scoring.logprobs import token_logps


@dataclass
class Pool:
    """Texts as a model reads them.

    Attributes:
        ids: (n, T) int32, behind the begin token and padded at the right.
        lengths: (n,) int64, tokens of each, begin and end included.
    """

    ids: torch.Tensor
    lengths: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def mask(self) -> torch.Tensor:
        """(n, T) int64, 1 at tokens."""
        return (torch.arange(self.ids.shape[1]) < self.lengths[:, None]).long()

    def rows(self, chosen: torch.Tensor) -> "Pool":
        """The texts of some rows, by their numbers."""
        return Pool(self.ids[chosen], self.lengths[chosen])

    def words(self, vocabulary: WordVocabulary) -> list[list[str]]:
        """The texts without special tokens."""
        spelling = {number: word for word, number in vocabulary.numbers.items()}
        return [[spelling[token] for token in ids if token in spelling] for ids in self.ids.tolist()]


def encode(texts: Sequence[Sequence[str]], vocabulary: WordVocabulary, max_words: int) -> Pool:
    """Real texts as a pool."""
    rows = vocabulary.encode(texts, max_words)
    return Pool(pad_rows(rows)[0].int(), torch.from_numpy(np.array([len(row) for row in rows])))


def sample(model: WordModel, number: int, *, temperature: float = 1.0, top_p: float = 1.0, seed: int) -> Pool:
    """`number` texts of a model, by the seed."""
    samples = rollout(
        model.model,
        sampling=SamplingConfig(
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=model.max_length + 1,
            num_return_sequences=number,
            bos_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=PAD,
        ),
        generator=torch.Generator().manual_seed(seed),
        batch_size=1000,
    )
    return Pool(samples.sequences.int(), samples.attention_mask.sum(1))


@torch.no_grad()
def text_logps(model: WordModel, pool: Pool, temperature: float = 1.0, batch_size: int = 64) -> torch.Tensor:
    """(n,) float32 log-probabilities of whole texts under a model at a temperature, which divides its logits."""
    model.model.eval()
    found = torch.empty(len(pool))
    # Texts of one length need no padding.
    for rows in pool.lengths.argsort(stable=True).split(batch_size):
        ids = pool.ids[rows, : int(pool.lengths[rows].max())].long()
        inside = torch.arange(1, ids.shape[1]) < pool.lengths[rows, None]
        logits = model.model(input_ids=ids).logits[:, :-1]
        if temperature != 1:
            logits = logits / temperature
        found[rows] = (token_logps(logits, ids[:, 1:]) * inside).double().sum(1).float()
    return found
