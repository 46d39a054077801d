"""Tokens per second and time left, of training alone."""

import contextlib
import sys
import time
from collections.abc import Iterator


class ThroughputMeter:
    """Holds `tokens` and optimizer `steps`, counted by others, against a clock that stands still inside `paused`."""

    def __init__(self):
        self._start: float | None = None
        self._end: float | None = None
        self._pause = 0.0
        self.tokens = self.steps = 0
        self._last = (0.0, 0)

    def start(self) -> None:
        """Starts the clock, unless it runs."""
        if self._start is None:
            self._start = time.perf_counter()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time inside, spent on evaluation or saving, does not count."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            if self._start is not None and self._end is None:
                self._pause += time.perf_counter() - begin

    def stop(self) -> None:
        """Stops the clock; `seconds` stays as it is."""
        if self._end is None:
            self._end = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time from start to stop, or to now, without pauses."""
        if self._start is None:
            return 0.0
        return (time.perf_counter() if self._end is None else self._end) - self._start - self._pause

    def read(self) -> float:
        """Tokens per second since the last reading."""
        seconds, tokens = self._last
        self._last = (self.seconds, self.tokens)
        return (self.tokens - tokens) / max(self._last[0] - seconds, 1e-9)

    def seconds_left(self, steps_left: int) -> float:
        """Time for further steps, at the average pace so far."""
        return steps_left * self.seconds / max(self.steps, 1)


def format_duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s` or `2 h 07 min`."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def format_count(number: float) -> str:
    """`950`, `12.3 k`, `4.56 M`, `7.89 G`."""
    for limit, unit, digits in ((1e3, "", 0), (1e6, " k", 1), (1e9, " M", 2), (1e12, " G", 2)):
        if abs(number) < limit:
            return f"{number / (limit / 1e3):.{digits}f}{unit}"
    return f"{number / 1e12:.2f} T"


def peak_memory() -> int:
    """Most bytes that this process has held: of the GPU's memory where one is used, else of main memory."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource

    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
