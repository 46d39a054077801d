"""Reading, tokenising and packing: tokens for each second of processor time, for texts of growing size.

Processor time counts all threads, so tokens a second are those of one core. Each run has a tokenizer that has not seen
the text.
"""

import copy
import json
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.benchmarks.speed.timing import Contender
from hf_gpt.data.corpus import CORPORA
from hf_gpt.data.packed_dataset import tokenize_documents
from hf_gpt.data.packing import pack
from hf_gpt.data.sources import open_source
from hf_gpt.data.streaming import DocumentStream, RowStream
from hf_gpt.data.tokenizer import train_tokenizer


ROW = 512
SHAKESPEARE = CORPORA / "tinyshakespeare.txt"
_WORDS, _DOCUMENT_WORDS = 5000, 300


def contenders(megabytes: float, text: Path | None = None) -> list[Contender]:
    """The text whole, and a quarter of it: time should be four times. Natural text has more words that occur once.

    Args:
        megabytes: Of each text, at most.
        text: A file of natural text, whose documents stand between empty lines. None: Tiny Shakespeare.
    """
    documents = list(_documents(int(megabytes * 1e6)))
    quarter = documents[: len(documents) // 4]
    natural = re.split(r"\n\s*\n", (text or SHAKESPEARE).read_text(encoding="utf-8")[: int(megabytes * 1e6)])
    tokenizer, its_tokenizer = (train_tokenizer(iter(texts[:2000]), 4096) for texts in (documents, natural))
    encoded, its_encoded = tokenize_documents(documents, tokenizer), tokenize_documents(natural, its_tokenizer)
    quarter_encoded = encoded[: len(quarter)]
    # Goes with the last of what reads from it.
    folder = tempfile.TemporaryDirectory()
    for name, texts in (("made", documents), ("natural", natural)):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (Path(folder.name) / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    options = {"add_special_tokens": False, "split_special_tokens": True, "return_attention_mask": False}
    races: list[tuple[str, Callable[[Any], Any], Any, Sequence[np.ndarray]]] = [
        ("tokenising", lambda its: tokenize_documents(documents, its), tokenizer, encoded),
        ("tokenising, a quarter", lambda its: tokenize_documents(quarter, its), tokenizer, quarter_encoded),
        ("tokenising, by the library alone", lambda its: its(documents, **options), tokenizer, encoded),
        ("tokenising natural text", lambda its: tokenize_documents(natural, its), its_tokenizer, its_encoded),
        (
            "tokenising natural text, by the library alone",
            lambda its: its(natural, **options),
            its_tokenizer,
            its_encoded,
        ),
        ("packing", lambda its: pack(encoded, ROW, pad_token_id=its.pad_token_id), tokenizer, encoded),
        (
            "packing, a quarter",
            lambda its: pack(quarter_encoded, ROW, pad_token_id=its.pad_token_id),
            tokenizer,
            quarter_encoded,
        ),
        ("reading, tokenising and packing", lambda its: _stream(folder, "made", its), tokenizer, encoded),
        ("the same of natural text", lambda its: _stream(folder, "natural", its), its_tokenizer, its_encoded),
    ]
    return [
        Contender(name, _processor_seconds(run, its), work=sum(map(len, tokens)), notes={"unit": "tokens"})
        for name, run, its, tokens in races
    ]


def _processor_seconds(function: Callable[[Any], Any], tokenizer: Any) -> Callable[[], list[float]]:
    def measure() -> list[float]:
        fresh = copy.deepcopy(tokenizer)
        begin = time.process_time()
        function(fresh)
        return [time.process_time() - begin]

    return measure


def _stream(folder: tempfile.TemporaryDirectory, name: str, tokenizer: Any) -> int:
    """Makes all rows of a file of JSON lines, window by window; returns their number."""
    source = open_source(str(Path(folder.name) / f"{name}.jsonl"))
    stream = RowStream(DocumentStream([source]), tokenizer, ROW)
    return sum(len(stream.encode(window)) for window in stream.documents.windows(passes=1))


def _documents(num_bytes: int) -> Iterator[str]:
    generator = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["".join(generator.choices(letters, k=generator.randint(2, 9))) for _ in range(_WORDS)]
    weights = [1 / rank for rank in range(1, _WORDS + 1)]
    while num_bytes > 0:
        text = " ".join(generator.choices(words, weights, k=generator.randint(20, 2 * _DOCUMENT_WORDS)))
        num_bytes -= len(text)
        yield text
