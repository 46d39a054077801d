"""What a critic's log-weight of growing texts gains in the tokens that they grew by."""

from typing import Protocol

import torch
from torch import nn

from hf_gpt.generation.guided import Scorer, as_scorer
from hf_gpt.generation.log_ratio import is_language_model, text_logps
from hf_gpt.generation.rollout import Rollout


class Gain(Protocol):
    """The critic of a particle filter."""

    def __call__(self, rows: torch.Tensor, drawn: Rollout) -> torch.Tensor:
        """(n,) float32 gained by these beginnings, numbers (n,), in the completions of `drawn`."""

    def select(self, chosen: torch.Tensor) -> None:
        """Each place holds the beginning that was at place `chosen` (all,) before."""


def make_gain(
    critic: nn.Module | Scorer,
    model: nn.Module,
    psi_temperature: float = 1.0,
    q_temperature: float = 1.0,
    batch_size: int | None = None,
    has_logps: bool = True,
) -> Gain:
    """The gain of a critic of q's texts.

    Args:
        critic: A language model psi, which gains log psi - log q; a classifier with one label or a function of
            sequences and mask, which gains what its logit does.
        model: q.
        psi_temperature, q_temperature: Divide the logits of their next tokens.
        batch_size: Texts read at a time.
        has_logps: Whether rollouts hold q's log-probabilities, which are then not computed again at temperature 1.
    """
    if not is_language_model(critic):
        return _LogitGain(as_scorer(critic, batch_size))
    return _LogRatioGain(critic, model, psi_temperature, q_temperature, batch_size, has_logps)


class _LogRatioGain:
    def __init__(self, psi, q, psi_temperature, q_temperature, batch_size, has_logps):
        self.psi, self.q, self.batch_size = psi, q, batch_size
        self.psi_temperature, self.q_temperature = psi_temperature, q_temperature
        self.has_logps = has_logps and q_temperature == 1

    def __call__(self, rows: torch.Tensor, drawn: Rollout) -> torch.Tensor:
        own = drawn.logps.sum(1) if self.has_logps else text_logps(self.q, drawn, self.q_temperature, self.batch_size)
        return text_logps(self.psi, drawn, self.psi_temperature, self.batch_size) - own

    def select(self, chosen: torch.Tensor) -> None:
        """Nothing to do: tokens are judged one by one."""


class _LogitGain:
    """Logit of each beginning less that of the shorter one; of a bare prompt 0, as all its particles share it."""

    def __init__(self, scorer: Scorer):
        self.scorer = scorer
        self.scores: torch.Tensor | None = None

    def __call__(self, rows: torch.Tensor, drawn: Rollout) -> torch.Tensor:
        scores = self.scorer(drawn.sequences, drawn.attention_mask).float().to(rows.device)
        if self.scores is None:
            # All grow at first.
            self.scores = torch.zeros_like(scores)
        before = self.scores[rows]
        # From nothing, where the filter has forgotten a group of which all were ruled out; in others they stay so.
        gained = scores - before.masked_fill(before == -torch.inf, 0.0)
        self.scores[rows] = scores
        return gained

    def select(self, chosen: torch.Tensor) -> None:
        self.scores = self.scores[chosen]
