"""`SamplingConfig`: the distribution that tokens are sampled from, and where a text ends."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from transformers import GenerationConfig


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How texts are sampled. The first four fields make the policy, whose log-probabilities count.

    The logits are divided by the temperature. Top-k, then top-p, then min-p remove tokens, and the rest is normalised.

    Args:
        temperature: Divides the logits; 0 takes the likeliest token.
        top_p: Keeps the likeliest tokens of this total mass, including the one that crosses it.
        top_k: Keeps this many likeliest tokens, and those as likely as the last; 0: all.
        min_p: Keeps tokens at least this likely, as a share of the likeliest (https://arxiv.org/abs/2407.01082).
        max_new_tokens: Most tokens sampled for a text, the end-of-text token included. Needed to sample whole texts.
        num_return_sequences: Completions of each prompt, in adjacent rows. Without prompts: the number of texts.
        eos_token_id: What ends a text; None: nothing does.
        pad_token_id: Fills the rows; None: the end-of-text token, or 0.
        bos_token_id: The first token of a text without a prompt.
        return_model_logps: Whether a rollout also holds log-probabilities at temperature 1 of all tokens.

    Raises:
        ValueError: a field is out of range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_new_tokens: int | None = None
    num_return_sequences: int = 1
    eos_token_id: int | Sequence[int] | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    return_model_logps: bool = False

    def __post_init__(self):
        if not self.temperature >= 0 or not 0 < self.top_p <= 1 or self.top_k < 0 or not 0 <= self.min_p <= 1:
            raise ValueError(
                "sampling needs temperature >= 0, 0 < top_p <= 1, top_k >= 0 and 0 <= min_p <= 1, got "
                f"{self.temperature}, {self.top_p}, {self.top_k} and {self.min_p}."
            )
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"sampling needs max_new_tokens >= 1, got {self.max_new_tokens}.")

    @classmethod
    def of(cls, generation_config: "GenerationConfig") -> "SamplingConfig":
        """The policy of a `GenerationConfig`; what it leaves out removes no token."""
        names = ("temperature", "top_p", "top_k", "min_p")
        values = {name: getattr(generation_config, name, None) for name in names}
        return cls(**{name: value for name, value in values.items() if value is not None})

    @property
    def end_tokens(self) -> list[int]:
        """The tokens that end a text."""
        if self.eos_token_id is None:
            return []
        return [self.eos_token_id] if isinstance(self.eos_token_id, int) else list(self.eos_token_id)

    @property
    def padding_token(self) -> int:
        """The token that fills up a row."""
        return next(iter(self.end_tokens), 0) if self.pad_token_id is None else self.pad_token_id

    @property
    def is_truncated(self) -> bool:
        """Whether some tokens can never be sampled."""
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0

    @property
    def is_plain(self) -> bool:
        """Whether tokens are sampled from the model's own distribution."""
        return self.temperature == 1 and not self.is_truncated

    @torch.no_grad()
    def support(self, logits: torch.Tensor) -> torch.Tensor:
        """Which tokens can be sampled, bool, in the shape of `logits` (..., V). At temperature 0: the likeliest."""
        if self.temperature == 0:
            likeliest = logits.argmax(-1, keepdim=True)
            return torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, likeliest, True)
        scaled = self._scaled(logits)
        kept = torch.ones_like(scaled, dtype=torch.bool)
        if 0 < self.top_k < scaled.shape[-1]:
            kept = scaled >= scaled.topk(self.top_k, -1).values[..., -1:]
        if self.top_p == 1 and self.min_p == 0:
            return kept
        # Masses with maximum 1, as in compiled code: normalising first would round the tail.
        masses = (scaled - scaled.amax(-1, keepdim=True)).exp() * kept
        if self.top_p < 1:
            ordered, order = masses.sort(dim=-1, descending=True, stable=True)
            heights = ordered.cumsum(-1, dtype=wide(masses))
            # The token that crosses the mass belongs to it.
            outside = heights - ordered >= self.top_p * heights[..., -1:]
            kept &= ~torch.zeros_like(kept).scatter_(-1, order, outside)
        if self.min_p > 0:
            kept &= masses >= self.min_p
        return kept

    def policy_logits(
        self, logits: torch.Tensor, support: torch.Tensor | None = None, sampled: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits whose softmax is the policy, with gradient.

        The support counts as fixed: a gradient moves probabilities inside it, so the expected score is 0.

        Args:
            logits: (..., V), of the model.
            support: (..., ceil(V / 8)) uint8, as kept in sampling (`pack`). None: that of these logits.
            sampled: (...,) int64 tokens that were sampled. They belong to the support, however these logits round. Not
                needed with a `support`.

        Returns:
            (..., V): `logits` themselves for the plain policy, else float32 (or float64), minus infinity outside the
            support.
        """
        if self.is_plain:
            return logits
        scaled = self._scaled(logits)
        if not self.is_truncated and self.temperature > 0:
            return scaled
        kept = self.support(logits) if support is None else unpack(support, logits.shape[-1])
        if sampled is not None:
            kept.scatter_(-1, sampled[..., None], True)
        # Past the end of a text there is no support.
        kept |= ~kept.any(-1, keepdim=True)
        return scaled.masked_fill(~kept, -torch.inf)

    def _scaled(self, logits: torch.Tensor) -> torch.Tensor:
        logits = at_least_float32(logits)
        return logits if self.temperature in (0, 1) else logits / self.temperature


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Values of a narrower type in float32, others unchanged."""
    return values if values.dtype == torch.float64 else values.float()


def wide(values: torch.Tensor) -> torch.dtype:
    """The type to sum probabilities in: float32 loses rare tokens, but Apple's GPUs have no float64."""
    return torch.float32 if values.device.type == "mps" else torch.float64


def pack(kept: torch.Tensor) -> torch.Tensor:
    """Bits (..., ceil(V / 8)) uint8 of bool (..., V); the lowest bit of a byte is its first token."""
    padded = torch.nn.functional.pad(kept.to(torch.uint8), (0, -kept.shape[-1] % 8)).unflatten(-1, (-1, 8))
    return (padded << _bits(kept)).sum(-1, dtype=torch.uint8)


def unpack(packed: torch.Tensor, size: int) -> torch.Tensor:
    """Bool (..., `size`) of what `pack` made."""
    return ((packed[..., None] >> _bits(packed)) & 1).flatten(-2)[..., :size].bool()


def _bits(like: torch.Tensor) -> torch.Tensor:
    return torch.arange(8, dtype=torch.uint8, device=like.device)
