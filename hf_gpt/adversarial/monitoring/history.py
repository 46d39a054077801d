"""The latest scores and texts of a run, and the metrics that monitors take from them."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hf_gpt.adversarial.config import AdversarialConfig
from hf_gpt.adversarial.data.dataset import RowNumbers, SpecialTokens, TextRows
from hf_gpt.adversarial.monitoring import diagnostics as metrics
from hf_gpt.adversarial.monitoring.monitors import Alert, Monitors, Thresholds
from hf_gpt.data.collators import pad_rows


# Scores of each side before which an AUC says nothing, and texts before which their variety does not.
LEAST_SCORES, LEAST_TEXTS = 32, 128

# Tokens of training text whose n-grams are held in memory to see what is copied.
COPY_LIMIT = 5_000_000


@dataclass(frozen=True)
class ScoredText:
    """A generated text: its completion, the sum of its log-probabilities, its reward."""

    completion: tuple[int, ...]
    logp: float
    reward: float


class ScoreWindow:
    """The latest scores of real and generated texts.

    Args:
        size: Scores of each side that are kept.
        paired: Whether only scores of the same prompt can be compared.
    """

    def __init__(self, size: int, paired: bool):
        self.paired = paired
        self.real: deque[float] = deque(maxlen=size)
        self.generated: deque[float] = deque(maxlen=size)

    def add(self, real: torch.Tensor, generated: torch.Tensor) -> None:
        """Adds one-dimensional scores, pairs in the same order. Non-finite ones are left out, as they have no rank."""
        real, generated = real.float(), generated.float()
        kept = [real.isfinite(), generated.isfinite()]
        if self.paired and len(real) == len(generated):
            kept = [kept[0] & kept[1]] * 2
        self.real.extend(real[kept[0]].tolist())
        self.generated.extend(generated[kept[1]].tolist())

    @property
    def auc(self) -> float | None:
        """Probability that a real text scores above a generated one (paired: of its prompt); None: too few scores."""
        count = min(len(self.real), len(self.generated))
        if count < min(LEAST_SCORES, self.real.maxlen):
            return None
        if not self.paired:
            return metrics.auc(torch.tensor(list(self.real)), torch.tensor(list(self.generated)))
        real, generated = torch.tensor(list(self.real)[-count:]), torch.tensor(list(self.generated)[-count:])
        return ((real > generated).float().mean() + (real == generated).float().mean() / 2).item()

    @property
    def accuracy(self) -> float | None:
        """Share of texts on the right side of 0; None for pairs."""
        if self.paired or self.auc is None:
            return None
        return metrics.accuracy(torch.tensor(list(self.real)), torch.tensor(list(self.generated)))


class History:
    """Windows of scores and texts, and the monitors over them.

    Args:
        args: Sizes and thresholds.
        tokens: Special tokens, for the shortcut test.
        train_rows: Real texts that are trained on.
        eval_rows: Held-out real texts.
        paired: Whether only scores of the same prompt can be compared.
    """

    def __init__(
        self, args: AdversarialConfig, tokens: SpecialTokens, train_rows: TextRows, eval_rows: TextRows, paired: bool
    ):
        self.args, self.tokens = args, tokens
        self.train_rows, self.eval_rows = train_rows, eval_rows
        self.heldout = ScoreWindow(args.auc_window, paired)
        self.train = ScoreWindow(args.auc_window, paired)
        self.texts: deque[ScoredText] = deque(maxlen=min(args.auc_window, len(train_rows)))
        self.monitors = Monitors(thresholds=Thresholds(min_auc=args.gate_auc or None))
        self._row_numbers = RowNumbers(len(train_rows), args.seed)
        self._copies: dict[str, Any] | None = None

    @property
    def gate_open(self) -> bool:
        """Whether the generator may learn from the discriminator."""
        auc = self.heldout.auc
        return not self.args.gate_auc or (auc is not None and auc >= self.args.gate_auc)

    def add_texts(self, texts: Sequence[ScoredText]) -> None:
        """Adds generated texts."""
        self.texts.extend(texts)

    def judge(self, step: int, **given: float | None) -> list[Alert]:
        """Hands metrics of the latest texts, and those given, to the monitors; returns their alerts."""
        found = {
            "heldout_auc": self.heldout.auc,
            "train_auc": self.train.auc,
            "discriminator_accuracy": self.heldout.accuracy,
            **self._text_metrics(),
            **given,
        }
        return self.monitors.update(step, **found)

    def _text_metrics(self) -> dict[str, float]:
        texts = list(self.texts)
        if len(texts) < min(LEAST_TEXTS, self.texts.maxlen):
            return {}
        self._row_numbers.position = 0
        real = [self.train_rows[row]["completion_ids"] for row in self._row_numbers.take(len(texts))]
        generated = [text.completion for text in texts]
        tokens = sum(map(len, generated))
        found = {
            "entropy": -sum(text.logp for text in texts) / tokens,
            "distinct_ngrams": metrics.distinct_ngrams(generated, 3),
            "real_distinct_ngrams": metrics.distinct_ngrams(real, 3),
            "duplicate_rate": metrics.duplicate_rate(generated),
            "real_duplicate_rate": metrics.duplicate_rate(real),
            "repetition_rate": metrics.repetition_rate(generated),
            "real_repetition_rate": metrics.repetition_rate(real),
            "length_drift": metrics.length_drift(
                torch.tensor([len(text) for text in generated]), torch.tensor([len(text) for text in real])
            ),
            "shortcut_auc": metrics.shortcut_auc(self._format(real), self._format(generated)),
        }
        return found | self._copy_metrics(generated)

    def _format(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        return metrics.format_features(*pad_rows(texts, self.tokens.pad), sorted({self.tokens.bos, self.tokens.eos}))

    def _copy_metrics(self, generated: Sequence[Sequence[int]]) -> dict[str, float]:
        if self._copies is None:
            known = [row["completion_ids"] for row in self.train_rows.rows]
            self._copies = {}
            if sum(map(len, known)) <= COPY_LIMIT:
                held_out = [row["completion_ids"] for row in self.eval_rows.rows]
                rate = metrics.copy_rate(held_out, known)
                # Both samples vary, the held-out and the generated one.
                deviation = metrics.rate_deviation(rate, len(held_out)) + metrics.rate_deviation(
                    rate, self.texts.maxlen
                )
                self._copies = {"known": known, "real_copy_rate": rate, "real_copy_deviation": deviation}
        if not self._copies:
            return {}
        return {
            "copy_rate": metrics.copy_rate(generated, self._copies["known"]),
            "real_copy_rate": self._copies["real_copy_rate"],
            "real_copy_deviation": self._copies["real_copy_deviation"],
        }

    def state_dict(self) -> dict[str, Any]:
        """The state, in plain types."""
        return {
            "windows": [[list(window.real), list(window.generated)] for window in (self.heldout, self.train)],
            "texts": [[list(text.completion), text.logp, text.reward] for text in self.texts],
            "monitors": self.monitors.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a `state_dict`."""
        for window, (real, generated) in zip((self.heldout, self.train), state["windows"], strict=True):
            window.real.extend(real)
            window.generated.extend(generated)
        self.texts.extend(ScoredText(tuple(ids), logp, reward) for ids, logp, reward in state["texts"])
        self.monitors.load_state_dict(state["monitors"])
