"""Tokenising and packing: tokens a second, for texts of growing size."""

import random
from collections.abc import Iterator

from hf_gpt.eval.speed.timing import Contender, timed
from hf_gpt.training.data import tokenize_documents
from hf_gpt.training.packing import pack
from hf_gpt.training.tokenizer import train_tokenizer


ROW = 512
_WORDS, _DOCUMENT_WORDS = 5000, 300


def contenders(megabytes: float) -> list[Contender]:
    """The text whole, and a quarter of it: time should be four times."""
    documents = list(_documents(int(megabytes * 1e6)))
    tokenizer = train_tokenizer(iter(documents[: max(1, len(documents) // 10)]), 4096)
    encoded = tokenize_documents(documents, tokenizer)
    num_tokens = sum(map(len, encoded))
    quarter = documents[: len(documents) // 4]
    quarter_encoded = encoded[: len(quarter)]
    races = [
        ("tokenising", lambda: tokenize_documents(documents, tokenizer), num_tokens),
        ("tokenising, a quarter", lambda: tokenize_documents(quarter, tokenizer), sum(map(len, quarter_encoded))),
        ("packing", lambda: pack(encoded, ROW, pad_token_id=tokenizer.pad_token_id), num_tokens),
        (
            "packing, a quarter",
            lambda: pack(quarter_encoded, ROW, pad_token_id=tokenizer.pad_token_id),
            sum(map(len, quarter_encoded)),
        ),
    ]
    return [Contender(name, timed(run), work=work, notes={"unit": "tokens"}) for name, run, work in races]


def _documents(num_bytes: int) -> Iterator[str]:
    generator = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["".join(generator.choices(letters, k=generator.randint(2, 9))) for _ in range(_WORDS)]
    weights = [1 / rank for rank in range(1, _WORDS + 1)]
    while num_bytes > 0:
        text = " ".join(generator.choices(words, weights, k=generator.randint(20, 2 * _DOCUMENT_WORDS)))
        num_bytes -= len(text)
        yield text
