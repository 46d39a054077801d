"""Stopping of what a browser's session has under way: in the thread that computes, not on the page alone."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from transformers import LogitsProcessor


_here = threading.local()


class StoppedError(Exception):
    """The user wants no more of this."""


@contextlib.contextmanager
def stoppable(stop: threading.Event) -> Iterator[None]:
    """Inside, `check_stop` of this thread asks `stop`."""
    former = getattr(_here, "stop", None)
    _here.stop = stop
    try:
        yield
    finally:
        _here.stop = former


def check_stop() -> None:
    """Raises `StoppedError` if what this thread does is not wanted any more."""
    stop = getattr(_here, "stop", None)
    if stop is not None and stop.is_set():
        raise StoppedError


class StopCheck(LogitsProcessor):
    """Ends generation before its next token, whichever method decodes."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        check_stop()
        return scores


def check_in_layers(model: torch.nn.Module) -> None:
    """Makes every layer of a discriminator ask, which has no tokens to stop between."""
    for module in model.modules():
        module.register_forward_pre_hook(lambda *_: check_stop())


class Running:
    """What each session has under way, by the part of the page that asked for it."""

    def __init__(self):
        self._stops: dict[tuple[Any, str], threading.Event] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def start(self, session: Any, part: str) -> Iterator[threading.Event]:
        """The event that ends what is done inside."""
        stop = threading.Event()
        with self._lock:
            self._stops[session, part] = stop
        try:
            yield stop
        finally:
            # Whoever stops reading needs no more either.
            stop.set()
            with self._lock:
                if self._stops.get((session, part)) is stop:
                    del self._stops[session, part]

    def stop(self, session: Any, part: str | None = None) -> bool:
        """Stops a part, or all of a session; says whether anything was under way."""
        with self._lock:
            found = [stop for (owner, own), stop in self._stops.items() if owner == session and part in (None, own)]
        for stop in found:
            stop.set()
        return bool(found)
