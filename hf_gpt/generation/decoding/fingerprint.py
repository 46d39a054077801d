"""A short value that changes whenever a model's results can change."""

import json
from collections.abc import Iterable
from typing import Any

import torch
import xxhash
from torch import nn


# Words hashed at a time by PyTorch, since intermediate results are eight times as large.
_WORDS_TOGETHER = 2**22
_ODD = -7046029254386353131  # 2^64 divided by the golden ratio, as int64


def fingerprint(model: nn.Module) -> tuple[Any, ...]:
    """Equal as long as parameters, buffers, settings, classes of modules and addresses are equal.

    It reads all bytes, about as long as one decoding step. Nothing less sees every change: fused optimizers,
    `parameter.data` and NumPy views do not raise a tensor's version.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    aliases = model.named_parameters(remove_duplicate=False)
    return (
        _settings(model),
        tuple((name, tensor.data_ptr()) for name, tensor in aliases),
        digests(tensors.values()),
    )


@torch.no_grad()
def digests(tensors: Iterable[torch.Tensor]) -> tuple[Any, ...]:
    """Type, shape, device and a hash of the bytes of each tensor."""
    tensors, found, pending = list(tensors), [], []
    for tensor in tensors:
        flat = tensor.detach().contiguous().reshape(-1)
        if flat.device.type == "cpu":
            found.append(xxhash.xxh3_128_intdigest(flat.view(torch.uint8).numpy()))
        else:
            found.append(None)
            pending.append(_dot(flat))
    if pending:
        # One synchronisation with the device.
        values = iter(torch.stack([value.to(pending[0].device) for value in pending]).tolist())
        found = [next(values) if value is None else value for value in found]
    facts = ((tensor.dtype, tuple(tensor.shape), tensor.device) for tensor in tensors)
    return tuple(zip(facts, found, strict=True))


def _dot(flat: torch.Tensor) -> torch.Tensor:
    """Sum of words times a number for each position, modulo 2^64 (multilinear hashing, https://arxiv.org/abs/1202.4961).

    Words are half as wide as the sum, so no bit is lost.
    """
    size = flat.element_size()
    words = flat.view({1: torch.uint8, 2: torch.int16}.get(size, torch.int32))
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    for begin in range(0, len(words), _WORDS_TOGETHER):
        part = words[begin : begin + _WORDS_TOGETHER].to(torch.int64)
        positions = torch.arange(begin + 1, begin + 1 + len(part), device=flat.device)
        factors = positions * _ODD
        factors = (factors ^ (factors >> 29)) * _ODD
        total += (part * (factors ^ (factors >> 32))).sum()
    return total


def _settings(model: nn.Module) -> str:
    """Configuration, and the class and plain attributes of each module."""
    modules = [
        (
            name,
            type(module).__qualname__,
            id(type(module)),
            {key: value for key, value in vars(module).items() if _is_plain(key, value)},
        )
        for name, module in model.named_modules()
    ]
    config = model.config.to_dict() if hasattr(model, "config") else {}
    return json.dumps([config, modules], default=str, sort_keys=True)


def _is_plain(key: str, value: Any) -> bool:
    return not key.startswith("_") and key != "training" and isinstance(value, bool | int | float | str | None)
