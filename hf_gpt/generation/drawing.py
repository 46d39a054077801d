"""One token of each row by inversion of the distribution function, and its log-probability."""

import torch
from torch.nn import functional as F

from hf_gpt.generation.native.draws import draw, drawing_library


# A vocabulary is searched in blocks of this many tokens: first for the block, then inside it.
BLOCK = 128


def draw_tokens(
    logits: torch.Tensor,
    uniforms: torch.Tensor,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
) -> torch.Tensor:
    """One token for each row, by inversion of the distribution function.

    Args:
        logits: (B, V), any floating type.
        uniforms: (B,) in [0, 1).
        temperature, top_p, top_k, min_p: As for `rollout`.

    Returns:
        (B,) int64.
    """
    return draw_with_logps(logits, uniforms, temperature, top_p, top_k, min_p)[0]


def draw_with_logps(
    logits: torch.Tensor,
    uniforms: torch.Tensor,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens of `draw_tokens` (B,) and their float32 log-probabilities (B,) under `logits` as they are.

    One softmax serves both where the distribution is not reshaped. On a CPU compiled code draws.
    """
    logits = logits.float()
    if (library := drawing_library(logits, temperature)) is not None:
        truncation = {"top_p": top_p, "top_k": top_k, "min_p": min_p}
        return draw(library, logits, uniforms if temperature else None, temperature, **truncation)
    probabilities = logits.softmax(-1)
    # exp(max - logsumexp): what the softmax knows of the sum, and never 0.
    largest = logits.amax(-1, keepdim=True)
    log_norm = largest - probabilities.amax(-1, keepdim=True).log()
    if temperature == 0:
        tokens = likeliest(logits, largest)
    else:
        if temperature != 1 or top_k:
            reshaped = logits if temperature == 1 else logits / temperature
            if top_k and top_k < logits.shape[-1]:
                reshaped = reshaped.masked_fill(reshaped < reshaped.topk(top_k, -1).values[:, -1:], -torch.inf)
            probabilities = reshaped.softmax(-1)
        tokens = _invert(_truncated(probabilities, top_p, min_p), uniforms)
    return tokens, (logits.gather(-1, tokens[:, None]) - log_norm)[:, 0]


def _truncated(probabilities: torch.Tensor, top_p: float, min_p: float) -> torch.Tensor:
    if top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        # The token that crosses the mass belongs to it.
        outside = ordered.cumsum(-1, dtype=_wide(probabilities)) - ordered >= top_p
        probabilities = torch.zeros_like(probabilities).scatter_(-1, order, ordered.masked_fill(outside, 0))
    if min_p > 0:
        probabilities = probabilities.masked_fill(probabilities < min_p * probabilities.amax(-1, keepdim=True), 0)
    return probabilities


def _invert(probabilities: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """The token at which the sum of (B, V) masses passes a share `uniforms` (B,) of the whole."""
    wide = _wide(probabilities)
    uniforms = uniforms[:, None].to(wide)
    blocks = _blocks(probabilities)
    if blocks is None:
        return _search(probabilities.cumsum(-1, dtype=wide), uniforms)[0]
    block, rest = _search(blocks.sum(-1).cumsum(-1, dtype=wide), uniforms)
    inside = blocks[torch.arange(len(blocks), device=blocks.device), block]
    place, _ = _search(inside.cumsum(-1, dtype=wide), rest)
    return block * BLOCK + place


def _search(heights: torch.Tensor, shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First place (B,) where `heights` (B, N) pass a share (B, 1) of their last; the share of its step below."""
    total = heights[:, -1:]
    wanted = torch.minimum(shares * total, total.nextafter(torch.zeros_like(total)))
    place = torch.searchsorted(heights, wanted, right=True)
    below = heights.gather(-1, (place - 1).clamp(min=0)).masked_fill(place == 0, 0)
    return place[:, 0], (wanted - below) / (heights.gather(-1, place) - below)


def likeliest(logits: torch.Tensor, largest: torch.Tensor | None = None) -> torch.Tensor:
    """(B,) int64: `logits.argmax(-1)` of (B, V), compiled or block by block, since `argmax` is slow on CPUs.

    Args:
        logits: Any floating type.
        largest: (B, 1), their maximum, where it is known.
    """
    if (library := drawing_library(logits)) is not None:
        return draw(library, logits, with_logps=False)[0]
    blocks = _blocks(logits, fill=-torch.inf)
    if blocks is None:
        return logits.argmax(-1)
    largest = logits.amax(-1, keepdim=True) if largest is None else largest
    block = (blocks.amax(-1) >= largest).int().argmax(-1)
    inside = blocks[torch.arange(len(blocks), device=blocks.device), block]
    return block * BLOCK + inside.argmax(-1)


def _blocks(values: torch.Tensor, fill: float = 0.0) -> torch.Tensor | None:
    """(B, N, BLOCK), filled up at the end; None for a vocabulary too small to gain by it."""
    if values.shape[-1] < 8 * BLOCK:
        return None
    return F.pad(values, (0, -values.shape[-1] % BLOCK), value=fill).unflatten(-1, (-1, BLOCK))


def _wide(values: torch.Tensor) -> torch.dtype:
    # Sums over a large vocabulary lose the rare tokens in float32. Apple's GPUs have no float64.
    return torch.float32 if values.device.type == "mps" else torch.float64
