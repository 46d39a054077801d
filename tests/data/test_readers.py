"""Every reader gives the same texts and refuses the same rows, whatever the format and whether it streams."""

import csv
import datetime
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_gpt.cli.score import read_texts
from hf_gpt.data import text_files
from hf_gpt.data.corpus import read_corpus
from hf_gpt.data.examples import read_examples, text_of
from hf_gpt.data.sources import Malformed, open_source, warn_of_absent_separator
from hf_gpt.data.streaming import DocumentStream, one_pass
from hf_gpt.errors import CorpusError
from hf_gpt.evaluation.tasks.registry import TaskSpec
from hf_gpt.evaluation.tasks.rows import read_task_rows


DOCUMENTS = [f"Document {n}\nsecond line é" for n in range(200)]


def in_memory(path, separator=None):
    return list(read_corpus([str(path)], document_separator=separator)["text"])


def streamed(path, separator=None):
    return list(one_pass(DocumentStream([open_source(str(path), document_separator=separator)])))


def scored(path, separator=None):
    return list(read_texts(str(path), document_separator=separator))


def evaluated(path, separator=None):
    spec = TaskSpec("own", "language_modelling", document_separator=separator or "")
    return [row["text"] for row in read_task_rows(spec, path)]


READERS = [in_memory, streamed, scored, evaluated]


def finetuned(path, separator=None):
    return [text_of(row, "text") for row in read_examples([path], {"text_column": "text"})]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("separator", ["\n\n", r"\n\n", "\r\n\r\n", r"\r\n\r\n", r"\r\r"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_line_ends_do_not_matter(tmp_path, read, separator, line_end):
    path = tmp_path / "a.txt"
    path.write_bytes("\n\n".join(DOCUMENTS).replace("\n", line_end).encode())
    assert read(path, separator) == DOCUMENTS


@pytest.mark.parametrize("read", READERS)
def test_mixed_line_ends_are_one_kind(tmp_path, read):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\ntwo\r\rthree\n\r\nfour\nfive\rsix\r\nseven")
    assert read(path, r"\n\n") == ["one", "two", "three", "four\nfive\nsix\nseven"]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("separator", ["\n\n", "\n", "\n--\n", "x\n"])
def test_streams_cut_where_the_whole_file_is_cut_and_go_on_from_each_place(tmp_path, monkeypatch, chunk, separator):
    monkeypatch.setattr(text_files, "_CHUNK_BYTES", chunk)
    content = "one\r\n\r\ntwo x\r\n--\r\nthree\r\rfour\n\nfive\r\n--\rsix x\rseven\r\r\n\neight\r"
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())
    expected = [part for part in content.replace("\r\n", "\n").replace("\r", "\n").split(separator) if part.strip()]
    items = list(open_source(str(path), document_separator=separator).read(None))
    assert [text for text, _ in items if text.strip()] == expected
    for number, (_, place) in enumerate(items):
        again = [text for text, _ in open_source(str(path), document_separator=separator).read(place)]
        assert again == [text for text, _ in items[number + 1 :]]


def test_a_long_text_is_not_parted_within_a_line_end(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_DOCUMENT_BYTES", 50)
    monkeypatch.setattr(text_files, "_CHUNK_BYTES", 10)
    text = "".join(f"line {n}\r\n" for n in range(60))
    (tmp_path / "a.txt").write_bytes(text.encode())
    parts = [part for part, _ in open_source(str(tmp_path / "a.txt")).read(None)]
    assert "".join(parts) == text.replace("\r\n", "\n") and len(parts) > 5


def test_a_packed_text_is_folded_too(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("\r\n\r\n".join(["one", "two"]).encode()))
    assert in_memory(tmp_path / "a.txt.gz", "\n\n") == ["one", "two"]


def test_a_separator_that_never_occurs_is_warned_of(tmp_path, caplog):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\r\n\r\ntwo<|endoftext|>three")
    assert len(in_memory(path, "###")) == 1
    assert "'###' does not occur" in caplog.text and "'<|endoftext|>' 1 times" in caplog.text
    assert "'\\n\\n' 1 times" in caplog.text
    caplog.clear()
    warn_of_absent_separator([str(path)], "###")
    assert "'###' does not occur" in caplog.text
    caplog.clear()
    assert len(in_memory(path, r"\n\n")) == 2
    warn_of_absent_separator([str(path)], r"\n\n")
    assert not caplog.text


def test_utf16_without_a_mark_is_no_utf8(tmp_path):
    (tmp_path / "a.txt").write_bytes("plain words".encode("utf-16-le"))
    for read in READERS:
        with pytest.raises(ValueError, match="iconv -f UTF-16LE"):
            read(tmp_path / "a.txt")


# Rows of a .jsonl file that are no text, and what is said of the second line.
BAD_LINES = [
    '{"text": 5}',
    '{"text": 5.5}',
    '{"text": true}',
    '{"text": ["a"]}',
    '{"text": {"a": "b"}}',
    '{"other": "a"}',
    '["a"]',
    '"a"',
    "5",
    "null",
    '{"text": "a',
    '{"text": "a", "text": "b"}',
    '{"text": "\\ud83d"}',
    '{"text": "a\0b"}',
    "[" * 100_000,
    '{"text": ' + "1" * 5000 + "}",
]


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:20])
@pytest.mark.parametrize("read", [*READERS, finetuned])
def test_a_bad_row_is_named_by_every_reader(tmp_path, read, line):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "one"}}\n{line}\n{{"text": "three"}}\n', encoding="utf-8")
    with pytest.raises(CorpusError, match=r"a\.jsonl, line 2: ") as error:
        read(path)
    assert any(advice in str(error.value) for advice in ("Mend or remove", "Choose with", "It has"))


