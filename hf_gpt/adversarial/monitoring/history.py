"""What is remembered of the latest scores and texts, and the figures that monitors judge a run by."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hf_gpt.adversarial.config import AdversarialConfig
from hf_gpt.adversarial.data.dataset import RowNumbers, SpecialTokens, TextRows
from hf_gpt.adversarial.monitoring import diagnostics as figures
from hf_gpt.adversarial.monitoring.monitors import Monitors, Thresholds, Warning_


# Scores of each side before which an AUC says nothing, and texts before which their variety does not.
LEAST_SCORES, LEAST_TEXTS = 32, 128

# Tokens of training text whose n-grams are held in memory to see what is copied.
COPY_LIMIT = 5_000_000


@dataclass(frozen=True)
class GeneratedText:
    """A generated text as it is remembered: its completion, the sum of its log-probabilities, its reward."""

    completion: tuple[int, ...]
    logp: float
    reward: float


class ScoreWindow:
    """The latest scores of real and generated texts.

    Args:
        size: Scores of each side that are kept.
        paired: Whether scores can be compared only with the one of the same prompt.
    """

    def __init__(self, size: int, paired: bool):
        self.paired = paired
        self.real: deque[float] = deque(maxlen=size)
        self.fake: deque[float] = deque(maxlen=size)

    def add(self, real: torch.Tensor, fake: torch.Tensor) -> None:
        """Adds scores, one-dimensional; of pairs in the same order. Those that are not finite are left out: they can be
        neither above nor below others."""
        real, fake = real.float(), fake.float()
        kept = [real.isfinite(), fake.isfinite()]
        if self.paired and len(real) == len(fake):
            kept = [kept[0] & kept[1]] * 2
        self.real.extend(real[kept[0]].tolist())
        self.fake.extend(fake[kept[1]].tolist())

    @property
    def auc(self) -> float | None:
        """Probability that a real text scores above a generated one, of its prompt if paired; None: too few scores."""
        count = min(len(self.real), len(self.fake))
        if count < min(LEAST_SCORES, self.real.maxlen):
            return None
        if not self.paired:
            return figures.auc(torch.tensor(list(self.real)), torch.tensor(list(self.fake)))
        real, fake = torch.tensor(list(self.real)[-count:]), torch.tensor(list(self.fake)[-count:])
        return ((real > fake).float().mean() + (real == fake).float().mean() / 2).item()

    @property
    def accuracy(self) -> float | None:
        """Share of texts on the right side of 0, which for pairs has no meaning."""
        if self.paired or self.auc is None:
            return None
        return figures.accuracy(torch.tensor(list(self.real)), torch.tensor(list(self.fake)))


class Watch:
    """Windows of scores and texts, and the monitors over them.

    Args:
        args: Sizes and thresholds.
        tokens: Special tokens, for the shortcut test.
        train_rows: Real texts that are trained on.
        eval_rows: Held-out real texts.
        paired: Whether the discriminator's scores mean something within a prompt alone.
    """

    def __init__(
        self, args: AdversarialConfig, tokens: SpecialTokens, train_rows: TextRows, eval_rows: TextRows, paired: bool
    ):
        self.args, self.tokens = args, tokens
        self.train_rows, self.eval_rows = train_rows, eval_rows
        self.heldout = ScoreWindow(args.auc_window, paired)
        self.train = ScoreWindow(args.auc_window, paired)
        self.texts: deque[GeneratedText] = deque(maxlen=min(args.auc_window, len(train_rows)))
        self.monitors = Monitors(thresholds=Thresholds(min_auc=args.gate_auc or None))
        self._sample = RowNumbers(len(train_rows), args.seed)
        self._copies: dict[str, Any] | None = None

    @property
    def gate_open(self) -> bool:
        """Whether the generator may learn from the discriminator."""
        auc = self.heldout.auc
        return not self.args.gate_auc or (auc is not None and auc >= self.args.gate_auc)

    def add_texts(self, texts: Sequence[GeneratedText]) -> None:
        """Remembers generated texts."""
        self.texts.extend(texts)

    def judge(self, step: int, **given: float | None) -> list[Warning_]:
        """Figures of the remembered texts and those given, put before the monitors."""
        found = {
            "heldout_auc": self.heldout.auc,
            "train_auc": self.train.auc,
            "discriminator_accuracy": self.heldout.accuracy,
            **self._text_figures(),
            **given,
        }
        return self.monitors.update(step, **found)

    def _text_figures(self) -> dict[str, float]:
        texts = list(self.texts)
        if len(texts) < min(LEAST_TEXTS, self.texts.maxlen):
            return {}
        self._sample.position = 0
        real = [self.train_rows[row]["completion_ids"] for row in self._sample.take(len(texts))]
        fake = [text.completion for text in texts]
        tokens = sum(map(len, fake))
        found = {
            "entropy": -sum(text.logp for text in texts) / tokens,
            "distinct_ngrams": figures.distinct_ngrams(fake, 3),
            "real_distinct_ngrams": figures.distinct_ngrams(real, 3),
            "duplicate_rate": figures.duplicate_rate(fake),
            "real_duplicate_rate": figures.duplicate_rate(real),
            "repetition_rate": figures.repetition_rate(fake),
            "real_repetition_rate": figures.repetition_rate(real),
            "length_drift": figures.length_drift(
                torch.tensor([len(text) for text in fake]), torch.tensor([len(text) for text in real])
            ),
            "shortcut_auc": figures.shortcut_auc(self._format(real), self._format(fake)),
        }
        return found | self._copy_figures(fake)

    def _format(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        width = max(map(len, texts))
        ids = torch.full((len(texts), width), self.tokens.pad)
        mask = torch.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)], mask[row, : len(text)] = torch.tensor(text), 1
        return figures.format_features(ids, mask, sorted({self.tokens.bos, self.tokens.eos}))

    def _copy_figures(self, fake: Sequence[Sequence[int]]) -> dict[str, float]:
        if self._copies is None:
            known = [row["completion_ids"] for row in self.train_rows.rows]
            self._copies = {}
            if sum(map(len, known)) <= COPY_LIMIT:
                held_out = [row["completion_ids"] for row in self.eval_rows.rows]
                rate = figures.copy_rate(held_out, known)
                # Of the two samples together: the generated one is drawn too.
                deviation = figures.rate_deviation(rate, len(held_out)) + figures.rate_deviation(
                    rate, self.texts.maxlen
                )
                self._copies = {"known": known, "real_copy_rate": rate, "real_copy_deviation": deviation}
        if not self._copies:
            return {}
        return {
            "copy_rate": figures.copy_rate(fake, self._copies["known"]),
            "real_copy_rate": self._copies["real_copy_rate"],
            "real_copy_deviation": self._copies["real_copy_deviation"],
        }

    def state_dict(self) -> dict[str, Any]:
        """All that is remembered, in plain types."""
        return {
            "windows": [[list(window.real), list(window.fake)] for window in (self.heldout, self.train)],
            "texts": [[list(text.completion), text.logp, text.reward] for text in self.texts],
            "monitors": self.monitors.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a `state_dict`."""
        for window, (real, fake) in zip((self.heldout, self.train), state["windows"], strict=True):
            window.real.extend(real)
            window.fake.extend(fake)
        self.texts.extend(GeneratedText(tuple(ids), logp, reward) for ids, logp, reward in state["texts"])
        self.monitors.load_state_dict(state["monitors"])
