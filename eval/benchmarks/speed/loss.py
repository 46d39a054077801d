"""The language-model loss in chunks against full logits: time and memory of forward and backward pass.

python -m eval.benchmarks.speed.loss chunked --tokens 4096 --vocab_size 50257
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from eval.benchmarks.speed.machine import default_device
from eval.benchmarks.speed.timing import Contender, synchronize
from hf_gpt.models.loss_hf_gpt import chunked_causal_lm_loss


HIDDEN_SIZE = 768
KINDS = ("chunked", "full")


def contenders(*, tokens: int, vocab_size: int) -> list[Contender]:
    """Each in a process of its own, since memory on a CPU is known by its process alone."""
    return [_contender(kind, tokens, vocab_size) for kind in KINDS]


def _contender(kind: str, tokens: int, vocab_size: int) -> Contender:
    contender = Contender(
        {"chunked": "hf-gpt: in chunks", "full": "full logits"}[kind],
        list,
        is_ours=kind == "chunked",
        work=tokens,
        notes={"unit": "tokens"},
    )

    def measure() -> list[float]:
        command = [sys.executable, "-m", __name__, kind, "--tokens", str(tokens), "--vocab_size", str(vocab_size)]
        found = json.loads(subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout)
        contender.notes["peak_bytes"] = max(found["peak_bytes"], contender.notes.get("peak_bytes", 0))
        return [found["seconds"]]

    contender.measure = measure
    return contender


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocab_size", type=int, default=50257)
    args = parser.parse_args(argv)
    print(json.dumps(measure(args.kind, args.tokens, args.vocab_size)))
    return 0


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


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