@pytest.mark.parametrize("read", [*READERS, finetuned])
def test_a_byte_that_is_no_utf8_is_named(tmp_path, read):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n{"text": "\xff"}\n')
    (tmp_path / "a.csv").write_bytes(b"text,n\none,1\n\xff,2\n")
    with pytest.raises(CorpusError, match=r"a\.jsonl, line 2: not UTF-8"):
        read(tmp_path / "a.jsonl")
    with pytest.raises(CorpusError, match=r"a\.csv, row 2: .*not UTF-8"):
        read(tmp_path / "a.csv")


def test_a_quote_that_does_not_end_is_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'text\none\n"two\nthree\nfour\n')
    for read in [*READERS, finetuned]:
        with pytest.raises(CorpusError, match=r"a\.csv, row 2: "):
            read(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
@pytest.mark.parametrize("read", [*READERS, finetuned])
def test_two_columns_of_one_name_are_refused(tmp_path, read, name):
    if name == "a.csv":
        (tmp_path / name).write_text("text,text\none,two\n")
    else:
        pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / name)
    with pytest.raises(CorpusError, match="text"):
        read(tmp_path / name)


# Texts that another reader might take for something else.
PLAIN = ["2020-01-01", "12", "1.0", "true", "None", "NA", "007", "a\0b", "\ufeffmark", 'quo"te, comma', "two\nlines"]


def write_rows(path, rows):
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
@pytest.mark.parametrize("read", [*READERS, finetuned])
def test_text_stays_text(tmp_path, read, name):
    path = write_rows(tmp_path / name, [{"text": text, "n": "1"} for text in PLAIN])
    if read is streamed and name == "a.json":
        with pytest.raises(CorpusError, match=r"a\.jsonl"):
            read(path)
        return
    assert read(path) == PLAIN


@pytest.mark.parametrize("value", [5, 1.5, True, ["a"], datetime.date(2020, 1, 1), b"\xff"])
@pytest.mark.parametrize("read", [*READERS, finetuned])
def test_a_parquet_column_that_holds_no_text_is_refused(tmp_path, read, value):
    pq.write_table(pa.Table.from_pylist([{"text": value}]), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"a\.parquet, row.*not text|a\.parquet, row.*must be a text"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize("read", READERS)
def test_blank_and_null_texts_are_left_out(tmp_path, read):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n   \n{"text": null}\n{"text": " "}\n{"text": "two"}\n')
    assert read(tmp_path / "a.jsonl") == ["one", "two"]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("read", [*READERS, finetuned])
def test_rows_end_at_any_line_end_and_only_there(tmp_path, read, line_end):
    texts = ["one\u2028more", "two\x85more", "x" * 300_000]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    (tmp_path / "a.jsonl").write_bytes("\ufeff".encode() + line_end.join(lines).encode())
    assert read(tmp_path / "a.jsonl") == texts
    source = open_source(str(tmp_path / "a.jsonl"))
    places = [place for _, place in source.read(None)]
    for number, place in enumerate(places):
        assert [text for text, _ in source.read(place)] == texts[number + 1 :]


def test_json_files_hold_an_array_an_object_or_lines(tmp_path):
    rows = [{"text": "one"}, {"text": "two"}]
    contents = [json.dumps(rows), json.dumps(rows, indent=1), "\n".join(map(json.dumps, rows))]
    for content in contents:
        (tmp_path / "a.json").write_text(content)
        assert in_memory(tmp_path / "a.json") == finetuned(tmp_path / "a.json") == ["one", "two"]
    assert streamed(tmp_path / "a.json") == ["one", "two"]


def test_a_large_file_is_kept_on_disk_until_it_changes(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr("hf_gpt.data.arrow_cache.MOST_BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = write_rows(tmp_path / "a.jsonl", [{"text": "one"}, {"text": "two"}])
    assert in_memory(path) == ["one", "two"]
    first = list((tmp_path / "cache").rglob("*.arrow"))
    assert in_memory(path) == ["one", "two"] and list((tmp_path / "cache").rglob("*.arrow")) == first
    write_rows(path, [{"text": "one"}, {"text": "six"}])
    assert in_memory(path) == ["one", "six"]
    path.write_text('{"text": "one"}\n{"text": 5}\n')
    with pytest.raises(CorpusError, match="line 2"):
        in_memory(path)
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_a_stream_goes_over_malformed_rows_where_it_is_told_to(tmp_path):
    lines = [json.dumps({"text": "one"}), *BAD_LINES[:6], json.dumps({"text": "two"})]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    stream = DocumentStream([open_source(str(tmp_path / "a.jsonl"))], skip_malformed=True)
    assert next(stream.windows()) == ["one", "two"] and stream.state["skipped"] == 6
    items = [item for item, _ in open_source(str(tmp_path / "a.jsonl")).read(None)]
    assert sum(isinstance(item, Malformed) for item in items) == 6
