"""Rated words as examples: what is read, what is left out, and what the fine-tuning experiment makes of them."""

import json

import pytest

from eval.experiments import polarity_words


LINES = (
    "good\t1.9\t0.9\t[2]\n"
    "(:\t2.2\t0.6\t[2]\n"
    "4ever\t1.0\t0.6\t[2]\n"
    "fed up\t-1.8\t0.7\t[1]\n"
    "bad\t-2.5\t0.6\t[3]\n"
    "so-so\t0.2\t0.6\t[3]\n"
    "can't stand\t-2.0\t0.6\t[3]\n"
    "well-made\t1.0\t0.1\t[2]\n"
)


@pytest.fixture
def lexicon(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text(LINES)
    return path


def test_words_alone_are_read(lexicon):
    assert polarity_words.read_ratings(lexicon) == {"good": 1.9, "bad": -2.5, "so-so": 0.2, "well-made": 1.0}
    lexicon.write_text("good\tvery\n")
    with pytest.raises(ValueError, match=r"lexicon\.txt, line 1"):
        polarity_words.read_ratings(lexicon)


def test_words_have_the_sign_of_their_rating_and_negated_ones_the_other(lexicon):
    ratings = polarity_words.read_ratings(lexicon)
    rows = polarity_words.examples(ratings, negated_share=0.0, seed=0)
    assert rows == [
        {"text": " good", "label": 1},
        {"text": " bad", "label": 0},
        {"text": " well-made", "label": 1},
    ]
    rows = polarity_words.examples(ratings, negated_share=1.0, seed=0)
    negated = {row["text"].split()[-1]: row["label"] for row in rows if len(row["text"].split()) > 1}
    # A word that is rated weakly says nothing negated.
    assert negated == {"good": 0, "bad": 1}


def test_file_is_written_without_what_is_left_out(lexicon, tmp_path, capsys):
    path = tmp_path / "new" / "words.jsonl"
    assert polarity_words.write_words(path, lexicon, is_left_out=lambda text: text.strip() == "bad") == 2
    assert [json.loads(line)["text"] for line in path.read_text().splitlines()] == [" good", " well-made"]
    assert [file.name for file in path.parent.iterdir()] == ["words.jsonl"]
    assert polarity_words.main([str(path), "--lexicon", str(lexicon), "--negated_share", "1"]) == 0
    assert "5 examples" in capsys.readouterr().out


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(polarity_words.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install vaderSentiment"):
        polarity_words.read_ratings()


def test_words_of_the_package():
    pytest.importorskip("vaderSentiment", reason="the words are those of vaderSentiment (extra lexicon)")
    ratings = polarity_words.read_ratings()
    assert len(ratings) > 7000 and ratings["masterpiece"] > 2 > -2 > ratings["horrible"]
