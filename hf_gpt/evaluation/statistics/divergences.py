"""Divergences between two language models: both KL divergences, JSD and entropies."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from hf_gpt.generation.sampling.rollout import Rollout
from hf_gpt.generation.scoring.discriminator import evaluating
from hf_gpt.generation.scoring.logprobs import completion_logits, token_logps


@dataclass(frozen=True)
class Estimate:
    """A mean over samples and its standard error."""

    value: float
    error: float


@dataclass(frozen=True)
class Comparison:
    """Divergences between two densities, from samples of both.

    Attributes:
        estimates: In nats per text: `kl_qp` KL(q || p), `kl_pq` KL(p || q), `jsd`, `entropy_q` H(q), `entropy_p` H(p),
            `nll_oracle` -E_q log p, `nll_test` -E_p log q.
        data_scores: log p/q of each text of the data, (B,): the logit of the perfect discriminator.
        model_scores: The same of each text of the model.
    """

    estimates: dict[str, Estimate]
    data_scores: torch.Tensor
    model_scores: torch.Tensor


@torch.no_grad()
def compare_densities(
    data_model: nn.Module,
    model: nn.Module,
    data_texts: Rollout,
    model_texts: Rollout,
    temperature: float = 1.0,
    batch_size: int = 1000,
) -> Comparison:
    """Divergences between the data's distribution p and the model's q over completions of the same prompts.

    All but the JSD sample only the prefixes and take the expectation over each next token exactly: unbiased, with less
    variance. The JSD is the mean over samples of both sides.

    Args:
        data_model: The language model whose samples are the data.
        model: The other one; same vocabulary.
        data_texts: Samples of `data_model` at temperature 1.
        model_texts: Samples of `model` at `temperature`.
        temperature: Of the model: q(v | s) is softmax(logits / temperature).
        batch_size: Texts in a forward pass.
    """
    at_data = _sums(data_model, model, data_texts, temperature, batch_size)
    at_model = _sums(data_model, model, model_texts, temperature, batch_size)
    estimates = {
        "kl_qp": _mean(at_model["cross_qp"] - at_model["entropy_q"]),
        "kl_pq": _mean(at_data["cross_pq"] - at_data["entropy_p"]),
        "entropy_q": _mean(at_model["entropy_q"]),
        "entropy_p": _mean(at_data["entropy_p"]),
        "nll_oracle": _mean(at_model["cross_qp"]),
        "nll_test": _mean(at_data["cross_pq"]),
    }
    # log 2p/(p + q) at the data, log 2q/(p + q) at the model's samples.
    data_side = _mean(math.log(2) - torch.nn.functional.softplus(-at_data["score"]))
    model_side = _mean(math.log(2) - torch.nn.functional.softplus(at_model["score"]))
    jsd = Estimate((data_side.value + model_side.value) / 2, math.hypot(data_side.error, model_side.error) / 2)
    return Comparison(estimates | {"jsd": jsd}, at_data["score"], at_model["score"])


def _sums(data_model, model, texts: Rollout, temperature: float, batch_size: int) -> dict[str, torch.Tensor]:
    """Sums over the tokens of each text, (B,) float64: log p/q, and what to expect of each next token."""
    parts: dict[str, list[torch.Tensor]] = {}
    with evaluating(data_model), evaluating(model):
        for start in range(0, len(texts), batch_size):
            rows = slice(start, start + batch_size)
            mask = texts.completion_mask[rows].double()
            inputs = (texts.sequences[rows], texts.attention_mask[rows], texts.prompt_length[rows], mask.shape[1])
            log_p = completion_logits(data_model, *inputs).double().log_softmax(-1)
            log_q = (completion_logits(model, *inputs).double() / temperature).log_softmax(-1)
            p, q, chosen = log_p.exp(), log_q.exp(), texts.completions[rows]
            for name, per_token in (
                ("score", token_logps(log_p, chosen) - token_logps(log_q, chosen)),
                ("entropy_p", -(p * log_p).sum(-1)),
                ("entropy_q", -(q * log_q).sum(-1)),
                ("cross_pq", -(p * log_q).sum(-1)),
                ("cross_qp", -(q * log_p).sum(-1)),
            ):
                parts.setdefault(name, []).append((per_token * mask).sum(1))
    return {name: torch.cat(values) for name, values in parts.items()}


def _mean(values: torch.Tensor) -> Estimate:
    return Estimate(values.mean().item(), (values.std() / math.sqrt(len(values))).item())
