"""Decoding time by position: does a token cost more, the longer the text before it?"""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from eval.benchmarks.speed.decode import (
    MOST_POSITIONS,
    PROMPT_LENGTH,
    generation,
    make_prompt,
    named,
    weight_dtypes_of,
)
from eval.benchmarks.speed.models import KINDS, build
from eval.benchmarks.speed.timing import Contender, now, synchronize, timed
from hf_gpt.generation.decoding.fast_generate import fast_generate


# Tokens whose median stands for them: one alone is at the mercy of whatever else the machine does.
WINDOW = 16


def contenders(size: str, vocab_size: int, *, rows: int, length: int) -> list[Contender]:
    """The likeliest token each time, every token timed: `fast_generate` of ours, `generate` of float32 peers.

    Notes get `milliseconds`: by the position that each window of `WINDOW` tokens begins at, the median time of its
    tokens; the median over rounds.
    """
    found = ours(size, vocab_size, rows=rows, length=length)
    for kind in KINDS[1:]:
        model = build(kind, size, vocab_size, MOST_POSITIONS, torch.float32).eval()
        found.append(_contender(f"{kind}, generate", model, vocab_size, rows, length))
    return found


def ours(size: str, vocab_size: int, *, rows: int, length: int) -> list[Contender]:
    """Ours alone, for each type of weights, which the notes name (`weights`)."""
    model = build("hf_gpt", size, vocab_size, MOST_POSITIONS, torch.float32).eval()
    # Several tokens that come out of one step have no time of their own.
    plain = {"custom_generate": fast_generate, "speculative": False}
    found = []
    for weight_dtype in weight_dtypes_of(model):
        name = named("hf-gpt, fast_generate", weight_dtype)
        found.append(_contender(name, model, vocab_size, rows, length, weight_dtype=weight_dtype, **plain))
        found[-1].notes["weights"] = weight_dtype or "float32"
    return found


def _contender(
    name: str, model: PreTrainedModel, vocab_size: int, rows: int, length: int, **settings: Any
) -> Contender:
    clock, new_tokens = _Clock(), length - PROMPT_LENGTH
    prompt = make_prompt(model, rows, vocab_size)
    run = generation(model, prompt, new_tokens, stopping_criteria=StoppingCriteriaList([clock]), **settings)
    notes: dict[str, Any] = {"unit": "tokens"}
    measure = _measure(run, clock, notes)
    return Contender(name, measure, is_ours=name.startswith("hf-gpt"), work=rows * new_tokens, notes=notes)


class _Clock(StoppingCriteria):
    """Notes when each token is there; stops nothing."""

    def __init__(self):
        self.times: list[float] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor | None, **kwargs: Any) -> torch.Tensor:
        synchronize()
        self.times.append(now())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def _measure(run: Callable[[], Any], clock: _Clock, notes: dict[str, Any]) -> Callable[[], list[float]]:
    rounds: list[dict[int, float]] = []

    def measure() -> list[float]:
        clock.times = []
        seconds = timed(run)()
        steps = [later - earlier for earlier, later in zip(clock.times, clock.times[1:], strict=False)]
        # The first window holds the prompt.
        steps = steps[WINDOW - PROMPT_LENGTH - 1 :]
        windows = range(0, len(steps) - WINDOW + 1, WINDOW)
        rounds.append(
            {WINDOW + position: 1000 * statistics.median(steps[position : position + WINDOW]) for position in windows}
        )
        # All calls but the first, which may compile, or lay weights out.
        counted = rounds[1:] or rounds
        notes["milliseconds"] = {
            position: statistics.median(times[position] for times in counted) for position in rounds[0]
        }
        return seconds

    return measure
