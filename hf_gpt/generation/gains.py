"""What a critic's log-weight of growing texts becomes with the tokens that they grew by."""

from typing import Protocol

import torch
from torch import nn

from hf_gpt.generation.guided import Scorer, as_scorer
from hf_gpt.generation.log_ratio import is_language_model, text_logps
from hf_gpt.generation.rollout import Rollout


class Gain(Protocol):
    """The critic of a particle filter."""

    def __call__(self, before: torch.Tensor, drawn: Rollout) -> torch.Tensor:
        """(n,) float32 log-weights of beginnings with the completions of `drawn`, which were `before` (n,) without."""


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
        critic: A language model psi, whose log-weight is log psi - log q; a classifier with one label or a function of
            sequences and mask, whose log-weight is its logit.
        model: q.
        psi_temperature, q_temperature: Divide the logits of their next tokens.
        batch_size: Texts read at a time.
        has_logps: Whether rollouts hold q's log-probabilities, which are then not computed again at temperature 1.
    """
    if not is_language_model(critic):
        return _LogitGain(as_scorer(critic, batch_size))
    return _LogRatioGain(critic, model, psi_temperature, q_temperature, batch_size, has_logps)


class _LogRatioGain:
    """Tokens are judged one by one, so that the log-weight of a beginning adds up; of a bare prompt it is 0."""

    def __init__(self, psi, q, psi_temperature, q_temperature, batch_size, has_logps):
        self.psi, self.q, self.batch_size = psi, q, batch_size
        self.psi_temperature, self.q_temperature = psi_temperature, q_temperature
        self.has_logps = has_logps and q_temperature == 1

    def __call__(self, before: torch.Tensor, drawn: Rollout) -> torch.Tensor:
        own = drawn.logps.sum(1) if self.has_logps else text_logps(self.q, drawn, self.q_temperature, self.batch_size)
        gained = text_logps(self.psi, drawn, self.psi_temperature, self.batch_size) - own
        return before + gained.to(before)


class _LogitGain:
    """The logit of each beginning, whatever was said of the shorter one."""

    def __init__(self, scorer: Scorer):
        self.scorer = scorer

    def __call__(self, before: torch.Tensor, drawn: Rollout) -> torch.Tensor:
        return self.scorer(drawn.sequences, drawn.attention_mask).to(before)
