"""Reading, tokenising and packing: tokens for each second of processor time.

Processor time counts all threads, so tokens a second are those of one core. Each run has a tokenizer that has not seen
the text.
"""

import copy
import json
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
    """Generated text and natural text, which has more words that occur once: a file, or Tiny Shakespeare.

    Documents of the file stand between empty lines.
    """
    documents = list(_documents(int(megabytes * 1e6)))
    natural = re.split(r"\n\s*\n", (text or SHAKESPEARE).read_text(encoding="utf-8")[: int(megabytes * 1e6)])
    # Goes with the last of what reads from it.
    folder = tempfile.TemporaryDirectory()
    options = {"add_special_tokens": False, "split_special_tokens": True, "return_attention_mask": False}
    found = []
    for name, texts in (("", documents), (" natural text", natural)):
        tokenizer = train_tokenizer(iter(texts[:2000]), 4096)
        encoded = tokenize_documents(texts, tokenizer)
        path = Path(folder.name) / f"{name or 'made'}.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        races: dict[str, Callable[[Any], Any]] = {
            f"tokenising{name}": lambda its, texts=texts: tokenize_documents(texts, its),
            f"tokenising{name}, by the library alone": lambda its, texts=texts: its(texts, **options),
            f"packing{name}": lambda its, encoded=encoded: pack(encoded, ROW, pad_token_id=its.pad_token_id),
            f"reading, tokenising and packing{name}": lambda its, path=path: _stream(folder, path, its),
        }
        notes = {"work": sum(map(len, encoded)), "notes": {"unit": "tokens"}}
        found += [Contender(title, _processor_seconds(run, tokenizer), **notes) for title, run in races.items()]
    return found


def _processor_seconds(function: Callable[[Any], Any], tokenizer: Any) -> Callable[[], list[float]]:
    def measure() -> list[float]:
        fresh = copy.deepcopy(tokenizer)
        begin = time.process_time()
        function(fresh)
        return [time.process_time() - begin]

    return measure


def _stream(folder: tempfile.TemporaryDirectory, path: Path, tokenizer: Any) -> int:
    """Makes all rows of a file of JSON lines below a folder, window by window; returns their number."""
    stream = RowStream(DocumentStream([open_source(str(path))]), tokenizer, ROW)
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
