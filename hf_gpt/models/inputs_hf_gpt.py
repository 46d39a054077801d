"""What inputs say of themselves: ids in range, positions, and which tokens see each other."""

from collections.abc import Callable

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from .configuration_hf_gpt import HfGptConfig


def check_range(name: str, ids: torch.Tensor, size: int, field: str) -> None:
    """Raises `ValueError` for an id outside 0 to `size` - 1. On a CPU: elsewhere it would wait for the device."""
    if ids.device.type != "cpu" or ids.numel() == 0 or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    low, high = torch.aminmax(ids)
    if low < 0 or high >= size:
        worst = (low if low < 0 else high).item()
        remedy = "use the tokenizer that belongs to this model, or model.resize_token_embeddings(len(tokenizer))"
        if name == "position_ids":
            remedy = "shorten the input (truncation=True, max_length=...), or train with position_embedding_type='rope'"
        raise ValueError(f"{name} holds {worst}, outside 0 to {size - 1} (config.{field}={size}): {remedy}.")


def check_not_empty(name: str, inputs: torch.Tensor, takes_no_rows: bool = False) -> None:
    """Raises `ValueError` for inputs (rows, tokens, ...) of no token or, unless those are taken, of no row."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    if inputs.shape[1] == 0 or (inputs.shape[0] == 0 and not takes_no_rows):
        what = "token" if inputs.shape[1] == 0 else "row"
        remedy = "give a text at least one, such as the token that begins texts" if what == "token" else "leave it out"
        raise ValueError(f"{name} of shape {tuple(inputs.shape[:2])} hold no {what}: {remedy}.")


def num_tokens(embedding: nn.Module, config: PreTrainedConfig) -> int:
    """Token ids that an embedding has, or what the configuration says where a wrapper around it does not tell."""
    return getattr(embedding, "num_embeddings", config.vocab_size)


def count_tokens(past_key_values: Cache | None, layer_idx: int, hidden_states: torch.Tensor) -> None:
    """Has a cache know how many tokens were read, which it looks up at a layer that another stage may have."""
    if past_key_values is not None:
        counted = hidden_states.new_zeros(*hidden_states.shape[:2], 1)[:, None]
        past_key_values.update(counted, counted, layer_idx)


def document_ids(position_ids: torch.LongTensor) -> torch.LongTensor:
    """Number from 0 of the document that each token of packed rows belongs to, of the shape of `position_ids`."""
    return (position_ids.diff(dim=-1, prepend=position_ids[:, :1] - 1) != 1).cumsum(-1)


def _same_document_function(position_ids: torch.LongTensor, batch_size: int) -> Callable | None:
    """Mask function of packed documents, which begin where positions do not go on by one; None if there is one only."""
    documents = document_ids(position_ids).expand(batch_size, -1)
    if not torch.compiler.is_compiling() and not documents.any():
        return None

    def same_document(batch_idx, head_idx, q_idx, kv_idx):
        return documents[batch_idx, q_idx] == documents[batch_idx, kv_idx]

    return same_document


def default_position_ids(
    config: HfGptConfig,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor | None,
    past_key_values: Cache | None,
) -> torch.LongTensor:
    """Positions of `inputs_embeds` (batch_size, sequence_length, hidden_size), of shape `(1 or batch_size, length)`."""
    length = inputs_embeds.shape[1]
    # RoPE sees differences of positions alone; learned positions must not count the padding on the left.
    if (
        config.position_embedding_type == "learned"
        and isinstance(attention_mask, torch.Tensor)
        and attention_mask.ndim == 2
    ):
        return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -length:]
    past_length = past_key_values.get_seq_length() if past_key_values is not None else 0
    return (torch.arange(length, device=inputs_embeds.device) + past_length).unsqueeze(0)


def create_masks(
    config: HfGptConfig,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor | None,
    past_key_values: Cache | None,
    position_ids: torch.LongTensor,
) -> dict[str, torch.Tensor | None]:
    """The mask of each type of layer, as the attention of choice reads it."""
    if inputs_embeds.device.type == "meta":
        # There is nothing to read in tensors that have shapes alone.
        attention_mask = position_ids = None
    mask_kwargs = {
        "config": config,
        "inputs_embeds": inputs_embeds,
        "attention_mask": attention_mask,
        "past_key_values": past_key_values,
        "position_ids": position_ids,
    }
    # The library finds packed documents for causal masks only.
    if not config.is_causal and attention_mask is None and past_key_values is None and position_ids is not None:
        mask_kwargs["and_mask_function"] = _same_document_function(position_ids, inputs_embeds.shape[0])
    masks = {"full_attention": create_causal_mask(**mask_kwargs)}
    if "sliding_attention" in config.layer_types:
        masks["sliding_attention"] = create_sliding_window_causal_mask(**mask_kwargs)
    return masks


__all__ = [
    "check_not_empty",
    "check_range",
    "count_tokens",
    "create_masks",
    "default_position_ids",
    "document_ids",
    "num_tokens",
]
