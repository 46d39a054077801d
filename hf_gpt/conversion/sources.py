"""Weights as they lie in a checkpoint, read one at a time."""

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open

from hf_gpt.errors import ConversionError


INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


class Source(Protocol):
    """Named weights."""

    names: tuple[str, ...]

    def shape(self, name: str) -> tuple[int, ...]: ...

    def dtype(self, name: str) -> torch.dtype: ...

    def read(self, name: str, dim: int, start: int, stop: int) -> torch.Tensor:
        """The part of a weight from `start` up to `stop` along `dim`."""
        ...


class SafetensorsSource:
    """The safetensors files of a folder, whole or in shards. Only what is read is in memory.

    Raises:
        ConversionError: there is none, or the index and the files do not fit together, or a file is damaged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._files: dict[str, Any] = {}
        self._slices: dict[str, Any] = {}
        if (folder / INDEX).is_file():
            weight_map = _read_weight_map(folder / INDEX)
        elif (folder / WHOLE).is_file():
            weight_map = dict.fromkeys(self._open(WHOLE).keys(), WHOLE)
        else:
            found = ", ".join(sorted(path.name for path in folder.glob("*.bin"))[:2])
            advice = f" ({found} is a pickle, which can run code: save it again as safetensors)" if found else ""
            raise ConversionError(f"{folder} holds no {WHOLE} and no {INDEX}{advice}.")
        for name, file in weight_map.items():
            if name not in self._open(file).keys():  # noqa: SIM118 - not a mapping
                raise ConversionError(f"{folder / file} does not hold {name}, where {INDEX} has it.")
        self._weight_map = weight_map
        self.names = tuple(weight_map)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        kind = self._slice(name).get_dtype()
        if kind not in _DTYPES:
            raise ConversionError(f"{name} is kept as {kind}, which is not read here. Dequantize the model first.")
        return _DTYPES[kind]

    def read(self, name: str, dim: int, start: int, stop: int) -> torch.Tensor:
        part = self._slice(name)
        return part[start:stop] if dim == 0 else part[:, start:stop]

    def _slice(self, name: str) -> Any:
        if name not in self._slices:
            self._slices[name] = self._open(self._weight_map[name]).get_slice(name)
        return self._slices[name]

    def _open(self, file: str) -> Any:
        if file not in self._files:
            path = self.folder / file
            try:
                self._files[file] = safe_open(str(path), framework="pt")
            except (SafetensorError, OSError) as error:
                raise ConversionError(
                    f"{path} is missing, damaged or cut off ({error}). Copy or download it again."
                ) from error
        return self._files[file]


def _read_weight_map(path: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        entries = [*weight_map.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConversionError(f"{path} is no index of weights: {error!r}.") from error
    for name, file in entries:
        if not isinstance(file, str) or not re.fullmatch(r"[\w.-]+\.safetensors", file):
            raise ConversionError(f"{path} has {name} in {file!r}, which is no safetensors file of this folder.")
    return dict(weight_map)


class TensorsSource:
    """Weights in a mapping, which may lie in a mapped file."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]):
        self._tensors = tensors
        self.names = tuple(tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        return self._tensors[name].dtype

    def read(self, name: str, dim: int, start: int, stop: int) -> torch.Tensor:
        return self._tensors[name].narrow(dim, start, stop - start)


def read_nanogpt(path: Path) -> tuple[TensorsSource, dict[str, Any]]:
    """The weights of a checkpoint of nanoGPT (https://github.com/karpathy/nanoGPT, `train.py`) and its `model_args`.

    The file is a pickle. It is read by PyTorch's restricted reader, which makes tensors and plain values and runs
    nothing.

    Raises:
        ConversionError: the file holds anything else, or is no such checkpoint.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ConversionError(
            f"{path} holds more than tensors and plain values, and reading those could run code: it is refused. Save "
            "its 'model' and 'model_args' alone. What was found: "
            f"{next(iter(str(error).splitlines()), '')}"
        ) from error
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        raise ConversionError(
            f"{path} is no checkpoint: a single file is read as nanoGPT's ckpt.pt, and this is none "
            f"({next(iter(str(error).splitlines()), type(error).__name__)}). Give the folder with config.json and "
            "*.safetensors."
        ) from error
    if not isinstance(content, dict) or not {"model", "model_args"} <= set(content):
        raise ConversionError(f"{path} is no checkpoint of nanoGPT: it has no 'model' and 'model_args'.")
    tensors, settings = content["model"], content["model_args"]
    if not isinstance(tensors, dict) or not isinstance(settings, dict):
        raise ConversionError(f"{path}: 'model' and 'model_args' must be dictionaries.")
    tensors = {name.removeprefix("_orig_mod."): tensor for name, tensor in tensors.items()}
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise ConversionError(f"{path}: 'model' must hold tensors alone.")
    return TensorsSource(tensors), settings
