"""Token embeddings of any model, with adapters, shards and scales."""

import torch
from torch import nn

from hf_gpt import compat
from hf_gpt.models.inputs_hf_gpt import num_tokens


def vocabulary_size(model: nn.Module) -> int:
    """Number of token embeddings of a model, which may be more than its tokenizer has."""
    return num_tokens(model.get_input_embeddings(), model.config.get_text_config())


def embedding_table(embedding: nn.Module, size: int) -> torch.Tensor:
    """The embeddings of the first ids as the model sees them, with gradient: `(size, d)`.

    A wrapper, such as an adapter of some rows, and a scaling layer, such as Gemma's, are called: their `weight` is not
    what they return.

    Args:
        embedding: A model's input embeddings.
        size: Ids from 0 on.
    """
    if type(embedding) is nn.Embedding and not compat.has_forward_hooks(embedding):
        return embedding.weight[:size]
    device = next(embedding.parameters()).device
    return embedding(torch.arange(size, device=device))
