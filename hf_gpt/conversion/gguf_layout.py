"""How GGUF (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) lays a model family out, for both directions."""

from dataclasses import dataclass
from typing import Any

import torch

from hf_gpt.conversion.names import TheirWeight, their_weights
from hf_gpt.errors import ConversionError
from hf_gpt.installation import install_hint
from hf_gpt.models.configuration_hf_gpt import HfGptConfig


@dataclass(frozen=True)
class Layout:
    """An architecture of llama.cpp.

    Attributes:
        name: Its name there.
        activations: Those of `hidden_act` that its code computes.
        pairs_neighbours: Whether its rotary embedding turns neighbouring dimensions instead of the two halves of a
            head, so that rows of the query and key projections lie in another order.
        is_transposed: Whether Transformers keeps its projections as (inputs, outputs), which GGUF never does.
    """

    name: str
    activations: tuple[str, ...] = ("silu",)
    pairs_neighbours: bool = False
    is_transposed: bool = False


# By model type, first those that a model becomes if it can: one with fewer parts stands before one with more.
LAYOUTS = {
    "llama": Layout("llama", pairs_neighbours=True),
    "qwen2": Layout("qwen2"),
    "qwen3": Layout("qwen3"),
    "arcee": Layout("arcee", ("relu2",), pairs_neighbours=True),
    "gpt2": Layout("gpt2", ("gelu_new", "gelu_pytorch_tanh"), is_transposed=True),
    "mistral": Layout("llama", pairs_neighbours=True),
}
# Computed frequencies of Llama 3's positions.
ROPE_FREQUENCIES = "rope_freqs.weight"
_TURNED = ("attn_q.weight", "attn_k.weight", "attn_q.bias", "attn_k.bias")


def load_gguf() -> Any:
    """The package `gguf`.

    Raises:
        ConversionError: it is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise ConversionError(f"GGUF files need the package gguf: {install_hint('gguf')}") from error
    return gguf


def weight_names(model_type: str, num_hidden_layers: int) -> dict[str, TheirWeight]:
    """Every weight that a model of a family with so many layers may have, by its name in GGUF."""
    gguf = load_gguf()
    architectures = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(architectures[LAYOUTS[model_type].name], num_hidden_layers)
    found = {}
    for name, weight in their_weights(model_type, num_hidden_layers).items():
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if theirs is not None:
            found[theirs] = weight
    return found


def to_gguf(tensor: torch.Tensor, name: str, model_type: str, config: HfGptConfig) -> torch.Tensor:
    """A weight of Transformers as GGUF keeps it.

    Args:
        tensor: The weight, (outputs, inputs), (inputs, outputs) or (outputs,).
        name: Its name in GGUF.
        model_type: The family.
        config: Of the model.
    """
    layout = LAYOUTS[model_type]
    if layout.is_transposed and tensor.ndim == 2 and name.startswith("blk."):
        return tensor.T.contiguous()
    heads = _turned_heads(name, layout, config)
    if heads is None:
        return tensor
    halves = tensor.reshape(heads, 2, config.head_dim // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape).contiguous()


def from_gguf(tensor: torch.Tensor, name: str, model_type: str, config: HfGptConfig) -> torch.Tensor:
    """A weight of GGUF as Transformers keeps it; `to_gguf` the other way round."""
    layout = LAYOUTS[model_type]
    if layout.is_transposed and tensor.ndim == 2 and name.startswith("blk."):
        return tensor.T.contiguous()
    heads = _turned_heads(name, layout, config)
    if heads is None:
        return tensor
    pairs = tensor.reshape(heads, config.head_dim // 2, 2, *tensor.shape[1:])
    return pairs.transpose(1, 2).reshape(tensor.shape).contiguous()


def _turned_heads(name: str, layout: Layout, config: HfGptConfig) -> int | None:
    if not layout.pairs_neighbours or not name.endswith(_TURNED):
        return None
    return config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
