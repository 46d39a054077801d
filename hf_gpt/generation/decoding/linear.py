"""Linear layers with a weight packed once for many steps, in a type of choice."""

import contextlib
from collections.abc import Callable
from typing import Literal

import torch
from torch.nn import functional as F

from hf_gpt import compat
from hf_gpt.generation.decoding.native.structures import native


WeightDtype = Literal["bfloat16", "int8"]
WEIGHT_DTYPES: tuple[str, ...] = ("bfloat16", "int8")

Linear = Callable[[torch.Tensor], torch.Tensor]


def check_weight_dtype(weight_dtype: str | None, device: torch.device) -> None:
    """Raises `ValueError` for an unknown type, or one that linear layers on this device cannot use.

    int8 needs a CPU with VNNI instructions, or with AVX2 and a C compiler for the steps.
    """
    if weight_dtype is not None and weight_dtype not in WEIGHT_DTYPES:
        raise ValueError(
            f"there is no weight_dtype {weight_dtype!r}. Choose one of: {', '.join(WEIGHT_DTYPES)}, or None."
        )
    if weight_dtype == "int8" and not (device.type == "cpu" and (_multiplies_int8() or _steps_multiply_int8())):
        raise ValueError(
            "weight_dtype='int8' needs a CPU with VNNI instructions, or AVX2 and compiled steps: use 'bfloat16', or "
            "None."
        )


def autocast_for(weight_dtype: str | None, device: torch.device) -> contextlib.AbstractContextManager:
    """Autocast in bfloat16 beside rounded weights; nothing beside others."""
    return contextlib.nullcontext() if weight_dtype is None else torch.autocast(device.type, dtype=torch.bfloat16)


def make_linear(weight: torch.Tensor, bias: torch.Tensor | None, weight_dtype: str | None, rows: int) -> Linear:
    """A function x -> x W^T + b for x of shape (B, K).

    Args:
        weight: (N, K), copied in another layout on CPUs.
        bias: (N,) or None.
        weight_dtype: `"bfloat16"`: weight, input and result in bfloat16, sums in float32. `"int8"`: weights in 255
            steps for each output, inputs in 255 steps for each row, float32 result. None: the weight's own.
        rows: Most rows of x.

    Raises:
        ValueError: int8 on a processor where PyTorch does not multiply it exactly.
    """
    if weight_dtype == "int8":
        if not _multiplies_int8():
            raise ValueError(
                "weight_dtype='int8' on a CPU without VNNI instructions is for models that compiled steps decode: all "
                "parameters in one of float32 and bfloat16, and a common activation. Use 'bfloat16', or None."
            )
        return _int8(weight, bias)
    if weight_dtype == "bfloat16":
        weight = weight.to(torch.bfloat16)
    bias = None if bias is None else bias.to(weight.dtype)
    if weight.device.type != "cpu" or not _has_onednn() or weight.dtype not in (torch.float32, torch.bfloat16):
        return lambda inputs: F.linear(inputs.to(weight.dtype), weight, bias)
    if rows == 1 and weight.dtype == torch.float32:
        return _transposed(weight, bias)
    if weight.dtype == torch.bfloat16 and not compat.onednn_multiplies_bfloat16():
        return lambda inputs: F.linear(inputs.to(weight.dtype), weight, bias)
    return _packed(weight, bias)


def _multiplies_int8() -> bool:
    # Without VNNI oneDNN adds pairs in 16 bits, which saturate.
    return _has_onednn() and compat.supports_vnni()


def _steps_multiply_int8() -> bool:
    found = native()
    return found is not None and found.has_int8


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled


def _transposed(weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
    # For one row this layout reads memory in order: 1.2 to 2.5 times as fast.
    weight = weight.t().contiguous()
    if bias is None:
        return lambda inputs: torch.mm(inputs, weight)
    return lambda inputs: torch.addmm(bias, inputs, weight)


def _packed(weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
    dtype = weight.dtype
    # Packed for any number of rows, or each number would pack again.
    packed = compat.pack_linear_weight(weight.contiguous())
    linear = compat.packed_linear()
    return lambda inputs: linear(inputs.to(dtype), packed, bias, "none", [], "")


def _int8(weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
    weight = weight.float()
    scale = weight.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    steps = (weight / scale[:, None]).round().to(torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(steps, None)
    zero_points = torch.zeros(len(weight), dtype=torch.int64)
    bias = None if bias is None else bias.float()
    qlinear = torch.ops.onednn.qlinear_pointwise.default
    # Half a step more, since the conversion truncates: 0 is step 128.
    middle = torch.tensor(128.5)

    def linear(inputs: torch.Tensor) -> torch.Tensor:
        # A scale for each row, so that rows do not depend on each other.
        largest = torch.linalg.vector_norm(inputs.float(), torch.inf, -1, keepdim=True).clamp_(min=1e-20)
        rounded = torch.addcmul(middle, inputs, 127 / largest).to(torch.uint8)
        result = qlinear(
            rounded, 1 / 127, 128, packed, scale, zero_points, None, 1.0, 0, torch.float32, "none", [], ""
        ).mul_(largest)
        return result if bias is None else result.add_(bias)

    return linear
