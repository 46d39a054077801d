"""Data is the same by its content, not by its name."""

import datasets
import pytest
import torch

from hf_gpt.data.fingerprint import fingerprint, stream_fingerprint
from hf_gpt.data.sources import open_source
from hf_gpt.data.streaming import DocumentStream
from hf_gpt.errors import ConfigError


def test_rows_differ_where_one_token_does():
    rows = [{"input_ids": [1, 2, number]} for number in range(50)]
    table = datasets.Dataset.from_list(rows)
    other = [*rows[:25], {"input_ids": [1, 2, 999]}, *rows[26:]]
    assert fingerprint(rows) == fingerprint([dict(row) for row in rows]) != fingerprint(other)
    assert (
        fingerprint(table)
        == fingerprint(datasets.Dataset.from_list(rows))
        != fingerprint(datasets.Dataset.from_list(other))
    )
    assert fingerprint(table.select(range(49))) != fingerprint(table)
    # Rows in another order are other rows, also by an index.
    assert fingerprint(table.select([*range(1, 50), 0])) != fingerprint(table)
    tensors = [{"x": torch.ones(2, dtype=torch.bfloat16)}]
    assert fingerprint(tensors) != fingerprint([{"x": torch.ones(3, dtype=torch.bfloat16)}])
    assert fingerprint(None) is None


def test_rows_that_cannot_be_looked_at_are_counted():
    class Drawn(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            raise AssertionError("it would draw random numbers")

    assert fingerprint(Drawn()) == "3 rows"


def test_of_a_stream_what_was_read_counts(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [f'{{"text": "row {number}"}}\n' for number in range(20)]
    path.write_text("".join(lines))

    def stream():
        return DocumentStream([open_source(str(path))], window_size=5)

    first = stream()
    next(first.windows())
    state = first.state
    expected = stream_fingerprint(first, state)
    path.write_text("".join([*lines[:10], '{"text": "mended"}\n', *lines[11:], '{"text": "new"}\n']))
    assert stream_fingerprint(stream(), state) == expected
    path.write_text("".join([lines[0].replace("row", "cow"), *lines[1:]]))
    assert stream_fingerprint(stream(), state) != expected
    path.write_text("".join(lines[:2]))
    assert stream_fingerprint(stream(), state) != expected


def test_a_large_file_is_looked_at_in_parts(tmp_path, monkeypatch):
    from hf_gpt.data import fingerprint as module

    monkeypatch.setattr(module, "_PARTS", 4)
    monkeypatch.setattr(module, "_PART_BYTES", 8)
    path = tmp_path / "text.txt"
    path.write_text("a" * 100)
    documents = DocumentStream([open_source(str(path))])
    state = {**documents.state, "positions": [[100]]}
    before = stream_fingerprint(documents, state)
    path.write_text("a" * 99 + "b")
    assert stream_fingerprint(documents, state) != before


def test_a_position_in_other_sources_is_refused(tmp_path):
    from hf_gpt.data.streaming import WindowStream

    class Rows(WindowStream):
        def encode(self, window):
            return window

    path = tmp_path / "text.txt"
    path.write_text("a text")
    stream = Rows(DocumentStream([open_source(str(path))]))
    with pytest.raises(ConfigError, match="in 2 sources, of which now 1 are named"):
        stream.check_position({"documents": {"positions": [None, None]}})
