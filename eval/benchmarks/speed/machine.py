"""What the machine can do at most, by measurement: products by dtype, and memory read in a second."""

import mmap

import torch

from eval.benchmarks.speed.timing import timed
from hf_gpt.generation.devices import pick_device
from hf_gpt.training.monitoring.mfu import measured_peak_flops


# Beyond the caches of any machine.
_BYTES = 2**28
_REPEATS = 5


def default_device() -> torch.device:
    """The accelerator, else the CPU."""
    return torch.device(pick_device(None))


def limits() -> dict[str, float]:
    """`flops_float32`, `flops_bfloat16` (a second, of matrix products) and `bytes_per_second` (read from memory)."""
    device = default_device()
    flops = {
        f"flops_{name}": measured_peak_flops(device.type, getattr(torch, name)) for name in ("float32", "bfloat16")
    }
    return flops | {"bytes_per_second": _read_bandwidth(device)}


def _read_bandwidth(device: torch.device) -> float:
    values = _large_pages().fill_(1) if device.type == "cpu" else torch.ones(_BYTES // 4, device=device)
    return _BYTES / min(timed(values.sum)()[0] for _ in range(_REPEATS))


def _large_pages() -> torch.Tensor:
    """float32 memory in pages of 2 MiB where the system has them, as packed weights lie: small ones read slower."""
    memory = mmap.mmap(-1, _BYTES)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.float32)
