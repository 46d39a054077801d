"""A GGUF file as a checkpoint to convert."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedConfig

from hf_gpt.conversion.families import config_to_ours
from hf_gpt.conversion.gguf_layout import ROPE_FREQUENCIES, from_gguf, load_gguf, weight_names
from hf_gpt.conversion.gguf_tokenizer import mend_tokenizer
from hf_gpt.conversion.opening import Opened
from hf_gpt.errors import ConversionError
from hf_gpt.models.configuration_hf_gpt import HfGptConfig


# What Transformers makes a configuration of.
_READABLE = ("gpt2", "llama", "qwen2", "qwen3")
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class GgufSource:
    """The weights of a GGUF file under the names of Transformers. Only what is read is in memory.

    Values in blocks of few bits are read as float32, the others in their own dtype.

    Args:
        tensors: Those of `gguf.GGUFReader`.
        model_type: The family.
        config: The model as ours.

    Raises:
        ConversionError: the file holds weights that have no place in the family.
    """

    def __init__(self, tensors: list[Any], model_type: str, config: HfGptConfig):
        known = weight_names(model_type, config.num_hidden_layers)
        if left := sorted(tensor.name for tensor in tensors if tensor.name not in known):
            raise ConversionError(
                f"{len(left)} weights have no place in a {model_type} model, such as {', '.join(left[:3])}."
            )
        self._model_type, self._config = model_type, config
        self._tensors = {known[tensor.name].name: tensor for tensor in tensors}
        self._is_turned = {known[tensor.name].name: known[tensor.name].is_conv1d for tensor in tensors}
        self._last: tuple[str, torch.Tensor] | None = None
        self.names = tuple(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        # GGUF counts dimensions from the innermost on.
        shape = tuple(map(int, self._tensors[name].shape))
        return shape if self._is_turned[name] else shape[::-1]

    def dtype(self, name: str) -> torch.dtype:
        return _DTYPES.get(self._tensors[name].tensor_type.name, torch.float32)

    def read(self, name: str, dim: int, start: int, stop: int) -> torch.Tensor:
        # Parts of one weight are asked for one after the other.
        if self._last is None or self._last[0] != name:
            self._last = name, self._whole(name)
        return self._last[1].narrow(dim, start, stop - start)

    def _whole(self, name: str) -> torch.Tensor:
        tensor = self._tensors[name]
        kind, shape = tensor.tensor_type.name, tuple(map(int, tensor.shape))[::-1]
        if kind == "BF16":
            values = torch.from_numpy(np.array(tensor.data)).view(torch.bfloat16)
        elif kind in _DTYPES:
            values = torch.from_numpy(np.array(tensor.data))
        else:
            values = torch.from_numpy(load_gguf().quants.dequantize(tensor.data, tensor.tensor_type))
        return from_gguf(values.reshape(shape), tensor.name, self._model_type, self._config)


def open_gguf(path: Path, folder: Path, tokenizer: bool) -> Opened:
    """Opens a GGUF file.

    Settings and tokenizer are read by Transformers. Where it leaves a setting at its default or cuts texts by another
    pattern than the file names, the file holds.

    Args:
        path: Of the file.
        folder: An empty folder for its tokenizer and generation config.
        tokenizer: Whether the tokenizer is wanted.

    Raises:
        ConversionError: the file is damaged, or of an architecture or with settings that have no counterpart.
    """
    gguf = load_gguf()
    try:
        reader = gguf.GGUFReader(path)
        architecture = _value(reader, "general.architecture")
    # The reader trusts what the file says of itself: sizes, offsets, types.
    except (ValueError, KeyError, IndexError, OSError, MemoryError, UnicodeDecodeError) as error:
        raise ConversionError(f"{path} is damaged or cut off ({error}). Copy or download it again.") from error
    if architecture not in _READABLE:
        raise ConversionError(
            f"{path} is of the architecture {architecture}, which has no counterpart here. Choose a file of one of: "
            f"{', '.join(_READABLE)} (Mistral is a llama)."
        )
    config = _read_config(path, reader, architecture)
    ours, notes = config_to_ours(config)
    source = GgufSource(reader.tensors, architecture, ours)
    if any(tensor.tensor_type.name not in _DTYPES for tensor in reader.tensors):
        notes.append("weights in blocks of few bits were written as float32")
    if tokenizer and _value(reader, "tokenizer.ggml.model") not in (None, "none", "no_vocab"):
        notes += _save_tokenizer(path, reader, folder)
    settings = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    GenerationConfig(**settings).save_pretrained(folder)
    return Opened(architecture, ours, source, notes=notes, folder=folder)


def _value(reader: Any, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _read_config(path: Path, reader: Any, architecture: str) -> PreTrainedConfig:
    try:
        config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    # Keys that are missing, of other types, or unknown: each has an error of its own.
    except Exception as error:
        raise ConversionError(f"{path}: Transformers cannot read its settings: {error}") from error
    shapes = {tensor.name: tuple(map(int, tensor.shape)) for tensor in reader.tensors}
    if "token_embd.weight" not in shapes:
        raise ConversionError(f"{path} holds no token_embd.weight: it is no whole language model.")
    if ROPE_FREQUENCIES in shapes:
        raise ConversionError(
            f"{path} holds {ROPE_FREQUENCIES}, the computed positions of Llama 3, without the settings that they were "
            "computed from. Convert the Hugging Face checkpoint that it was made from."
        )
    config.vocab_size = shapes["token_embd.weight"][-1]
    config.tie_word_embeddings = "output.weight" not in shapes
    if architecture == "gpt2":
        config.n_positions = _value(reader, "gpt2.context_length")
        config.n_inner = _value(reader, "gpt2.feed_forward_length")
        config.layer_norm_epsilon = _short(config.layer_norm_epsilon)
    else:
        heads = config.num_attention_heads
        config.head_dim = _value(reader, f"{architecture}.attention.key_length") or config.hidden_size // heads
        config.rms_norm_eps = _short(config.rms_norm_eps)
        config.rope_parameters = _rope(path, reader, architecture)
        config.attention_bias = "blk.0.attn_q.bias" in shapes
        config.mlp_bias = "blk.0.ffn_up.bias" in shapes
    return config


def _short(value: float) -> float:
    """The decimal number that was meant by one kept in four bytes."""
    return float(str(np.float32(value)))


def _rope(path: Path, reader: Any, architecture: str) -> dict[str, Any]:
    theta = _value(reader, f"{architecture}.rope.freq_base")
    parameters = {"rope_type": "default", "rope_theta": 10000.0 if theta is None else _short(theta)}
    kind = _value(reader, f"{architecture}.rope.scaling.type")
    if kind in (None, "none"):
        return parameters
    if kind != "linear":
        raise ConversionError(
            f"{path} scales its positions by {kind!r} (rope.scaling.type), which is not read here. Convert the "
            "Hugging Face checkpoint that it was made from."
        )
    return {**parameters, "rope_type": kind, "factor": _short(_value(reader, f"{architecture}.rope.scaling.factor"))}


def _save_tokenizer(path: Path, reader: Any, folder: Path) -> list[str]:
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as error:
        raise ConversionError(
            f"{path}: Transformers cannot read its tokenizer: {error}. Convert the weights alone (--no_tokenizer)."
        ) from error
    notes = mend_tokenizer(tokenizer, _value(reader, "tokenizer.ggml.model"), _value(reader, "tokenizer.ggml.pre"))
    tokenizer.save_pretrained(folder)
    return notes
