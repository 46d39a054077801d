"""The language-model loss in chunks against full logits: time and memory of forward and backward pass."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from eval.benchmarks.speed.machine import default_device
from eval.benchmarks.speed.timing import Contender, synchronize
from hf_gpt.models.loss_hf_gpt import chunked_causal_lm_loss


HIDDEN_SIZE = 768
NAMES = {"chunked": "hf-gpt: in chunks", "full": "full logits"}


def contenders(*, tokens: int, vocab_size: int) -> list[Contender]:
    """Each in a process of its own, since memory on a CPU is known by its process alone."""
    return [_contender(kind, tokens, vocab_size) for kind in NAMES]


def _contender(kind: str, tokens: int, vocab_size: int) -> Contender:
    notes: dict[str, Any] = {"unit": "tokens"}

    def apart() -> list[float]:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found = pool.submit(measure, kind, tokens, vocab_size).result()
        notes["peak_bytes"] = max(found["peak_bytes"], notes.get("peak_bytes", 0))
        return [found["seconds"]]

    return Contender(NAMES[kind], apart, is_ours=kind == "chunked", work=tokens, notes=notes)


def measure(kind: str, tokens: int, vocab_size: int) -> dict[str, float]:
    """Seconds of the second pass, and the most bytes above what the process and the inputs took before the first."""
    device = default_device()
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, tokens, HIDDEN_SIZE, generator=generator).to(device).requires_grad_()
    weight = (torch.randn(vocab_size, HIDDEN_SIZE, generator=generator) * 0.02).to(device).requires_grad_()
    labels = torch.randint(0, vocab_size, (1, tokens), generator=generator).to(device)

    def once() -> float:
        hidden.grad = weight.grad = None
        synchronize()
        begin = time.perf_counter()
        if kind == "chunked":
            loss = chunked_causal_lm_loss(hidden, weight, labels)
        else:
            logits = torch.nn.functional.linear(hidden, weight)[:, :-1].flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:].flatten())
        loss.backward()
        synchronize()
        return time.perf_counter() - begin

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds = [once(), once()][-1]
        return {"seconds": seconds, "peak_bytes": torch.cuda.max_memory_allocated() - before}
    # A first, small pass loads the kernels.
    torch.nn.functional.linear(hidden[:, :8], weight[:64]).sum().backward()
    hidden.grad = weight.grad = None
    # What making the inputs took at its highest does not count. (`ru_maxrss` would begin at the parent's peak, too.)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _status("VmRSS")
    seconds = [once(), once()][-1]
    return {"seconds": seconds, "peak_bytes": _status("VmHWM") - before}


def _status(name: str) -> int:
    """Bytes of a line of /proc/self/status, see proc(5)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
