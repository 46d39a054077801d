"""Timing of contenders in turns, so that whatever else the machine does hits all of them alike."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm import tqdm


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
_clock = CLOCKS["wall"]


def now() -> float:
    """Seconds of the clock that contenders are timed by."""
    return _clock()


def use_clock(name: str) -> None:
    """Times contenders by a key of `CLOCKS` from now on.

    "cpu" counts what this process computes, on all its threads: with one thread, the time it would have taken on a
    machine that others use as well.
    """
    global _clock
    _clock = CLOCKS[name]


@dataclass
class Contender:
    """One way of doing a piece of work.

    Attributes:
        name: For the table.
        measure: Does the work once or several times; returns the seconds of each.
        is_ours: Whether peers are compared with this one.
        work: Units that are done each time, tokens for example.
        notes: What else is known after `measure`, by name.
    """

    name: str
    measure: Callable[[], Iterable[float]]
    is_ours: bool = False
    work: float = 1.0
    notes: dict[str, Any] = field(default_factory=dict)


def timed(function: Callable[[], Any]) -> Callable[[], list[float]]:
    """`measure` of a contender that calls `function` once and waits for the device."""

    def measure() -> list[float]:
        synchronize()
        begin = now()
        function()
        synchronize()
        return [now() - begin]

    return measure


def synchronize() -> None:
    """Waits for the accelerator, if there is one."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def interleave(
    contenders: Sequence[Contender],
    rounds: int,
    title: str = "",
    *,
    warms_up: bool = True,
) -> list[dict[str, Any]]:
    """Measures all contenders in every round, after one that does not count unless `warms_up` is False.

    Returns:
        A row for each contender: `name`, `seconds` (median over rounds of a round's median), `per_second` (units of
        work), `rounds` (seconds of each round), `cold_seconds` of the round before, its notes, and for a peer of ours
        `ratio`, how many times its time is that of the first of ours in the same round: the median, `ratio_least` and
        `ratio_most`.
    """
    cold: dict[str, float] = {}
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    turns = [(turn, contender) for turn in range(0 if warms_up else 1, rounds + 1) for contender in contenders]
    for turn, contender in tqdm(turns, title, leave=False, disable=None):
        begin = time.perf_counter()
        found = statistics.median(contender.measure())
        cold.setdefault(contender.name, time.perf_counter() - begin)
        if turn:
            seconds[contender.name].append(found)
    ours = next((contender.name for contender in contenders if contender.is_ours), None)
    rows = []
    for contender in contenders:
        found = seconds[contender.name]
        middle = statistics.median(found)
        row = {
            "name": contender.name,
            "seconds": middle,
            "per_second": contender.work / middle,
            "rounds": found,
            "cold_seconds": cold[contender.name],
            **contender.notes,
        }
        if ours is not None and contender.name != ours:
            ratios = [theirs / mine for theirs, mine in zip(found, seconds[ours], strict=True)]
            row |= {"ratio": statistics.median(ratios), "ratio_least": min(ratios), "ratio_most": max(ratios)}
        rows.append(row)
    return rows
