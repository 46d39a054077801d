"""Drawing from logits by `step.c`."""

import torch

from hf_gpt.generation.native.structures import Drawing, Native, address, native


# Logits below which more threads cost more than they save.
_WORK_OF_A_THREAD = 20_000
# Below this, factors of logits are out of the range of float32.
_LEAST_TEMPERATURE = 1e-3


def drawing_library(logits: torch.Tensor, temperature: float = 1.0) -> Native | None:
    """The compiled functions where they draw from these logits (B, V): float32 in one piece on a CPU."""
    if (
        logits.device.type != "cpu"
        or logits.dtype != torch.float32
        or logits.requires_grad
        or logits.ndim != 2
        or not logits.is_contiguous()
        or not logits.numel()
        or 0 < temperature < _LEAST_TEMPERATURE
    ):
        return None
    return native()


def draw(
    library: Native,
    logits: torch.Tensor,
    uniforms: torch.Tensor | None = None,
    temperature: float = 1.0,
    with_logps: bool = True,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Tokens (B,) int64 of logits (B, V), and their float32 log-probabilities (B,) under the logits as they are.

    Args:
        library: Of `drawing_library`.
        uniforms: (B,) in [0, 1); None: the likeliest tokens.
        temperature: Above 0; without `uniforms` it does not count.
        with_logps: Whether log-probabilities are wanted.
    """
    rows, vocab_size = logits.shape
    tokens = torch.empty(rows, dtype=torch.int64)
    logps = torch.empty(rows) if with_logps else None
    uniforms = None if uniforms is None else uniforms.to(torch.float64).contiguous()
    drawing = Drawing(address(logits), vocab_size, address(uniforms), temperature, address(tokens), address(logps))
    threads = 1 if logits.numel() < _WORK_OF_A_THREAD else torch.get_num_threads()
    library.draw(drawing, rows, threads)
    return tokens, logps
