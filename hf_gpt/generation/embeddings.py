"""Token embeddings of any model, read so that it does not matter what stands around them: adapters, shards, scales."""

import torch
from torch import nn

from hf_gpt import compat
from hf_gpt.models.inputs_hf_gpt import num_tokens


def vocabulary_size(model: nn.Module) -> int:
    """Token ids that a model reads: its embeddings, which may be more than its tokenizer has."""
    return num_tokens(model.get_input_embeddings(), model.config.get_text_config())


def embedding_table(embedding: nn.Module, size: int) -> torch.Tensor:
    """The embeddings of the first ids as the model sees them, with gradient: `(size, d)`.

    A wrapper, as of an adapter that trains some rows, and a layer that scales, as Gemma's, are asked rather than read:
    their `weight` is not what they give.

    Args:
        embedding: A model's input embeddings.
        size: Ids from 0 on.
    """
    if type(embedding) is nn.Embedding and not compat.has_forward_hooks(embedding):
        return embedding.weight[:size]
    device = next(embedding.parameters()).device
    return embedding(torch.arange(size, device=device))
