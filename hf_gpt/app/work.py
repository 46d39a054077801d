"""What the page's buttons do: writing, judging and comparing, as HTML and text that can be shown at any time."""

import html
import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hf_gpt.app.controls import chosen_seed, settings_of
from hf_gpt.app.judge import Judge
from hf_gpt.app.sessions import Draft, Writer
from hf_gpt.app.settings import Settings, explain
from hf_gpt.app.stopping import Running, StoppedError, stoppable


# A page that is told of each token lags behind a fast model.
_SECONDS_BETWEEN_DRAFTS = 0.05
_ENDINGS = {
    "end": "The model ended the text.",
    "length": "Ended at the most new tokens.",
    "stopped": "Stopped.",
}

# Text, status and verdict.
Shown = tuple[str, str, str]


class Work:
    """What is done for the sessions of a page.

    Args:
        writers: Models by name.
        judge: The discriminator, if there is one.
    """

    def __init__(self, writers: Mapping[str, Writer], judge: Judge | None):
        self.writers, self.judge, self.running = writers, judge, Running()

    def write(
        self, session: Any, name: str, prompt: Any, length: Any, seed: Any, sampling: Sequence[Any]
    ) -> Iterator[tuple[str, str, str, int | None]]:
        """Text, status, verdict and seed, as they come."""
        seed = chosen_seed(seed)
        with self.running.start(session, "write") as stop:
            for shown in self._drafts(name, prompt, length, seed, sampling, stop):
                yield *shown, seed

    def compare(
        self,
        session: Any,
        names: Sequence[str],
        prompt: Any,
        length: Any,
        seed: Any,
        samplings: Sequence[Sequence[Any]],
    ) -> Iterator[tuple[Any, ...]]:
        """Text, status and verdict of each, as they come, and the seed that they share."""
        seed = chosen_seed(seed)
        latest: list[Shown] = [("", "", "")] * len(names)
        with self.running.start(session, "compare") as stop:
            streams = [
                self._drafts(name, prompt, length, seed, sampling, stop)
                for name, sampling in zip(names, samplings, strict=True)
            ]
            for position, shown in side_by_side(streams):
                latest[position] = shown
                yield (*(part for each in latest for part in each), seed)

    def verdict(self, session: Any, text: Any) -> str:
        """What the discriminator says of a text."""
        if self.judge is None:
            return ""
        with self.running.start(session, "judge") as stop:
            return self._verdict(text, stop)

    def stop(self, session: Any, part: str) -> str:
        """Stops a part, and says so."""
        return status("Stopping ..." if self.running.stop(session, part) else "There is nothing to stop.")

    def room(self, names: Sequence[str], prompt: Any) -> int:
        """Most new tokens of all these models after a prompt; where it is too long, writing says so."""
        found = []
        for name in names:
            writer = self.writers[name]
            try:
                found.append(writer.room(prompt or ""))
            except ValueError:
                found.append(writer.most_new_tokens)
        return min(found)

    def _drafts(
        self, name: str, prompt: Any, length: Any, seed: Any, sampling: Sequence[Any], stop: threading.Event
    ) -> Iterator[Shown]:
        """Text, status and verdict as they come; a fault is told as the status."""
        draft, shown_at = Draft(""), 0.0
        try:
            settings = settings_of(length, seed, sampling)
            for draft in self.writers[name].write(prompt, settings, self.judge, stop):
                if draft.ending is not None or time.monotonic() - shown_at > _SECONDS_BETWEEN_DRAFTS:
                    shown_at = time.monotonic()
                    yield draft.text, describe(draft, settings), ""
        except Exception as error:
            yield draft.text, wrong(error), ""
            return
        if self.judge is not None and draft.ending != "stopped" and draft.text.strip():
            yield draft.text, describe(draft, settings), self._verdict(draft.text, stop)

    def _verdict(self, text: Any, stop: threading.Event) -> str:
        assert self.judge is not None
        try:
            with stoppable(stop):
                return self.judge.verdict(text)
        except StoppedError:
            return status("Stopped before it was judged.")
        except Exception as error:
            return wrong(error)


def side_by_side(streams: Sequence[Iterator[Any]]) -> Iterator[tuple[int, Any]]:
    """What several iterators give, each in a thread of its own, with its number, as soon as it comes."""
    found: queue.Queue[tuple[int, Any, bool]] = queue.Queue()

    def read(position: int, stream: Iterator[Any]) -> None:
        try:
            for each in stream:
                found.put((position, each, False))
        finally:
            found.put((position, None, True))

    for position, stream in enumerate(streams):
        threading.Thread(target=read, args=(position, stream), daemon=True).start()
    left = len(streams)
    while left:
        position, each, is_end = found.get()
        left -= is_end
        if not is_end:
            yield position, each


def describe(draft: Draft, settings: Settings) -> str:
    """How a text came about, as HTML."""
    if draft.ending is None:
        return status(f"{draft.num_tokens:,} tokens ...")
    tokens = f"{draft.num_tokens:,} token{'' if draft.num_tokens == 1 else 's'} in {draft.seconds:.1f} s"
    return status(f"{_ENDINGS[draft.ending]} Seed {settings.seed}, {tokens}.")


def status(text: str) -> str:
    """A line about what goes on."""
    return f'<p role="status" class="muted">{html.escape(text)}</p>'


def wrong(error: Exception) -> str:
    """What went wrong; what the user cannot put right is told in the terminal as well, in a line."""
    said = explain(error)
    if not isinstance(error, ValueError):
        print(f"error: {said}", file=sys.stderr, flush=True)
    return f'<p role="alert" class="wrong">{html.escape(said)}</p>'
