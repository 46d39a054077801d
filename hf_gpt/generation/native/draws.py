"""Drawing from logits by `step.c`."""

import torch

from hf_gpt.generation.native.structures import Drawing, Native, address, native


# Logits below which more threads cost more than they save.
_WORK_OF_A_THREAD = 20_000
# Pieces that rows are shared out in, so that threads that start late find some left.
_PIECES_OF_A_THREAD = 8
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
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Tokens (B,) int64 of logits (B, V), and their float32 log-probabilities (B,) under the logits as they are.

    Args:
        library: Of `drawing_library`.
        uniforms: (B,) in [0, 1); None: the likeliest tokens.
        temperature: Above 0; without `uniforms` it does not count, nor do the next three.
        with_logps: Whether log-probabilities are wanted.
        top_p, top_k, min_p: As for `rollout`.
    """
    rows, vocab_size = logits.shape
    tokens = torch.empty(rows, dtype=torch.int64)
    logps = torch.empty(rows) if with_logps else None
    uniforms = None if uniforms is None else uniforms.to(torch.float64).contiguous()
    threads = 1 if logits.numel() < _WORK_OF_A_THREAD else torch.get_num_threads()
    pieces = 1 if threads == 1 else min(rows, _PIECES_OF_A_THREAD * threads)
    is_truncated = uniforms is not None and (top_p < 1 or min_p > 0 or 0 < top_k < vocab_size)
    length = vocab_size + -vocab_size % (8 * library.lanes)
    work = torch.empty(pieces, 2, length) if is_truncated else None
    drawing = Drawing(
        logits=address(logits),
        vocab_size=vocab_size,
        uniforms=address(uniforms),
        temperature=temperature,
        tokens=address(tokens),
        logps=address(logps),
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        work=address(work),
        rows=rows,
        pieces=pieces,
    )
    library.draw(drawing, threads)
    return tokens, logps
