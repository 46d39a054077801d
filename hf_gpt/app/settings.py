"""How a text is sampled, checked: the page's controls have limits, its API takes anything."""

import math
from dataclasses import dataclass
from typing import Any

from transformers import LogitsProcessorList
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from hf_gpt.generation.guidance.guided_generate import GUIDANCE


# Longer texts are refused before they are read.
MOST_CHARACTERS = 20_000
# Most new tokens where the model sets no limit.
MOST_NEW_TOKENS = 1000
# JavaScript has no exact integers above it.
MOST_SEED = 2**53 - 1
# Name on the page, smallest and largest value, and whether it is a whole number.
RANGES: dict[str, tuple[str, float, float, bool]] = {
    "max_new_tokens": ("Most new tokens", 1, math.inf, True),
    "temperature": ("Temperature", 0, 2, False),
    "top_p": ("Top-p", 0.05, 1, False),
    "top_k": ("Top-k", 0, 200, True),
    "min_p": ("Min-p", 0, 0.5, False),
    "repetition_penalty": ("Repetition penalty", 1, 2, False),
    "seed": ("Seed", 0, MOST_SEED, True),
    "num_candidates": ("Candidates", 2, 64, True),
}


@dataclass(frozen=True)
class Settings:
    """How a text is sampled.

    Attributes:
        max_new_tokens: Most tokens added; fewer where the model has no room for them.
        temperature: 0 takes the likeliest token each time.
        top_p, top_k, min_p, repetition_penalty: As `generate` takes them; a `top_k` of 0 samples from all tokens.
        seed: The same seed gives the same text.
        guidance: One of `GUIDANCE`, or None.
        num_candidates: Texts that the discriminator chooses from.

    Raises:
        ValueError: a value is no number, or out of range; the message is for the user.
    """

    max_new_tokens: int = 100
    temperature: float = 0.8
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    guidance: str | None = None
    num_candidates: int = 8

    def __post_init__(self):
        for name in RANGES:
            object.__setattr__(self, name, _checked(name, getattr(self, name)))
        if self.guidance is not None and self.guidance not in GUIDANCE:
            raise ValueError(f"There is no guidance {str(self.guidance)[:40]!r}. Choose one of {', '.join(GUIDANCE)}.")

    def processors(self) -> LogitsProcessorList:
        """Temperature and truncation, in the order of `generate`."""
        found = LogitsProcessorList()
        if self.temperature not in (0, 1):
            found.append(TemperatureLogitsWarper(self.temperature))
        if self.top_k > 0:
            found.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1:
            found.append(TopPLogitsWarper(self.top_p))
        if self.min_p > 0:
            found.append(MinPLogitsWarper(self.min_p))
        return found

    def options(self) -> dict[str, Any]:
        """The settings as `generate` takes them, for guidance, which samples by itself."""
        return {
            "do_sample": True,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p or None,
        }


def check_text(text: Any, what: str) -> str:
    """The text, if it is one and not too long.

    Raises:
        ValueError: it is not.
    """
    if text is None:
        return ""
    if not isinstance(text, str):
        raise ValueError(f"{what} must be text, got {type(text).__name__}.")
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"{what} has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read. Shorten it.")
    # Half of a character outside the basic plane, as JSON can spell it, is none that a tokenizer takes.
    return text.encode("utf-8", "replace").decode("utf-8")


def explain(error: BaseException) -> str:
    """What went wrong, in one line for the page."""
    said = " ".join(str(error).split())[:500]
    return said if isinstance(error, ValueError) and said else f"This failed: {type(error).__name__}: {said}"


def _checked(name: str, value: Any) -> int | float:
    label, low, high, is_whole = RANGES[name]
    expected = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Not so for NaN, which no comparison is true of.
    if not is_number or not low <= value <= high or math.isinf(value) or (is_whole and value != int(value)):
        kind = "a whole number " if is_whole else "a number "
        raise ValueError(f"{label} must be {kind}{expected}, got {str(value)[:40]}.")
    return int(value) if is_whole else float(value)
