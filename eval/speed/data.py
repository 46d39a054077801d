"""Reading, tokenising and packing: tokens for each second of processor time, for texts of growing size.

Processor time counts all threads, so tokens a second are those of one core.
"""

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hf_gpt.eval.speed.timing import Contender
from hf_gpt.training.corpus import CORPORA
from hf_gpt.training.data import tokenize_documents
from hf_gpt.training.packing import pack
from hf_gpt.training.sources import open_source
from hf_gpt.training.streaming import DocumentStream, RowStream
from hf_gpt.training.tokenizer import train_tokenizer


ROW = 512
_WORDS, _DOCUMENT_WORDS = 5000, 300


def contenders(megabytes: float) -> list[Contender]:
    """The text whole, and a quarter of it: time should be four times. Natural text has more words that occur once."""
    documents = list(_documents(int(megabytes * 1e6)))
    quarter = documents[: len(documents) // 4]
    natural = (CORPORA / "tinyshakespeare.txt").read_text(encoding="utf-8")[: int(megabytes * 1e6)].split("\n\n")
    tokenizer, its_tokenizer = (train_tokenizer(iter(texts[:2000]), 4096) for texts in (documents, natural))
    encoded, its_encoded = tokenize_documents(documents, tokenizer), tokenize_documents(natural, its_tokenizer)
    quarter_encoded = encoded[: len(quarter)]
    # Goes with the last of what reads from it.
    folder = tempfile.TemporaryDirectory()
    for name, texts in (("made", documents), ("natural", natural)):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (Path(folder.name) / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    options = {"add_special_tokens": False, "split_special_tokens": True, "return_attention_mask": False}
    races: list[tuple[str, Callable[[], Any], list[list[int]]]] = [
        ("tokenising", lambda: tokenize_documents(documents, tokenizer), encoded),
        ("tokenising, a quarter", lambda: tokenize_documents(quarter, tokenizer), quarter_encoded),
        ("tokenising, by the library alone", lambda: tokenizer(documents, **options), encoded),
        ("tokenising Shakespeare", lambda: tokenize_documents(natural, its_tokenizer), its_encoded),
        ("tokenising Shakespeare, by the library alone", lambda: its_tokenizer(natural, **options), its_encoded),
        ("packing", lambda: pack(encoded, ROW, pad_token_id=tokenizer.pad_token_id), encoded),
        (
            "packing, a quarter",
            lambda: pack(quarter_encoded, ROW, pad_token_id=tokenizer.pad_token_id),
            quarter_encoded,
        ),
        ("reading, tokenising and packing", lambda: _stream(folder, "made", tokenizer), encoded),
        ("the same of Shakespeare", lambda: _stream(folder, "natural", its_tokenizer), its_encoded),
    ]
    return [
        Contender(name, _processor_seconds(run), work=sum(map(len, tokens)), notes={"unit": "tokens"})
        for name, run, tokens in races
    ]


def _processor_seconds(function: Callable[[], Any]) -> Callable[[], list[float]]:
    def measure() -> list[float]:
        begin = time.process_time()
        function()
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
