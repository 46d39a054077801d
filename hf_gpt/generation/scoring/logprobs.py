"""Log-probabilities of given completions under any language model, with gradients: the counterpart of `rollout`."""

import contextlib

import torch
from torch import nn

from hf_gpt import compat
from hf_gpt.generation.sampling.activation_cache import ActivationCache
from hf_gpt.generation.sampling.distribution import SamplingConfig, at_least_float32
from hf_gpt.generation.sampling.shared_prompts import (
    LEAST_SHARE,
    SharedPrompts,
    completion_inputs,
    completion_positions,
    read_prompts,
)
from hf_gpt.generation.scoring.discriminator import accepted_arguments, right_padded
from hf_gpt.models.language_head_hf_gpt import HfGptLanguageHeadMixin


def completion_logits(
    model: nn.Module,
    sequences: torch.Tensor,
    attention_mask: torch.Tensor,
    prompt_length: torch.Tensor,
    num_tokens: int,
    activation_cache: ActivationCache | None = None,
) -> torch.Tensor:
    """Logits that each completion token was sampled from.

    Args:
        model: A causal language model, or an encoder-decoder, whose encoder reads the prompt.
        sequences: (B, T) int64, prompt then completion, padded at the right.
        attention_mask: (B, T), 1 at tokens.
        prompt_length: (B,) int64.
        num_tokens: C, tokens of the longest completion.
        activation_cache: Filled by the rollout of these texts, if any.

    Returns:
        (B, C, V): `[b, t]` holds the logits of the token `sequences[b, prompt_length[b] + t]`. Values past the end of a
        completion have no meaning.
    """
    inner = unwrap(model)
    if inner.config.is_encoder_decoder:
        return _encoder_decoder_logits(model, inner, sequences, attention_mask, prompt_length, num_tokens)
    length = sequences.shape[1]
    positions = completion_positions(prompt_length, num_tokens, length) - 1
    if isinstance(model, HfGptLanguageHeadMixin):
        if activation_cache is not None and not activation_cache.is_of(model, sequences.gather(1, positions + 1)):
            activation_cache = None
        least_share = LEAST_SHARE if activation_cache is None else 0
        shared = read_prompts(model, sequences, prompt_length, least_share)
        if shared is not None:
            return _logits_after(model, shared, sequences, attention_mask, positions, activation_cache)
    inputs = {"input_ids": sequences, "attention_mask": attention_mask}
    accepted = accepted_arguments(inner)
    if "position_ids" in accepted:
        inputs["position_ids"] = positions_of(attention_mask)
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    if isinstance(inner, HfGptLanguageHeadMixin):
        return model(**inputs, logits_to_keep=positions).logits
    # Counted from the end, since virtual tokens of an adapter come first.
    positions = positions - length
    if "logits_to_keep" not in accepted:
        return _picked(model(**inputs).logits, positions)
    # Other heads keep the same positions in all rows. One synchronisation reads all three numbers.
    are_alike = (positions[:, 0] == positions[0, 0]).all()
    first, last, alike = torch.stack([*positions.aminmax(), are_alike.long()]).tolist()
    logits = model(**inputs, logits_to_keep=torch.arange(first, last + 1, device=positions.device)).logits
    return logits if alike and last - first + 1 == num_tokens else _picked(logits, positions - last - 1)


def _logits_after(
    model: HfGptLanguageHeadMixin,
    shared: SharedPrompts,
    sequences: torch.Tensor,
    attention_mask: torch.Tensor,
    positions: torch.Tensor,
    activation_cache: ActivationCache | None,
) -> torch.Tensor:
    """Logits at `positions` (B, C), of which the first is the last token of the prompt."""
    hidden_states = shared.last_hidden_states[shared.whose, None]
    if positions.shape[1] > 1:
        inputs = completion_inputs(shared, sequences, attention_mask, positions[:, 1:])
        with contextlib.nullcontext() if activation_cache is None else activation_cache.of_trunk(model):
            hidden_states = torch.cat([hidden_states, model.model(**inputs).last_hidden_state], 1)
    with contextlib.nullcontext() if activation_cache is None else activation_cache.of_head(model):
        return model._loss_and_logits(hidden_states, None)[1]


def completion_logps(
    model: nn.Module,
    sequences: torch.Tensor,
    attention_mask: torch.Tensor,
    prompt_length: torch.Tensor,
    completions: torch.Tensor,
    temperature: float = 1.0,
    *,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    support: torch.Tensor | None = None,
) -> torch.Tensor:
    """(B, C) float32 log-probabilities of `completions` (B, C), with gradient.

    They are those of the policy that `rollout` samples from, by default the model's own distribution. The support is
    fixed: no gradient moves a token into it or out of it. A token outside has minus infinity. Past the end of a
    completion the values are finite and have no meaning: use its mask.

    Args:
        model, sequences, attention_mask, prompt_length: As for `completion_logits`.
        temperature, top_p, top_k, min_p: As in `SamplingConfig`; at temperature 0 the likeliest token has 0.
        support: (B, C, ceil(V / 8)) uint8, the tokens that could be sampled, as in `Rollout.support`. None: those of
            these logits, where rounding may move a token at the border.
    """
    logits = completion_logits(model, sequences, attention_mask, prompt_length, completions.shape[1])
    sampling = SamplingConfig(temperature, top_p, top_k, min_p)
    logps = token_logps(sampling.policy_logits(logits, support), completions)
    if not sampling.is_truncated and temperature > 0:
        return logps
    lengths = attention_mask.sum(-1) - prompt_length
    positions = torch.arange(completions.shape[1], device=lengths.device)
    # Minus infinity at padding times a mask of 0 would be nan.
    return logps.masked_fill(positions >= lengths[:, None], 0.0)


