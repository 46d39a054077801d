"""A small language model over words, trained within minutes, behind LM score and reverse LM score."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_gpt.data.collators import pad_rows
from hf_gpt.evaluation.language_model.fitting import Fit, fit, over_rows, seeded
from hf_gpt.evaluation.text.vocabulary import BOS, EOS, PAD, WordVocabulary


if TYPE_CHECKING:
    from hf_gpt.models.modeling_hf_gpt import HfGptForCausalLM


class WordModel:
    """A GPT over whole words.

    Args:
        vocabulary: Its words.
        max_length: Words of a text that are read.
        hidden_size, num_hidden_layers: Its size.
        dropout: On embeddings and residual branches.
        seed: Of the weights.
    """

    def __init__(
        self,
        vocabulary: WordVocabulary,
        max_length: int = 64,
        hidden_size: int = 64,
        num_hidden_layers: int = 2,
        dropout: float = 0.1,
        seed: int = 0,
    ):
        from hf_gpt.models.configuration_hf_gpt import HfGptConfig
        from hf_gpt.models.modeling_hf_gpt import HfGptForCausalLM

        self.vocabulary = vocabulary
        self.max_length = max_length
        config = HfGptConfig(
            vocab_size=len(vocabulary),
            hidden_size=hidden_size,
            num_hidden_layers=num_hidden_layers,
            num_attention_heads=max(1, hidden_size // 32),
            max_position_embeddings=max_length + 2,
            hidden_dropout=dropout,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
        )
        with seeded(seed):
            self.model: HfGptForCausalLM = HfGptForCausalLM(config)

    def train(
        self,
        sentences: Sequence[Sequence[str]],
        validation: Sequence[Sequence[str]],
        *,
        epochs: int = 20,
        batch_size: int = 64,
        learning_rate: float = 3e-3,
        patience: int = 1,
        seed: int = 0,
        teacher: "WordModel | None" = None,
    ) -> Fit:
        """Learns the sentences until the likelihood of the validation sentences falls; keeps the best weights.

        Args:
            sentences, validation: Words of each text.
            epochs, batch_size, learning_rate, patience, seed: See `fit`.
            teacher: A model of the same words, whose next-word distributions are learned in place of the next words
                (https://arxiv.org/abs/1503.02531).
        """
        rows = self.vocabulary.encode([*sentences, *validation], self.max_length)
        positions = np.arange(len(rows))

        def loss(model: "HfGptForCausalLM", chosen: np.ndarray) -> tuple[torch.Tensor, float]:
            ids, mask = pad_rows([rows[position] for position in chosen])
            count = mask[:, 1:].sum()
            return self._losses(ids, mask, teacher if model.training else None).sum() / count, int(count)

        return fit(
            self.model,
            loss,
            [len(row) for row in rows],
            positions[: len(sentences)],
            positions[len(sentences) :],
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            patience=patience,
            seed=seed,
        )

    def nll(self, sentences: Sequence[Sequence[str]], batch_size: int = 256) -> tuple[np.ndarray, np.ndarray]:
        """Negative log-likelihood of each sentence in nats, its end included, and its tokens: both `(sentences,)`."""
        self.model.eval()
        rows = self.vocabulary.encode(sentences, self.max_length)
        nll = over_rows(lambda ids, mask: self._losses(ids, mask).double().sum(1), rows, batch_size)
        return nll, np.array([len(row) for row in rows]) - 1

    def features(self, sentences: Sequence[Sequence[str]], batch_size: int = 256) -> np.ndarray:
        """Last hidden states of each sentence, averaged over its tokens: float64 `(sentences, hidden_size)`."""
        self.model.eval()

        def read(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            states = self.model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state.double()
            return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

        return over_rows(read, self.vocabulary.encode(sentences, self.max_length), batch_size)

    def _losses(self, ids: torch.Tensor, mask: torch.Tensor, teacher: "WordModel | None" = None) -> torch.Tensor:
        """Loss of each predicted token, 0 at padding: `(rows, longest - 1)`, of ids and mask `(rows, longest)`."""
        logits = self.model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        # With the vocabulary in the middle, as `cross_entropy` takes logits of rows, it takes twice as long on a CPU.
        targets = ids[:, 1:].flatten()
        if teacher is not None:
            with torch.no_grad():
                taught = teacher.model(input_ids=ids, attention_mask=mask).logits[:, :-1]
            targets = taught.float().softmax(-1).flatten(0, 1)
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets, reduction="none")
        return losses.view_as(ids[:, 1:]) * mask[:, 1:]


def train_word_model(
    words: Sequence[Sequence[str]],
    learnt: Sequence[Sequence[str]],
    stopping: Sequence[Sequence[str]],
    *,
    seed: int = 0,
    max_length: int = 64,
    hidden_size: int = 64,
    num_hidden_layers: int = 2,
    epochs: int = 20,
    batch_size: int = 64,
) -> tuple[WordModel, int]:
    """A new model, and the epoch whose weights it has.

    Args:
        words: Tokens of the texts whose words it knows.
        learnt, stopping: Those that it learns, and those of early stopping.
        seed: Of weights and training.
        max_length, hidden_size, num_hidden_layers: Of the model.
        epochs, batch_size: Of its training.
    """
    model = WordModel(WordVocabulary(words), max_length, hidden_size, num_hidden_layers, seed=seed)
    record = model.train(learnt, stopping, epochs=epochs, batch_size=batch_size, seed=seed)
    return model, record.best_epoch


def lm_score(
    generated: Sequence[Sequence[str]], real: Sequence[Sequence[str]], *, seed: int = 0, **training: Any
) -> dict[str, float | int]:
    """Quality: nats per token of generated texts under a language model of real ones (https://arxiv.org/abs/1811.02549).

    Of the real texts 8/10 are learned, 1/10 is for early stopping and 1/10 is scored beside the generated ones, as the
    value of real texts. A generator below it writes likelier text than people, as at a low temperature.

    Args:
        generated, real: Tokens of each text; at least 20 real ones.
        seed: Of split, weights and training.
        training: Sizes and settings of `train_word_model`.

    Returns:
        `lm_score`, `lm_score_references`, `unknown_rate` of the generated words, `epochs`.
    """
    order = np.random.default_rng(seed).permutation(len(real))
    tenth = max(1, len(real) // 10)
    scored, stopping, learnt = ([real[n] for n in part] for part in np.split(order, [tenth, 2 * tenth]))
    model, epochs = train_word_model(real, learnt, stopping, seed=seed, **training)
    return {
        "lm_score": _mean(model, generated),
        "lm_score_references": _mean(model, scored),
        "unknown_rate": model.vocabulary.unknown_rate(generated),
        "epochs": epochs,
    }


def reverse_lm_score(
    generated: Sequence[Sequence[str]], real: Sequence[Sequence[str]], *, seed: int = 0, **training: Any
) -> dict[str, float | int]:
    """Diversity and quality: nats per token of real texts under a language model of generated texts alone.

    The vocabulary is that of the real texts. Half of them is for early stopping, the other half is scored. The score
    falls as the generated sample grows, so compare at equal numbers, and with real texts in place of generated ones.

    Source: https://arxiv.org/abs/1706.04223, https://arxiv.org/abs/1811.02549.

    Args:
        generated, real: Tokens of each text; at least 20 real ones.
        seed, training: As for `lm_score`.

    Returns:
        `reverse_lm_score`, `unknown_rate` of the generated words, `epochs`.
    """
    order = np.random.default_rng(seed).permutation(len(real))
    stopping, scored = ([real[n] for n in part] for part in np.split(order, [len(real) // 2]))
    model, epochs = train_word_model(real, generated, stopping, seed=seed, **training)
    return {
        "reverse_lm_score": _mean(model, scored),
        "unknown_rate": model.vocabulary.unknown_rate(generated),
        "epochs": epochs,
    }


def _mean(model: WordModel, sentences: Sequence[Sequence[str]]) -> float:
    nll, tokens = model.nll(sentences)
    return float(nll.sum() / tokens.sum())
