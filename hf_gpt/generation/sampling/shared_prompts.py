"""Texts that share prompts: each prompt is read once, and all completions use its keys and values."""

import dataclasses

import torch
from torch import nn
from transformers import DynamicCache

from hf_gpt import compat
from hf_gpt.models.modeling_hf_gpt import HfGptModel


# Prompts are shared where that saves at least this share of all tokens, since it needs a mask.
LEAST_SHARE = 1 / 16


@dataclasses.dataclass
class SharedPrompts:
    """P different prompts of B texts, with gradient.

    Attributes:
        whose: (B,) int64, the prompt of each text.
        mask: (P, L) int64, 1 at tokens, padded at the left.
        last_hidden_states: (P, d), of the last token of each prompt.
        cache: Keys and values of each text's prompt.
    """

    whose: torch.Tensor
    mask: torch.Tensor
    last_hidden_states: torch.Tensor
    cache: DynamicCache


def read_prompts(
    model: nn.Module, sequences: torch.Tensor, prompt_length: torch.Tensor, least_share: float = LEAST_SHARE
) -> SharedPrompts | None:
    """The prompts of texts, each read once; None where that is not possible or does not pay.

    It is possible for our plain causal models without dropout. The trunk is called directly, so the model's forward
    pass must not be hooked.

    Args:
        model: Any model.
        sequences: (B, T) int64, prompt then completion, padded at the right.
        prompt_length: (B,) int64.
        least_share: Share of all tokens that must be saved.
    """
    if not _can_share(model, sequences):
        return None
    length = int(prompt_length.max())
    # Padded at the left, since a sliding window would count a gap before the completions.
    positions = torch.arange(length, device=sequences.device) - (length - prompt_length[:, None])
    ids = torch.where(positions >= 0, sequences.gather(1, positions.clamp(min=0)), -1)
    different, whose = torch.unique(ids, dim=0, return_inverse=True)
    if len(whose) * length - different.numel() < least_share * sequences.numel():
        return None
    mask = (different >= 0).long()
    cache = DynamicCache()
    hidden_states = model.model(
        input_ids=different.clamp(min=0),
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[whose], layer.values[whose]
    return SharedPrompts(whose, mask, hidden_states[:, -1], cache)


def completion_positions(prompt_length: torch.Tensor, num_tokens: int, length: int) -> torch.Tensor:
    """(B, C) int64: positions of completion tokens in a row of `length`; past the end its last position."""
    positions = prompt_length[:, None] + torch.arange(num_tokens, device=prompt_length.device)
    return positions.clamp(max=length - 1)


def completion_inputs(
    shared: SharedPrompts, sequences: torch.Tensor, attention_mask: torch.Tensor, positions: torch.Tensor
) -> dict:
    """Continues shared prompts: arguments of a forward pass over the tokens at `positions` (B, C) of the texts."""
    # Past the end of a row its last position repeats.
    mask = attention_mask.gather(1, positions) * (positions.diff(prepend=positions[:, :1] - 1) > 0)
    return {
        "input_ids": sequences.gather(1, positions),
        "attention_mask": torch.cat([shared.mask[shared.whose], mask], 1),
        "position_ids": positions,
        "past_key_values": shared.cache,
        "use_cache": True,
    }


def _can_share(model: nn.Module, sequences: torch.Tensor) -> bool:
    trunk = getattr(model, "model", None)
    if type(trunk) is not HfGptModel or sequences.device.type != "cpu" or "forward" in vars(model):
        return False
    config = trunk.config
    drops = config.attention_dropout or config.hidden_dropout
    return (
        config.is_causal
        and compat.attention_implementation(config) in ("sdpa", "eager")
        and not (model.training and (drops or any(layer.gradient_checkpointing for layer in trunk.layers)))
        and not compat.has_forward_hooks(model)
    )
