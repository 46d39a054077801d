"""Weights of one family under the names of another, a shard at a time."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PreTrainedConfig

from hf_gpt.conversion.names import COMPUTED, DEFAULT_PREFIX, PREFIXES, TheirWeight, by_our_names, their_weights
from hf_gpt.conversion.sources import INDEX, Source
from hf_gpt.errors import ConversionError
from hf_gpt.models.configuration_hf_gpt import HfGptConfig


Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Planned:
    """A weight that is to be written."""

    theirs: TheirWeight
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_elements(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.num_elements * self.dtype.itemsize


def expected_shapes(config: PreTrainedConfig) -> Shapes:
    """Names and shapes of the weights that the language model of a configuration saves, from the model itself."""
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    # Sizes that overflow, activations that do not exist, RoPE without its settings: each has an error of its own.
    except Exception as error:
        raise ConversionError(f"no model can be made of this {config.model_type} configuration: {error}") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        for name in model.all_tied_weights_keys:
            shapes.pop(name, None)
    return shapes


class Reader:
    """The weights of HfGpt, read from where another family keeps them.

    Args:
        source: The weights as they lie there.
        model_type: Whose names they have.
        config: The model as HfGpt sees it.

    Raises:
        ConversionError: a weight is missing, has another shape than the configuration says, or belongs nowhere.
    """

    def __init__(self, source: Source, model_type: str, config: HfGptConfig):
        self._source = source
        # Before a model of that many is built, even one without memory.
        if config.num_hidden_layers > len(source.names):
            raise ConversionError(
                f"weights are missing: num_hidden_layers={config.num_hidden_layers}, but there are only "
                f"{len(source.names)} weights."
            )
        self._shapes = expected_shapes(config)
        self._theirs = by_our_names(their_weights(model_type, config.num_hidden_layers).values())
        prefix = PREFIXES.get(model_type, DEFAULT_PREFIX)
        has_prefix = any(name.startswith(prefix) for name in source.names)
        heads = ("lm_head.", prefix)
        self._names = {
            name if has_prefix or name.startswith(heads) else prefix + name: name
            for name in source.names
            if not any(re.fullmatch(pattern, name if has_prefix else "." + name) for pattern in COMPUTED)
        }
        self._check(config)

    @property
    def shapes(self) -> Shapes:
        """Names and shapes of all weights of HfGpt."""
        return self._shapes

    def dtype(self, name: str) -> torch.dtype:
        """The dtype of a weight of HfGpt."""
        return self._source.dtype(self._names[self._theirs[name].name])

    def read(self, name: str) -> torch.Tensor:
        """A weight of HfGpt."""
        theirs = self._theirs[name]
        start = self._start(name, theirs)
        stop = start + self._shapes[name][0]
        stored = self._names[theirs.name]
        tensor = self._source.read(stored, 1 if theirs.is_conv1d else 0, start, stop)
        return tensor.T if theirs.is_conv1d else tensor

    def _start(self, name: str, theirs: TheirWeight) -> int:
        return sum(self._shapes[part][0] for part in theirs.parts[: theirs.parts.index(name)])

    def _check(self, config: HfGptConfig) -> None:
        used = {self._theirs[name].name: self._theirs[name] for name in self._shapes}
        missing = [name for name in used if name not in self._names]
        if missing:
            raise ConversionError(f"{len(missing)} weights are missing, such as {', '.join(missing[:3])}.")
        left = sorted(set(self._names) - set(used))
        head = self._theirs["lm_head.weight"].name
        if config.tie_word_embeddings and head in left:
            left.remove(head)
            self._check_tied(head)
        if left:
            raise ConversionError(
                f"{len(left)} weights have no place in a language model of these settings, such as "
                f"{', '.join(left[:3])}."
            )
        for name, theirs in used.items():
            rows = sum(self._shapes[part][0] for part in theirs.parts)
            shape = (rows, *self._shapes[theirs.parts[0]][1:])
            shape = shape[::-1] if theirs.is_conv1d else shape
            found = self._source.shape(self._names[name])
            if found != shape:
                raise ConversionError(f"{name} has the shape {found}, but the configuration makes it {shape}.")

    def _check_tied(self, head: str) -> None:
        embedding = self._theirs["model.embed_tokens.weight"].name
        first, second = (self._names[name] for name in (head, embedding))
        rows, same = self._source.shape(first)[0], self._source.shape(first) == self._source.shape(second)
        # In parts, for a large vocabulary.
        for start in range(0, rows if same else 0, 4096):
            stop = min(start + 4096, rows)
            parts = [self._source.read(name, 0, start, stop) for name in (first, second)]
            same = same and torch.equal(*parts)
        if not same:
            raise ConversionError(
                f"tie_word_embeddings is true, but {head} and {embedding} differ. Say in config.json which holds."
            )


def plan(reader: Reader, config: PreTrainedConfig, model_type: str) -> dict[str, Planned]:
    """The weights to be written for a target, by name.

    Raises:
        ConversionError: the target needs a weight that is not there, or has no place for one.
    """
    wanted = expected_shapes(config)
    found = their_weights(model_type, config.num_hidden_layers)
    planned, taken = {}, set()
    for name, shape in wanted.items():
        if name not in found:
            raise ConversionError(f"nothing is known of {name}, which {type(config).__name__} asks for.")
        present = [part for part in found[name].parts if part in reader.shapes]
        if not present and not name.endswith(".bias"):
            raise ConversionError(f"{name} of {model_type} has no counterpart in the source.")
        taken.update(present)
        like = present or [name.removesuffix("bias") + "weight" for name in found[name].parts]
        dtype = reader.dtype(like[0])
        if any(reader.dtype(part) != dtype for part in present):
            raise ConversionError(f"the parts of {name} are of different dtypes. Bring the model to one dtype first.")
        planned[name] = Planned(found[name], shape, dtype)
    if left := sorted(set(reader.shapes) - taken):
        raise ConversionError(f"{', '.join(left[:3])} of the source have no counterpart in {model_type}.")
    return planned


def build(reader: Reader, planned: Planned, shapes_of_parts: Shapes) -> torch.Tensor:
    """A weight of the target; a bias that the source does not have is zero."""
    parts = [
        reader.read(part) if part in reader.shapes else torch.zeros(shapes_of_parts[part], dtype=planned.dtype)
        for part in planned.theirs.parts
    ]
    tensor = torch.cat(parts) if len(parts) > 1 else parts[0]
    tensor = (tensor.T if planned.theirs.is_conv1d else tensor).contiguous()
    if tuple(tensor.shape) != planned.shape:
        raise ConversionError(f"{planned.theirs.name} came out as {tuple(tensor.shape)} instead of {planned.shape}.")
    return tensor


def shapes_of_missing(reader: Reader, weights: Mapping[str, Planned]) -> Shapes:
    """Shapes of the biases that a target has and the source has not."""
    return {
        part: (reader.shapes[f"{part.removesuffix('.bias')}.weight"][0],)
        for planned in weights.values()
        for part in planned.theirs.parts
        if part not in reader.shapes
    }


def write(reader: Reader, weights: Mapping[str, Planned], folder: Path, max_shard_size: int | str) -> list[str]:
    """Writes weights as safetensors, holding those of one file in memory; returns the names of the files.

    Args:
        reader: Where they come from.
        weights: From `plan`.
        folder: Where to write.
        max_shard_size: Most bytes of a file, or text such as `"5GB"`; a weight is never parted.
    """
    shapes_of_parts = shapes_of_missing(reader, weights)
    split = split_state_dict_into_shards_factory(
        dict(weights),
        get_storage_size=lambda planned: planned.size,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    for file, names in split.filename_to_tensors.items():
        tensors = {name: build(reader, weights[name], shapes_of_parts) for name in names}
        save_file(tensors, str(folder / file), metadata={"format": "pt"})
        del tensors
    if split.is_sharded:
        metadata = {
            "total_parameters": sum(planned.num_elements for planned in weights.values()),
            "total_size": sum(planned.size for planned in weights.values()),
        }
        content = {"metadata": metadata, "weight_map": dict(sorted(split.tensor_to_filename.items()))}
        (folder / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return sorted(split.filename_to_tensors)
