"""Sampling from logits by `step.c`."""

from typing import NamedTuple

import torch

from hf_gpt.generation.decoding.native.structures import Native, SampleRequest, address, native
from hf_gpt.generation.sampling.distribution import SamplingConfig


_PLAIN = SamplingConfig()

# With fewer logits, more threads cost more than they save.
_WORK_OF_A_THREAD = 20_000
# Pieces for each thread, so that threads that start late find some left.
_PIECES_OF_A_THREAD = 8
# Below this, 1 / temperature is out of the range of float32.
_LEAST_TEMPERATURE = 1e-3


def sampling_library(logits: torch.Tensor, temperature: float = 1.0) -> Native | None:
    """The compiled functions, where they take these logits (B, V): contiguous float32 on a CPU."""
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


class SampledTokens(NamedTuple):
    """Tokens of B rows of logits.

    Attributes:
        tokens: (B,) int64.
        logps: (B,) float32, log-probabilities in the distribution that was sampled from; None: not wanted.
        model_logps: (B,) float32, at temperature 1 of all tokens; None: not wanted.
        support: (B, ceil(V / 8)) uint8, the tokens that could be sampled (`distribution.pack`); None: not wanted, or
            all.
    """

    tokens: torch.Tensor
    logps: torch.Tensor | None = None
    model_logps: torch.Tensor | None = None
    support: torch.Tensor | None = None


def native_sample(
    library: Native,
    logits: torch.Tensor,
    uniforms: torch.Tensor | None = None,
    sampling: SamplingConfig = _PLAIN,
    with_logps: bool = True,
    with_model_logps: bool = False,
    with_support: bool = False,
) -> SampledTokens:
    """A token of each row of logits (B, V).

    Args:
        library: Of `sampling_library`.
        uniforms: (B,) in [0, 1); None: the likeliest tokens, whatever `sampling` says.
        sampling: Temperature above 0 where there are `uniforms`.
        with_logps, with_model_logps, with_support: What is wanted beside the tokens.
    """
    rows, vocab_size = logits.shape
    tokens = torch.empty(rows, dtype=torch.int64)
    logps = torch.empty(rows) if with_logps else None
    model_logps = torch.empty(rows) if with_model_logps else None
    uniforms = None if uniforms is None else uniforms.to(torch.float64).contiguous()
    threads = 1 if logits.numel() < _WORK_OF_A_THREAD else torch.get_num_threads()
    pieces = 1 if threads == 1 else min(rows, _PIECES_OF_A_THREAD * threads)
    is_cut = sampling.top_p < 1 or sampling.min_p > 0 or 0 < sampling.top_k < vocab_size
    is_truncated = uniforms is not None and is_cut
    length = vocab_size + -vocab_size % (8 * library.lanes)
    work = torch.empty(pieces, 2, length) if is_truncated else None
    support = torch.empty(rows, -(-vocab_size // 8), dtype=torch.uint8) if with_support and is_truncated else None
    request = SampleRequest(
        logits=address(logits),
        vocab_size=vocab_size,
        uniforms=address(uniforms),
        temperature=sampling.temperature,
        tokens=address(tokens),
        logps=address(logps),
        model_logps=address(model_logps),
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        work=address(work),
        support=address(support),
        rows=rows,
        pieces=pieces,
    )
    library.sample(request, threads)
    return SampledTokens(tokens, logps, model_logps, support)
