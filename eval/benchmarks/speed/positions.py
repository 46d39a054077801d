"""Decoding time by position: does a token cost more, the longer the text before it?"""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from eval.benchmarks.speed.decode import (
    MOST_POSITIONS,
    PROMPT_LENGTH,
    generation,
    make_prompt,
    named,
    weight_dtypes_of,
)
from eval.benchmarks.speed.models import KINDS, build
from eval.benchmarks.speed.timing import Contender, now, synchronize
from hf_gpt.generation.decoding.fast_generate import fast_generate


# Tokens whose median stands for them: one alone is at the mercy of whatever else the machine does.
WINDOW = 16


def contenders(size: str, vocab_size: int, *, rows: int, length: int) -> list[Contender]:
    """The likeliest token each time, every token timed: `fast_generate` of ours, `generate` of float32 peers.

    Notes get `milliseconds`: by the position that each window of `WINDOW` tokens begins at, the median time of its
    tokens; the median over rounds.

    Args:
        size: A key of `models.SIZES`.
        vocab_size: Tokens in the vocabulary.
        rows: Texts at once.
        length: Tokens of a text with its prompt, at least three windows, at most `decode.MOST_POSITIONS`.

    Raises:
        ValueError: a length out of range.
    """
    if not 3 * WINDOW <= length <= MOST_POSITIONS:
        raise ValueError(f"texts must have {3 * WINDOW} to {MOST_POSITIONS} tokens, got {length}.")
    models = {kind: build(kind, size, vocab_size, MOST_POSITIONS, torch.float32).eval() for kind in KINDS}
    ours = models["hf_gpt"]
    prompt, new_tokens = make_prompt(ours, rows, vocab_size), length - PROMPT_LENGTH
    clock = _Clock()
    settings = {"stopping_criteria": StoppingCriteriaList([clock])}
    # Several tokens that come out of one step have no time of their own.
    plain = {"custom_generate": fast_generate, "speculative": False, **settings}
    runs = {
        named("hf-gpt, fast_generate", weight_dtype): generation(
            ours, prompt, new_tokens, weight_dtype=weight_dtype, **plain
        )
        for weight_dtype in weight_dtypes_of(ours)
    }
    for kind in KINDS[1:]:
        runs[f"{kind}, generate"] = generation(models[kind], prompt, new_tokens, **settings)
    found = []
    for name, run in runs.items():
        notes: dict[str, Any] = {"unit": "tokens"}
        measure = _measure(run, clock, notes)
        found.append(Contender(name, measure, is_ours=name.startswith("hf-gpt"), work=rows * new_tokens, notes=notes))
    return found


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
        synchronize()
        begin = now()
        run()
        synchronize()
        seconds = now() - begin
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
        return [seconds]

    return measure
