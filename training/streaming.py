"""A corpus as an endless stream of packed rows, in constant memory, whose position can be saved and taken up again."""

import collections
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from hf_gpt.training.arguments import DataArguments
from hf_gpt.training.data import PACKING_WINDOW, filler_token_id, tokenize_documents
from hf_gpt.training.errors import ConfigError, CorpusError
from hf_gpt.training.packing import pack
from hf_gpt.training.sources import Malformed, Source, open_source


# A window of documents ends here even if it has fewer than PACKING_WINDOW: the bound on memory.
MAX_WINDOW_CHARACTERS = 2**23


class DocumentStream:
    """Documents of several sources, without end.

    Without weights the sources follow each other and begin anew together. With weights each next document comes from
    the source that is furthest behind its share of the characters; a source at its end begins anew.

    Args:
        sources: Where documents come from.
        weights: Share of each source, in any unit.
        skip_malformed: Count a row that cannot be read, and go on; else it is an error.

    Attributes:
        state: Where the stream is, in plain types.

    Raises:
        ConfigError: weights that do not fit the sources.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float] | None = None, skip_malformed: bool = False):
        if weights is not None and (len(weights) != len(sources) or min(weights) <= 0):
            raise ConfigError(
                f"--corpus_weights needs a number above 0 for each of the {len(sources)} sources of --corpus, got "
                f"{' '.join(f'{weight:g}' for weight in weights)}."
            )
        self.sources = list(sources)
        self.weights = None if weights is None else list(weights)
        self.skip_malformed = skip_malformed
        self.state: dict[str, Any] = {}
        self.rewind()

    def rewind(self) -> None:
        """Goes back to the beginning."""
        count = len(self.sources)
        self.state = {"places": [None] * count, "characters": [0] * count, "current": 0, "epoch": 0, "skipped": 0}

    def windows(self) -> Iterator[list[str]]:
        """Lists of documents, from the present state on; the state is that after the list.

        Raises:
            CorpusError: a row cannot be read, or there is no text at all.
        """
        readers: dict[int, Iterator[Any]] = {}
        window: list[str] = []
        size, idle = 0, 0
        while True:
            index = self._next_source()
            if index not in readers:
                readers[index] = self.sources[index].read(self.state["places"][index])
            item = next(readers[index], None)
            if item is None:
                del readers[index]
                ends_epoch = self._end_source(index)
                idle += 1
                if idle > 2 * len(self.sources):
                    names = ", ".join(source.name for source in self.sources)
                    raise CorpusError(f"{names}: no text found. Every document is empty or blank.")
                if ends_epoch and window:
                    yield window
                    window, size = [], 0
                continue
            document, self.state["places"][index] = item
            if isinstance(document, Malformed):
                if not self.skip_malformed:
                    raise CorpusError(
                        f"{document.message}. Mend or remove it, or go over such by --malformed_rows skip."
                    )
                self.state["skipped"] += 1
                continue
            if not document.strip():
                continue
            idle = 0
            self.state["characters"][index] += len(document)
            window.append(document)
            size += len(document)
            if len(window) == PACKING_WINDOW or size >= MAX_WINDOW_CHARACTERS:
                yield window
                window, size = [], 0

    def _next_source(self) -> int:
        if self.weights is None:
            return self.state["current"]
        shares = [given / weight for given, weight in zip(self.state["characters"], self.weights, strict=True)]
        return shares.index(min(shares))

    def _end_source(self, index: int) -> bool:
        """Notes that a source has ended; returns whether all of them have, together."""
        self.state["places"][index] = None
        if self.weights is not None:
            return False
        self.state["current"] = (index + 1) % len(self.sources)
        self.state["epoch"] += self.state["current"] == 0
        return self.state["current"] == 0


class RowStream(torch.utils.data.IterableDataset):
    """Packed rows of a stream of documents, window by window, without end.

    Rows are those that `data.tokenize_and_pack` makes of the same documents. Reading begins where `load_state_dict`
    says; a position inside a window is taken up by packing that window again, so at most one window is read twice.

    Args:
        documents: The documents.
        tokenizer: As for `data.tokenize_and_pack`, like the next two.
        max_length: Length of a row.
        strategy: `"best_fit"` or `"sequential"`.
        shuffle_seed: Seed of the order of rows within a window; None keeps the order.
    """

    def __init__(
        self,
        documents: DocumentStream,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        *,
        strategy: str = "best_fit",
        shuffle_seed: int | None = None,
    ):
        super().__init__()
        self.documents = documents
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.strategy = strategy
        self.shuffle_seed = shuffle_seed
        self._start: dict[str, Any] = {}
        # Windows that were begun: the number of their first row, counted from the start of reading, and their state.
        self._marks: collections.deque[tuple[int, dict[str, Any]]] = collections.deque()
        self.rewind()

    def rewind(self) -> None:
        """Reading begins at the beginning."""
        self.documents.rewind()
        self.load_state_dict({"documents": self.documents.state, "window": 0, "row": 0})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Reading begins at a saved position.

        Raises:
            ConfigError: the position is that of other sources.
        """
        if len(state["documents"]["places"]) != len(self.documents.sources):
            raise ConfigError(
                f"the checkpoint's position is in {len(state['documents']['places'])} sources, --corpus names "
                f"{len(self.documents.sources)}. Resume with the corpus of the run."
            )
        self._start = copy.deepcopy(state)
        self._marks.clear()

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

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        start = copy.deepcopy(self._start)
        self._marks.clear()
        self.documents.state = start["documents"]
        number, skip, window = -start["row"], start["row"], start["window"]
        before = copy.deepcopy(self.documents.state)
        for texts in self.documents.windows():
            rows = pack(
                tokenize_documents(texts, self.tokenizer),
                self.max_length,
                pad_token_id=filler_token_id(self.tokenizer),
                strategy=self.strategy,
            )
            count = len(rows["input_ids"])
            order = np.arange(count)
            if self.shuffle_seed is not None:
                order = np.random.default_rng([self.shuffle_seed, window]).permutation(count)
            self._marks.append((number, {"documents": before, "window": window}))
            for row in order[skip:]:
                yield {name: values[row] for name, values in rows.items()}
            number, skip, window = number + count, 0, window + 1
            before = copy.deepcopy(self.documents.state)


def check_streaming(data_args: DataArguments, training_args: Any) -> None:
    """Raises `ConfigError` for what a corpus without a known end does not allow."""
    if training_args.max_steps <= 0:
        raise ConfigError("--streaming needs --max_steps: a stream has no length to count epochs by.")
    if not data_args.validation_file:
        raise ConfigError("--streaming needs --validation_file: nothing can be drawn from a stream that is not read.")


def open_documents(data_args: DataArguments) -> DocumentStream:
    """The stream of documents that the options ask for.

    Raises:
        ConfigError: options that do not go together.
        CorpusError: a source that is not there.
    """
    form = {"text_column": data_args.text_column, "document_separator": data_args.document_separator}
    sources = [open_source(name, **form) for name in data_args.corpus]
    return DocumentStream(sources, data_args.corpus_weights, skip_malformed=data_args.malformed_rows == "skip")


def first_texts(documents: DocumentStream, characters: int = 50_000_000) -> Iterator[str]:
    """Documents from the beginning, up to so many characters in all or one pass; the stream is rewound after."""
    documents.rewind()
    for texts in documents.windows():
        yield from texts
        if sum(documents.state["characters"]) >= characters or documents.state["epoch"] > 0:
            break
    documents.rewind()
