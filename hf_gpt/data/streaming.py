"""Rows of an endless stream of documents or examples, in constant memory, whose position can be saved and taken up."""

import collections
import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from hf_gpt.data.arguments import DataArguments
from hf_gpt.data.packed_dataset import PACKING_WINDOW, filler_token_id, fitting, tokenize_documents
from hf_gpt.data.packing import pack
from hf_gpt.data.sources import Malformed, Source, open_source, warn_of_absent_separator
from hf_gpt.data.truncation import Cuts, Overlong, check_usable
from hf_gpt.errors import ConfigError, CorpusError


# A window of documents ends here even if it has fewer than PACKING_WINDOW: the bound on memory.
MAX_WINDOW_CHARACTERS = 2**23
# A stream is given up when none of so many documents or examples, one after the other, gives a row.
FRUITLESS_DOCUMENTS = 1000
# A new tokenizer learns from about so much text at the start.
TOKENIZER_CHARACTERS = 50_000_000


class DocumentStream:
    """Documents, or examples, of several sources, without end.

    Without weights the sources follow each other and begin anew together. With weights each next document comes from
    the source that is furthest behind its share of the characters; a source at its end begins anew.

    Args:
        sources: Where documents come from.
        weights: Share of each source, in any unit.
        skip_malformed: Count a row that cannot be read, and go on; else it is an error.
        window_size: Most documents of a window; left out: `packed_dataset.PACKING_WINDOW`.

    Attributes:
        state: Where the stream is, in plain types.

    Raises:
        ConfigError: weights that do not fit the sources.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float] | None = None,
        skip_malformed: bool = False,
        window_size: int | None = None,
    ):
        if weights is not None and (len(weights) != len(sources) or min(weights) <= 0):
            raise ConfigError(
                f"--train_file_weights needs a number above 0 for each of the {len(sources)} files, got "
                f"{' '.join(f'{weight:g}' for weight in weights)}."
            )
        self.sources = list(sources)
        self.weights = None if weights is None else list(weights)
        self.skip_malformed = skip_malformed
        self.window_size = window_size
        self.state: dict[str, Any] = {}
        self.rewind()

    def rewind(self) -> None:
        """Goes back to the start."""
        count = len(self.sources)
        self.state = {"positions": [None] * count, "characters": [0] * count, "current": 0, "epoch": 0, "skipped": 0}

    def windows(self, passes: int | None = None) -> Iterator[list[Any]]:
        """Lists of documents, from the present state on; the state is that after the list.

        Args:
            passes: End after so many passes over all sources, counted from their start; left out: never. With
                weights a pass is over when each source has ended.

        Raises:
            CorpusError: a row cannot be read, or there is no text at all.
        """
        readers: dict[int, Iterator[Any]] = {}
        ends = [0] * len(self.sources)
        window: list[Any] = []
        size, idle, most = 0, 0, self.window_size or PACKING_WINDOW
        while passes is None or self.state["epoch"] < passes:
            index = self._next_source()
            if index not in readers:
                readers[index] = self.sources[index].read(self.state["positions"][index])
            item = next(readers[index], None)
            if item is None:
                del readers[index]
                ends_epoch = self._end_source(index)
                ends[index] += 1
                is_over = self.weights is not None and min(ends) == passes
                idle += 1
                if idle > 2 * len(self.sources):
                    names = ", ".join(source.name for source in self.sources)
                    raise CorpusError(f"{names}: no text found. Every document is empty or blank.")
                if (ends_epoch or is_over) and window:
                    yield window
                    window, size = [], 0
                if is_over:
                    return
                continue
            document, self.state["positions"][index] = item
            if isinstance(document, Malformed):
                if not self.skip_malformed:
                    raise CorpusError(_advice(document.message))
                self.state["skipped"] += 1
                continue
            length = _num_characters(document)
            if not length:
                continue
            idle = 0
            self.state["characters"][index] += length
            window.append(document)
            size += length
            if len(window) == most or size >= MAX_WINDOW_CHARACTERS:
                yield window
                window, size = [], 0

    def _next_source(self) -> int:
        if self.weights is None:
            return self.state["current"]
        shares = [given / weight for given, weight in zip(self.state["characters"], self.weights, strict=True)]
        return shares.index(min(shares))

    def _end_source(self, index: int) -> bool:
        """Notes that a source has ended; returns whether all of them have, together."""
        self.state["positions"][index] = None
        if self.weights is not None:
            return False
        self.state["current"] = (index + 1) % len(self.sources)
        self.state["epoch"] += self.state["current"] == 0
        return self.state["current"] == 0


class WindowStream(torch.utils.data.IterableDataset, ABC):
    """Rows made of a stream of documents, window by window, without end.

    Reading begins where `load_state_dict` says; a position inside a window is taken up by making the rows of that
    window again, so at most one window is read twice.

    Args:
        documents: The documents.
        shuffle_seed: Seed of the order of rows within a window; None keeps the order.

    Attributes:
        has_one_length: Whether all rows are equally long.
        cuts: What was cut or left out of the documents read so far; a window that is read again counts again.
    """

    has_one_length: ClassVar[bool] = False
    cuts: Cuts

    def __init__(self, documents: DocumentStream, shuffle_seed: int | None = None):
        super().__init__()
        self.documents = documents
        self.shuffle_seed = shuffle_seed
        self.cuts = Cuts()
        self._start: dict[str, Any] = {}
        # Windows that were begun: the number of their first row, counted from the start of reading, and their state.
        self._marks: collections.deque[tuple[int, dict[str, Any]]] = collections.deque()
        self.rewind()

    @abstractmethod
    def encode(self, window: list[Any]) -> Sequence[Mapping[str, Any]]:
        """The rows of a window, which depend on nothing else."""

    def rewind(self) -> None:
        """Reading begins at the start."""
        self.documents.rewind()
        self.load_state_dict({"documents": self.documents.state, "window": 0, "row": 0})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Reading begins at a saved position.

        Raises:
            ConfigError: the position is that of other sources.
        """
        self.check_position(state)
        self._start = copy.deepcopy(state)
        self._marks.clear()

    def check_position(self, state: Mapping[str, Any]) -> None:
        """Raises `ConfigError` for the position in another number of sources."""
        if len(state["documents"]["positions"]) != len(self.documents.sources):
            raise ConfigError(
                f"the checkpoint's position is in {len(state['documents']['positions'])} sources, of which now "
                f"{len(self.documents.sources)} are named. Resume with the data of the run."
            )

    def state_dict(self, num_rows: int) -> dict[str, Any]:
        """The position after `num_rows` rows since reading began, in plain types.

        The number is asked for since loaders read ahead. Numbers must not go down from call to call.
        """
        while len(self._marks) > 1 and self._marks[1][0] <= num_rows:
            self._marks.popleft()
        if not self._marks:
            return copy.deepcopy(self._start)
        first, state = self._marks[0]
        return {**copy.deepcopy(state), "row": num_rows - first}

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        start = copy.deepcopy(self._start)
        self._marks.clear()
        self.documents.state = start["documents"]
        number, skip, window = -start["row"], start["row"], start["window"]
        fruitless = 0
        before = copy.deepcopy(self.documents.state)
        for documents in self.documents.windows():
            rows = self.encode(documents)
            fruitless = 0 if len(rows) else fruitless + len(documents)
            if fruitless >= FRUITLESS_DOCUMENTS:
                check_usable(0, self.cuts, f"of {fruitless:,} that were read one after the other")
            order = np.arange(len(rows))
            if self.shuffle_seed is not None:
                order = np.random.default_rng([self.shuffle_seed, window]).permutation(len(rows))
            self._marks.append((number, {"documents": before, "window": window}))
            for row in order[skip:].tolist():
                yield rows[row]
            number, skip, window = number + len(rows), 0, window + 1
            before = copy.deepcopy(self.documents.state)


