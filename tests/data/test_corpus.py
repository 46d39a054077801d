import gzip
import json

import pytest

from hf_gpt.data.corpus import count_bytes, read_corpus, split_corpus
from hf_gpt.errors import CorpusError


def test_built_in_corpus():
    corpus = read_corpus(["tinyshakespeare"])
    assert len(corpus) == 1 and count_bytes(corpus) == 1_115_394


def test_text_is_kept_but_for_line_ends(tmp_path):
    (tmp_path / "a.txt").write_bytes("one\r\ntwo\n\nthree é\t\rfour\n".encode())
    assert read_corpus([str(tmp_path / "a.txt")])[0]["text"] == "one\ntwo\n\nthree é\t\nfour\n"


@pytest.mark.parametrize("separator", ["\n\n", r"\n\n"])
def test_document_separator(tmp_path, separator):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\n\n\nthree")
    assert read_corpus([str(tmp_path / "a.txt")], document_separator=separator)["text"] == ["one", "two", "three"]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_tables(tmp_path, kind):
    import datasets

    table = datasets.Dataset.from_dict({"story": ["one", "", "two"], "n": [1, 2, 3]})
    path = str(tmp_path / f"a.{kind}")
    {"jsonl": table.to_json, "csv": table.to_csv, "parquet": table.to_parquet}[kind](path)
    assert read_corpus([path], text_column="story")["text"] == ["one", "two"]


def test_texts_that_look_like_nothing_are_texts(tmp_path):
    path = tmp_path / "corpus.csv"
    path.write_text("text,other\nNone,1\nNA,2\n,3\nnull,\n")
    assert read_corpus([str(path)])["text"][:] == ["None", "NA", "null"]


def test_several_files_are_joined(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.jsonl").write_text('{"text": "two"}\n')
    assert read_corpus([str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl")])["text"] == ["one", "two"]


def error_of(path, **kwargs):
    with pytest.raises(CorpusError) as caught:
        read_corpus([str(path)], **kwargs)
    return str(caught.value)


def test_non_utf8_names_the_byte_and_the_remedy(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("plain text, then caf\xe9".encode("latin-1"))
    message = error_of(path)
    assert "latin.txt" in message and "0xe9 at offset 20" in message and "iconv" in message


def test_utf16_is_recognised(tmp_path):
    path = tmp_path / "wide.txt"
    path.write_bytes("text".encode("utf-16"))
    assert "iconv -f UTF-16" in error_of(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", ""), ("a.txt", "  \n\n "), ("a.csv", ""), ("a.jsonl", ""), ("a.jsonl", '{"text": ""}')],
)
def test_empty_file(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    message = error_of(tmp_path / name)
    assert name in message and ("empty" in message or "blank" in message)


def test_missing_file_and_folder(tmp_path):
    assert "no such file" in error_of(tmp_path / "nothing.txt")
    assert "did you mean tinyshakespeare?" in error_of("tinyshakespear")
    assert "is a folder" in error_of(tmp_path)


def test_wrong_column_names_the_others(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"txt": "one", "n": 1}\n')
    message = error_of(tmp_path / "a.jsonl")
    assert "did you mean txt?" in message and "--text_column" in message
    assert "a.jsonl, line 1: 'n' is a int, not text" in error_of(tmp_path / "a.jsonl", text_column="n")


def test_malformed_line_is_named(tmp_path):
    lines = [json.dumps({"text": "one"}), '{"text": "two', json.dumps({"text": "three"})]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert "line 2" in error_of(tmp_path / "a.jsonl")


def test_split_of_one_document_takes_blocks_that_end_at_a_line(tmp_path):
    text = "".join(f"line {n}\n" for n in range(1000))
    (tmp_path / "a.txt").write_text(text)
    train, validation = split_corpus(read_corpus([str(tmp_path / "a.txt")]), 0.1, seed=0)
    parts = sorted([*train["text"], *validation["text"]], key=text.index)
    assert "".join(parts) == text and all(part.endswith("\n") for part in parts)
    assert sum(map(len, validation["text"])) / len(text) == pytest.approx(0.1, abs=0.02)
    assert len(validation) > 3


def test_split_of_documents_is_drawn_by_seed(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(f"document {n}" for n in range(50)))
    corpus = read_corpus([str(tmp_path / "a.txt")], document_separator="\n\n")
    train, validation = split_corpus(corpus, 0.1, seed=0)
    assert len(validation) == 5 and sorted([*train["text"], *validation["text"]]) == sorted(corpus["text"])
    assert split_corpus(corpus, 0.1, seed=0)[1]["text"] == validation["text"]
    assert split_corpus(corpus, 0.1, seed=1)[1]["text"] != validation["text"]


@pytest.mark.parametrize("fraction", [0, 1, -0.1])
def test_split_fraction_out_of_range(tmp_path, fraction):
    (tmp_path / "a.txt").write_text("some text\n" * 9)
    with pytest.raises(CorpusError, match="above 0 and below 1"):
        split_corpus(read_corpus([str(tmp_path / "a.txt")]), fraction, seed=0)


def test_too_little_text_to_split(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(CorpusError, match="too few"):
        split_corpus(read_corpus([str(tmp_path / "a.txt")]), 0.1, seed=0)


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "a.csv.gz"])
def test_packed_files_read_as_unpacked_ones(tmp_path, name):
    contents = {"a.txt.gz": "to be\n", "a.jsonl.gz": '{"text": "to be\\n"}\n', "a.csv.gz": 'text\n"to be\n"\n'}
    (tmp_path / name).write_bytes(gzip.compress(contents[name].encode()))
    assert read_corpus([str(tmp_path / name)])["text"] == ["to be\n"]


def test_a_broken_package_is_named(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"to be or not" * 50)[:-20])
    with pytest.raises(CorpusError, match=r"a\.txt\.gz: cannot be unpacked"):
        read_corpus([str(tmp_path / "a.txt.gz")])
