"""The last layer of a model that is asked for one token of each row: queries, output and MLP at that token alone."""

import torch
from torch import nn
from transformers.cache_utils import Cache

from .configuration_hf_gpt import HfGptConfig
from .pooling_hf_gpt import last_token_positions, token_mask


def at_positions(states: torch.Tensor, positions: torch.LongTensor) -> torch.Tensor:
    """`states` (batch_size or 1, sequence_length, ...) at one position of each row, of shape `(batch_size, 1, ...)`."""
    states = states.expand(len(positions), *states.shape[1:])
    positions = positions.to(states.device)
    return states[torch.arange(len(positions), device=states.device), positions][:, None]


def can_query_positions(model: nn.Module, attention_mask: torch.Tensor | None) -> bool:
    """Whether the last layer of a decoder works out single tokens: of a mask by rows, and where nobody looks on."""
    is_by_rows = attention_mask is None or (isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 4)
    watched = (model.layers[model.config.num_hidden_layers - 1], model.norm)
    return (
        is_by_rows
        and model.config._attn_implementation in ("eager", "sdpa")
        and not any(module._forward_hooks or module._forward_pre_hooks for module in watched)
    )


def mask_at_positions(
    config: HfGptConfig,
    attention_mask: torch.Tensor | None,
    positions: torch.LongTensor,
    hidden_states: torch.Tensor,
    past_key_values: Cache | None,
) -> torch.Tensor | None:
    """
    The rows of a mask (batch_size or 1, heads or 1, sequence_length, keys) at these positions, of shape
    `(batch_size, heads or 1, 1, keys)`. No mask stands for a causal one, which a single query would take for none.
    """
    if attention_mask is not None:
        return at_positions(attention_mask.transpose(1, 2), positions).transpose(1, 2)
    if not config.is_causal or config._attn_implementation == "eager":
        return None
    past_length = 0 if past_key_values is None else past_key_values.get_seq_length()
    keys = torch.arange(past_length + hidden_states.shape[1], device=hidden_states.device)
    return (keys <= positions.to(keys.device)[:, None] + past_length)[:, None, None]


def positions_to_pool(
    model: nn.Module,
    input_ids: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    inputs_embeds: torch.Tensor | None,
    **kwargs,
) -> torch.LongTensor | None:
    """The last token of each row, where that is all that a classifier's inputs are to be pooled from; else None."""
    inputs = input_ids if inputs_embeds is None else inputs_embeds
    recorded = (kwargs.get(name, getattr(model.config, name)) for name in ("output_hidden_states", "output_attentions"))
    if inputs is None or 0 in inputs.shape[:2] or any(recorded):
        return None
    return last_token_positions(token_mask(input_ids, attention_mask, inputs, model.config.pad_token_id))