class RowStream(WindowStream):
    """Packed rows, those that `packed_dataset.tokenize_and_pack` makes of the same documents.

    Args:
        documents: The documents.
        tokenizer: As for `packed_dataset.tokenize_and_pack`, like the next two.
        max_length: Length of a row.
        strategy: `"best_fit"` or `"sequential"`.
        shuffle_seed: As for `WindowStream`.
        overlong: As for `packed_dataset.fitting`.
    """

    has_one_length = True

    def __init__(
        self,
        documents: DocumentStream,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        *,
        strategy: str = "best_fit",
        shuffle_seed: int | None = None,
        overlong: Overlong = "truncate",
    ):
        super().__init__(documents, shuffle_seed)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.strategy = strategy
        self.overlong = overlong
        self.cuts = Cuts("documents", "max_length", max_length)

    def encode(self, window: list[str]) -> list[dict[str, np.ndarray]]:
        documents = tokenize_documents(window, self.tokenizer)
        keep = fitting(
            documents, self.max_length, self.overlong, [f"a document that begins {text[:40]!r}" for text in window]
        )
        documents = [document for document, is_kept in zip(documents, keep, strict=True) if is_kept]
        self.cuts.total += len(window)
        self.cuts.add("dropped", len(window) - len(documents))
        self.cuts.add("documents_parted", sum(len(document) > self.max_length for document in documents))
        rows = pack(
            documents,
            self.max_length,
            pad_token_id=filler_token_id(self.tokenizer),
            strategy=self.strategy,
        )
        return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]


def check_streaming(data_args: DataArguments, training_args: Any) -> None:
    """Raises `ConfigError` for what a corpus without a known end does not allow."""
    if training_args.max_steps <= 0:
        raise ConfigError("--streaming needs --max_steps: a stream has no length to count epochs by.")
    if not data_args.validation_file:
        raise ConfigError("--streaming needs --validation_file: no held-out part can be sampled from an unread stream.")


def open_documents(data_args: DataArguments) -> DocumentStream:
    """The stream of documents that the options ask for.

    Raises:
        ConfigError: options that do not go together.
        CorpusError: a source that is not there.
    """
    form = {"text_column": data_args.text_column, "document_separator": data_args.document_separator}
    sources = [open_source(name, **form) for name in data_args.train_file]
    warn_of_absent_separator(data_args.train_file, data_args.document_separator)
    return DocumentStream(sources, data_args.train_file_weights, skip_malformed=data_args.malformed_rows == "skip")


def one_pass(documents: DocumentStream, characters: float = math.inf) -> Iterator[Any]:
    """Documents from first to last, or up to so many characters in all; the stream is rewound after."""
    documents.rewind()
    for window in documents.windows(passes=1):
        yield from window
        if sum(documents.state["characters"]) >= characters:
            break
    documents.rewind()


def _num_characters(document: Any) -> int:
    """Length of a document, 0 for a blank one, or of an example, which is never blank."""
    if isinstance(document, str):
        return len(document) if document.strip() else 0
    return max(1, len(str(document)))


def _advice(message: str) -> str:
    if message.endswith("."):
        return f"{message} Or go over such rows by --malformed_rows skip."
    return f"{message}. Mend or remove it, or go over such by --malformed_rows skip."
