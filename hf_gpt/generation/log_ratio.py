"""The log-ratio of two language models of the same tokens, log psi - log q: psi as a critic of texts that q draws."""

import torch
from torch import nn

from hf_gpt.generation.likelihood import completion_logps, unwrap
from hf_gpt.generation.rollout import Rollout
from hf_gpt.generation.scoring import evaluating


def is_language_model(model: object) -> bool:
    """Whether a critic is a causal language model, and no classifier or function."""
    if not isinstance(model, nn.Module):
        return False
    inner = unwrap(model)
    inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    return hasattr(inner, "can_generate") and bool(inner.can_generate()) and not inner.config.is_encoder_decoder


@torch.no_grad()
def text_logps(
    model: nn.Module, texts: Rollout, temperature: float = 1.0, batch_size: int | None = None
) -> torch.Tensor:
    """(B,) float32 log-probability of each completion under a language model, without dropout.

    Args:
        model: A causal language model or an encoder-decoder of the texts' tokens.
        texts: B rows.
        temperature: Divides the logits.
        batch_size: Rows in a pass, of similar length. None: all.

    Raises:
        ValueError: the temperature is not above 0, or a text has a token that the model has not.
    """
    if temperature <= 0:
        raise ValueError(f"the temperature of a log-probability must be above 0, got {temperature}.")
    device = next(model.parameters()).device
    _check_tokens(unwrap(model), texts)
    found = torch.zeros(len(texts), device=texts.logps.device)
    with evaluating(model):
        for rows in texts.attention_mask.sum(1).argsort(stable=True).split(batch_size or max(1, len(texts))):
            part = texts.rows(rows).to(device)
            width = int(part.completion_mask.sum(1).max())
            whole = int(part.attention_mask.sum(1).max())
            places = (part.sequences[:, :whole], part.attention_mask[:, :whole], part.prompt_length)
            logps = completion_logps(model, *places, part.completions[:, :width], temperature)
            found[rows] = (logps * part.completion_mask[:, :width]).sum(1).to(found.device)
    return found


def log_ratio(
    psi: nn.Module,
    q: nn.Module,
    texts: Rollout,
    psi_temperature: float = 1.0,
    q_temperature: float = 1.0,
    batch_size: int | None = None,
) -> torch.Tensor:
    """(B,) log psi(y | x) - log q(y | x) of completions, each model at its temperature; see `text_logps`."""
    return text_logps(psi, texts, psi_temperature, batch_size) - text_logps(q, texts, q_temperature, batch_size)


def _check_tokens(model: nn.Module, texts: Rollout) -> None:
    size = model.config.get_text_config().vocab_size
    largest = int(texts.sequences.max()) if texts.sequences.numel() else 0
    if largest >= size:
        raise ValueError(
            f"a text has the token {largest}, but {type(model).__name__} has {size} tokens: a language model judges "
            "texts of its own tokenizer alone."
        )
