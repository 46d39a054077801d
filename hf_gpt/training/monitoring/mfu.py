"""What the machine can compute at most, by measurement: the yardstick of model FLOPs utilisation (MFU)."""

import functools
import time

import torch
from torch import nn

from hf_gpt import compat
from hf_gpt.training.monitoring.cost_model import model_flops_per_token
from hf_gpt.training.training_arguments import HfGptTrainingArguments


# Long enough for a steady pace, short enough not to be noticed.
_SECONDS = 0.3
_SIZES = (256, 512, 1024, 2048, 4096, 8192)


@functools.lru_cache
def measured_peak_flops(device_type: str, dtype: torch.dtype) -> float:
    """FLOPs in a second of square matrix products in `dtype`, the best of those that fit in a fraction of a second.

    Measured once in a process. The sizes grow while a product takes under a tenth of that time.
    """
    best, started = 0.0, time.perf_counter()
    for size in _SIZES:
        a = torch.full((size, size), 0.5, device=device_type, dtype=dtype)
        seconds = _time_matmul(a)
        while True:
            seconds = min(seconds, _time_matmul(a))
            best = max(best, 2 * size**3 / seconds)
            if seconds > _SECONDS / 10 or size != _SIZES[-1]:
                break
            if time.perf_counter() - started > _SECONDS:
                break
        if seconds > _SECONDS / 16 or time.perf_counter() - started > _SECONDS:
            break
    return best


def utilisation(model: nn.Module, args: HfGptTrainingArguments, row_length: int, tokens_per_second: float) -> float:
    """The model FLOPs utilisation (MFU) of training: the share of what the devices reach in matrix multiplications.

    `tokens_per_second` is that of all processes, `row_length` in tokens; the model has a `config`.
    """
    dtype = next(model.parameters()).dtype
    if args.bf16 or args.fp16:
        dtype = torch.bfloat16 if args.bf16 else torch.float16
    peak = measured_peak_flops(args.device.type, dtype) * args.world_size
    return tokens_per_second * model_flops_per_token(model, row_length) / peak


@functools.lru_cache
def prefers_bfloat16(device_type: str) -> bool:
    """Whether a device multiplies matrices quicker in bfloat16 than in float32, by what it is, so that processes agree.

    GPUs do, and CPUs with AMX. Of those with AVX-512's bfloat16 products AMD's do; Intel's start half as many of them
    in a cycle as float32's.
    """
    if device_type != "cpu":
        return True
    if compat.supports_amx_tiles():
        return True
    return compat.supports_avx512_bfloat16() and _cpu_vendor() == "AuthenticAMD"


def _cpu_vendor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":")[1].strip() for line in file if line.startswith("vendor_id")), "")
    except OSError:
        return ""


def _time_matmul(a: torch.Tensor) -> float:
    _synchronize(a.device)
    begin = time.perf_counter()
    a @ a
    _synchronize(a.device)
    return max(time.perf_counter() - begin, 1e-9)


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
