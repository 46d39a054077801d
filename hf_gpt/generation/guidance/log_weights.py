"""What a critic's log-weight of growing texts becomes with the tokens that they grew by."""

from typing import Protocol

import torch
from torch import nn

from hf_gpt.generation.guidance.logits_processor import Scorer, as_scorer
from hf_gpt.generation.sampling.distribution import Sampling
from hf_gpt.generation.sampling.rollout import Rollout
from hf_gpt.generation.scoring.discriminator import check_scores
from hf_gpt.generation.scoring.log_ratio import is_language_model, text_logps
from hf_gpt.generation.scoring.shared_tokens import check_shared_tokens


class LogWeight(Protocol):
    """The critic of a particle filter."""

    def __call__(self, before: torch.Tensor, samples: Rollout) -> torch.Tensor:
        """Float32 log-weights (n,) of prefixes with the completions of `samples`; `before` (n,) is without."""


def make_log_weight(
    discriminator: nn.Module | Scorer,
    model: nn.Module,
    psi_temperature: float = 1.0,
    q_temperature: float = 1.0,
    batch_size: int | None = None,
    has_logps: bool = True,
    q_sampling: Sampling | None = None,
) -> LogWeight:
    """The gain of a critic of q's texts.

    Args:
        discriminator: A language model psi, log-weight log psi - log q; a classifier with one label or a function of
            sequences and mask, whose log-weight is its logit.
        model: q.
        psi_temperature, q_temperature: Divide the logits of their next tokens.
        batch_size: Texts read at a time.
        has_logps: Whether rollouts hold the log-probabilities that they were sampled by, and need not be read again.
        q_sampling: How q samples, in place of `q_temperature`.

    Raises:
        TokensError: a critic that is a model does not share q's tokens.
    """
    if isinstance(discriminator, nn.Module):
        check_shared_tokens(model, discriminator)
    if not is_language_model(discriminator):
        return _LogitLogWeight(as_scorer(discriminator, batch_size))
    q_sampling = q_sampling or Sampling(q_temperature)
    return _LogRatioLogWeight(discriminator, model, psi_temperature, q_sampling, batch_size, has_logps)


class _LogRatioLogWeight:
    """Tokens are judged one by one, so that the log-weight of a beginning adds up; of a bare prompt it is 0."""

    def __init__(self, psi, q, psi_temperature, q_sampling, batch_size, has_logps):
        if q_sampling.temperature == 0:
            raise ValueError("a log-ratio needs texts that are sampled: the temperature must be above 0, got 0.")
        self.psi, self.q, self.batch_size = psi, q, batch_size
        self.psi_temperature, self.q_sampling, self.has_logps = psi_temperature, q_sampling, has_logps

    def __call__(self, before: torch.Tensor, samples: Rollout) -> torch.Tensor:
        if self.has_logps:
            own = samples.logps.sum(1)
        else:
            own = text_logps(self.q, samples, batch_size=self.batch_size, sampling=self.q_sampling)
        gained = text_logps(self.psi, samples, self.psi_temperature, self.batch_size) - own
        return before + check_scores(gained, self.psi, may_rule_out=True).to(before)


class _LogitLogWeight:
    """The logit of each beginning, whatever was said of the shorter one."""

    def __init__(self, scorer: Scorer):
        self.scorer = scorer

    def __call__(self, before: torch.Tensor, samples: Rollout) -> torch.Tensor:
        return self.scorer(samples.sequences, samples.attention_mask).to(before)
