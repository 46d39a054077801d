"""Log-weights of growing texts: how a discriminator weighs particles after each block of new tokens."""

from typing import Protocol

import torch
from torch import nn

from hf_gpt.generation.guidance.logits_processor import Scorer, as_scorer
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.rollout import Rollout
from hf_gpt.generation.scoring.discriminator import check_scores
from hf_gpt.generation.scoring.log_ratio import is_language_model, text_logps
from hf_gpt.generation.scoring.shared_tokens import check_shared_tokens


_PLAIN = SamplingConfig()


class LogWeight(Protocol):
    """Weighs the particles of a particle filter."""

    def __call__(self, before: torch.Tensor, samples: Rollout) -> torch.Tensor:
        """Float32 log-weights (n,) of prefixes together with the completions of `samples`.

        Args:
            before: (n,), log-weights of the prefixes alone.
            samples: The new tokens.
        """


def make_log_weight(
    discriminator: nn.Module | Scorer,
    model: nn.Module,
    psi_temperature: float = 1.0,
    q_sampling: SamplingConfig = _PLAIN,
    batch_size: int | None = None,
    has_logps: bool = True,
) -> LogWeight:
    """The log-weight of samples of q.

    Args:
        discriminator: A language model psi, with log-weight log psi - log q. Or a classifier with one label, or a
            function of sequences and mask, whose logit is the log-weight.
        model: q.
        psi_temperature: Divides the logits of psi.
        q_sampling: How q samples.
        batch_size: Texts read at a time.
        has_logps: Whether rollouts hold log-probabilities, so that q need not read them again.

    Raises:
        TokensError: a discriminator that is a model does not share q's tokens.
        ValueError: q takes the likeliest tokens, at temperature 0, and the log-weight is a log-ratio.
    """
    if isinstance(discriminator, nn.Module):
        check_shared_tokens(model, discriminator)
    if not is_language_model(discriminator):
        return _LogitLogWeight(as_scorer(discriminator, batch_size))
    if q_sampling.temperature == 0:
        raise ValueError("a log-ratio needs texts that are sampled: the temperature must be above 0, got 0.")
    return _LogRatioLogWeight(
        discriminator, SamplingConfig(psi_temperature), None if has_logps else model, q_sampling, batch_size
    )


class _LogRatioLogWeight:
    """Sums the log-ratios of tokens; a bare prompt has log-weight 0. `q` None: `logps` are known."""

    def __init__(self, psi, psi_sampling, q, q_sampling, batch_size):
        self.psi, self.psi_sampling = psi, psi_sampling
        self.q, self.q_sampling, self.batch_size = q, q_sampling, batch_size

    def __call__(self, before: torch.Tensor, samples: Rollout) -> torch.Tensor:
        own = samples.logps.sum(1)
        if self.q is not None:
            own = text_logps(self.q, samples, self.q_sampling, self.batch_size)
        added = text_logps(self.psi, samples, self.psi_sampling, self.batch_size) - own
        return before + check_scores(added, self.psi, may_rule_out=True).to(before)


class _LogitLogWeight:
    """The logit of each prefix, whatever the logit of the shorter one was."""

    def __init__(self, scorer: Scorer):
        self.scorer = scorer

    def __call__(self, before: torch.Tensor, samples: Rollout) -> torch.Tensor:
        return self.scorer(samples.sequences, samples.attention_mask).to(before)