def token_logps(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """(...,) log-probability of each token under `logits` (..., V), in float32 or float64."""
    if logits.device.type != "cpu" or type(logits) is not torch.Tensor or torch.compiler.is_compiling():
        logits = at_least_float32(logits)
        return logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)
    flat = logits.reshape(-1, logits.shape[-1])
    return _TokenLogps.apply(flat, tokens.expand(logits.shape[:-1]).reshape(-1))[0].reshape(logits.shape[:-1])


# Logits that `_TokenLogps` handles at a time: 1 MB in float32, which fits a core's cache.
_CHUNK_ELEMENTS = 2**18


class _TokenLogps(torch.autograd.Function):
    """Log-softmax of (N, V) at one token of each row, and its normaliser.

    On a CPU each operation is a pass over memory. Autograd would take three times as many passes, and four tensors of
    the size of the logits.
    """

    @staticmethod
    def forward(logits, tokens):
        normaliser = torch.cat([at_least_float32(part).logsumexp(-1) for part in logits.split(_chunk_rows(logits))])
        return at_least_float32(logits.gather(-1, tokens[:, None])[:, 0]) - normaliser, normaliser

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx, grad, _):
        logits, tokens, normaliser = ctx.saved_tensors
        if torch.is_grad_enabled():
            # The gradient is differentiated again.
            wide = at_least_float32(logits)
            chosen = torch.zeros_like(wide).scatter_(-1, tokens[:, None], 1.0)
            return ((chosen - wide.softmax(-1)) * grad[:, None]).to(logits.dtype), None
        grad_logits = torch.empty_like(logits)
        columns = (logits, grad_logits, normaliser[:, None], -grad[:, None])
        for part, out, shift, scale in zip(*(each.split(_chunk_rows(logits)) for each in columns), strict=True):
            part = torch.sub(part, shift, out=out if out.dtype == shift.dtype else None).exp_().mul_(scale)
            if part is not out:
                out.copy_(part)
        return grad_logits.scatter_add_(-1, tokens[:, None], grad.to(logits.dtype)[:, None]), None


def _chunk_rows(logits: torch.Tensor) -> int:
    return max(1, _CHUNK_ELEMENTS // logits.shape[-1])


def _picked(logits: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return logits[torch.arange(len(positions), device=positions.device)[:, None], positions]


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
    """The same rows, (B, L) int64 ids and mask, padded at the left and cut to the longest."""
    order = mask.bool().to(torch.int8).argsort(dim=-1, stable=True)
    ids, mask = ids.gather(-1, order), mask.gather(-1, order)
    width = int(mask.sum(-1).max())
    return ids[:, ids.shape[1] - width :], mask[:, mask.shape[1] - width :]


def positions_of(mask: torch.Tensor) -> torch.Tensor:
    """(B, T) int64 positions that count only tokens."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside a wrapper for several processes or compilation; an adapter stays."""
    while True:
        inner = compat.uncompiled(model)
        if inner is not None:
            model = inner
        elif hasattr(model, "module") and not hasattr(model, "config"):
            model = model.module
        else:
            return model


def decoder_start_token_id(model: nn.Module) -> int:
    """The first token of an encoder-decoder's decoder.

    Raises:
        ValueError: its config names none.
    """
    for holder in (getattr(model, "generation_config", None), model.config):
        found = getattr(holder, "decoder_start_token_id", None)
        if found is not None:
            return found
    raise ValueError(f"{type(model).__name__} has no decoder_start_token_id: set model.config.decoder_start_token_id.")


def _encoder_decoder_logits(model, inner, sequences, attention_mask, prompt_length, num_tokens) -> torch.Tensor:
    positions = torch.arange(sequences.shape[1], device=sequences.device)
    in_prompt = positions < prompt_length[:, None]
    prompt_width = int(prompt_length.max())
    completions = sequences.gather(1, completion_positions(prompt_length, num_tokens, sequences.shape[1]))
    start = torch.full_like(completions[:, :1], decoder_start_token_id(inner))
    return model(
        input_ids=sequences[:, :prompt_width],
        attention_mask=(attention_mask * in_prompt)[:, :prompt_width],
        decoder_input_ids=torch.cat([start, completions[:, :-1]], 1),
        use_cache=False,
    ).logits
