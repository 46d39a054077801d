"""One token of each row by inversion of the distribution function, with its log-probability."""

import torch
from torch.nn import functional as F

from hf_gpt.generation.decoding.native.sampling import SampledTokens, native_sample, sampling_library
from hf_gpt.generation.sampling.distribution import SamplingConfig, pack, wide


# A vocabulary is searched in blocks of this many tokens: first for the block, then inside it.
BLOCK = 128


def sample(
    logits: torch.Tensor,
    uniforms: torch.Tensor,
    sampling: SamplingConfig,
    with_model_logps: bool = False,
    with_support: bool = False,
) -> SampledTokens:
    """One token for each row, with its log-probability. On a CPU compiled code samples.

    Args:
        logits: (B, V), any floating type.
        uniforms: (B,) in [0, 1).
        sampling: The policy.
        with_model_logps, with_support: Whether those fields are wanted.
    """
    logits = logits.float()
    if (library := sampling_library(logits, sampling.temperature)) is not None:
        wanted = {"with_model_logps": with_model_logps, "with_support": with_support}
        return native_sample(library, logits, uniforms if sampling.temperature else None, sampling, **wanted)
    support = None
    if sampling.temperature == 0:
        tokens = likeliest(logits)
        logps = torch.zeros(len(logits), device=logits.device)
    else:
        policy = logits if sampling.temperature == 1 else logits / sampling.temperature
        if sampling.is_truncated:
            kept = sampling.support(logits)
            support = pack(kept) if with_support else None
            policy = policy.masked_fill(~kept, -torch.inf)
        probabilities = policy.softmax(-1)
        tokens = _invert(probabilities, uniforms)
        logps = _logps(policy, tokens, probabilities)
    return SampledTokens(tokens, logps, _logps(logits, tokens) if with_model_logps else None, support)


def _logps(logits: torch.Tensor, tokens: torch.Tensor, probabilities: torch.Tensor | None = None) -> torch.Tensor:
    """(B,) log-probabilities of tokens (B,) under logits (B, V), whose softmax may be given."""
    probabilities = logits.softmax(-1) if probabilities is None else probabilities
    # The largest probability is exp(max - logsumexp), never 0.
    log_norm = logits.amax(-1, keepdim=True) - probabilities.amax(-1, keepdim=True).log()
    return (logits.gather(-1, tokens[:, None]) - log_norm)[:, 0]


def _invert(probabilities: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """The token at which the sum of (B, V) masses passes a share `uniforms` (B,) of the whole."""
    kind = wide(probabilities)
    uniforms = uniforms[:, None].to(kind)
    blocks = _blocks(probabilities)
    if blocks is None:
        return _search(probabilities.cumsum(-1, dtype=kind), uniforms)[0]
    block, rest = _search(blocks.sum(-1).cumsum(-1, dtype=kind), uniforms)
    inside = blocks[torch.arange(len(blocks), device=blocks.device), block]
    position, _ = _search(inside.cumsum(-1, dtype=kind), rest)
    return block * BLOCK + position


def _search(heights: torch.Tensor, shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First position (B,) where `heights` (B, N) pass a share (B, 1) of their last; the share of its step below."""
    total = heights[:, -1:]
    wanted = torch.minimum(shares * total, total.nextafter(torch.zeros_like(total)))
    position = torch.searchsorted(heights, wanted, right=True)
    below = heights.gather(-1, (position - 1).clamp(min=0)).masked_fill(position == 0, 0)
    return position[:, 0], (wanted - below) / (heights.gather(-1, position) - below)


def likeliest(logits: torch.Tensor, largest: torch.Tensor | None = None) -> torch.Tensor:
    """(B,) int64: `logits.argmax(-1)` of (B, V), compiled or block by block, since `argmax` is slow on CPUs.

    Args:
        logits: Any floating type.
        largest: (B, 1), their maximum, where it is known.
    """
    if (library := sampling_library(logits)) is not None:
        return native_sample(library, logits, with_logps=False).tokens
    blocks = _blocks(logits, fill=-torch.inf)
    if blocks is None:
        return logits.argmax(-1)
    largest = logits.amax(-1, keepdim=True) if largest is None else largest
    block = (blocks.amax(-1) >= largest).int().argmax(-1)
    inside = blocks[torch.arange(len(blocks), device=blocks.device), block]
    return block * BLOCK + inside.argmax(-1)


def _blocks(values: torch.Tensor, fill: float = 0.0) -> torch.Tensor | None:
    """(B, N, BLOCK), padded at the end; None for a small vocabulary, where blocks do not pay."""
    if values.shape[-1] < 8 * BLOCK:
        return None
    return F.pad(values, (0, -values.shape[-1] % BLOCK), value=fill).unflatten(-1, (-1, BLOCK))
