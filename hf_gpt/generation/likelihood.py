"""Log-probabilities of given completions under any language model, with gradients: the counterpart of `rollout`."""

import inspect

import torch
from torch import nn

from hf_gpt.generation.scoring import right_padded


def completion_logits(
    model: nn.Module,
    sequences: torch.Tensor,
    attention_mask: torch.Tensor,
    prompt_length: torch.Tensor,
    num_tokens: int,
) -> torch.Tensor:
    """Logits that each completion token was drawn from.

    Args:
        model: A causal language model, or an encoder-decoder, whose encoder reads the prompt.
        sequences: (B, T) int64, prompt then completion, padded at the right.
        attention_mask: (B, T), 1 at tokens.
        prompt_length: (B,) int64.
        num_tokens: C, tokens of the longest completion.

    Returns:
        (B, C, V): row b, place t holds the logits of `sequences[b, prompt_length[b] + t]`. What is beyond the end of a
        completion has no meaning.
    """
    inner = unwrap(model)
    if inner.config.is_encoder_decoder:
        return _encoder_decoder_logits(model, inner, sequences, attention_mask, prompt_length, num_tokens)
    inputs = {"input_ids": sequences, "attention_mask": attention_mask}
    accepted = accepted_arguments(inner)
    if "position_ids" in accepted:
        inputs["position_ids"] = positions_of(attention_mask)
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    # What no completion was drawn from is a large part of the work where prompts are long.
    first = int(prompt_length.min()) - 1
    kept = sequences.shape[1] - first
    if first and "logits_to_keep" in accepted:
        inputs["logits_to_keep"] = kept
    # Virtual tokens of an adapter stand in front.
    logits = model(**inputs).logits[:, -kept:]
    places = completion_places(prompt_length, num_tokens, sequences.shape[1]) - 1 - first
    return logits[torch.arange(len(places), device=places.device)[:, None], places]


def completion_logps(
    model: nn.Module,
    sequences: torch.Tensor,
    attention_mask: torch.Tensor,
    prompt_length: torch.Tensor,
    completions: torch.Tensor,
    temperature: float = 1.0,
) -> torch.Tensor:
    """(B, C) float32 log-probabilities of `completions` (B, C); arguments as for `completion_logits`.

    The logits are divided by `temperature`. Past the end of a completion they have no meaning: use its mask.
    """
    logits = completion_logits(model, sequences, attention_mask, prompt_length, completions.shape[1])
    return token_logps(logits if temperature == 1 else logits.float() / temperature, completions)


def token_logps(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """(..., ) float32 log-probability of each token under `logits` (..., V), without keeping log-softmax of all."""
    logits = logits.float()
    return logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)


def completion_places(prompt_length: torch.Tensor, num_tokens: int, length: int) -> torch.Tensor:
    """(B, C) int64: where in a row of `length` its completion tokens stand; past the end its last place."""
    places = prompt_length[:, None] + torch.arange(num_tokens, device=prompt_length.device)
    return places.clamp(max=length - 1)


def join(
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    completions: torch.Tensor,
    completion_mask: torch.Tensor,
    pad_token_id: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts and completions in one row each, without a gap, padded at the right.

    Args:
        prompt_ids: (B, P) int64, padded anywhere.
        prompt_mask: (B, P), 1 at tokens.
        completions: (B, C) int64.
        completion_mask: (B, C), 1 at tokens.
        pad_token_id: Fills the rows.

    Returns:
        (B, T) int64 tokens and (B, T) int64 mask, T the longest row.
    """
    ids = torch.cat([prompt_ids, completions], 1)
    mask = torch.cat([prompt_mask.bool(), completion_mask.bool()], 1)
    return right_padded(ids, mask, pad_token_id)


def left_padded(ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same rows, (B, L) int64 ids and mask, with their padding at the left and no column of padding alone."""
    order = mask.bool().to(torch.int8).argsort(dim=-1, stable=True)
    ids, mask = ids.gather(-1, order), mask.gather(-1, order)
    width = int(mask.sum(-1).max())
    return ids[:, ids.shape[1] - width :], mask[:, mask.shape[1] - width :]


def positions_of(mask: torch.Tensor) -> torch.Tensor:
    """(B, T) int64 positions that count tokens alone."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside a wrapper for several processes or compilation; an adapter stays."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif hasattr(model, "module") and not hasattr(model, "config"):
            model = model.module
        else:
            return model


def accepted_arguments(model: nn.Module) -> set[str]:
    """Names that the forward pass of a model takes; for one with an adapter those of the model inside."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return set(inspect.signature(inner.forward).parameters)


def decoder_start_token_id(model: nn.Module) -> int:
    """What the decoder of an encoder-decoder begins with.

    Raises:
        ValueError: its config names none.
    """
    for holder in (getattr(model, "generation_config", None), model.config):
        found = getattr(holder, "decoder_start_token_id", None)
        if found is not None:
            return found
    raise ValueError(f"{type(model).__name__} has no decoder_start_token_id: set model.config.decoder_start_token_id.")


def _encoder_decoder_logits(model, inner, sequences, attention_mask, prompt_length, num_tokens) -> torch.Tensor:
    places = torch.arange(sequences.shape[1], device=sequences.device)
    in_prompt = places < prompt_length[:, None]
    prompt_width = int(prompt_length.max())
    completions = sequences.gather(1, completion_places(prompt_length, num_tokens, sequences.shape[1]))
    start = torch.full_like(completions[:, :1], decoder_start_token_id(inner))
    return model(
        input_ids=sequences[:, :prompt_width],
        attention_mask=(attention_mask * in_prompt)[:, :prompt_width],
        decoder_input_ids=torch.cat([start, completions[:, :-1]], 1),
        use_cache=False,
    ).logits
