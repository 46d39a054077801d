import random
import time

import pytest
from transformers import AutoTokenizer

from hf_gpt.data.tokenizer import END_OF_TEXT, LONGEST_WORD, PAD, train_tokenizer
from hf_gpt.data.word_encoding import encode_texts
from hf_gpt.errors import ConfigError


AWKWARD = [
    "",
    " ",
    "\n",
    "\r\n\r\n \t\n",
    "it's  two   spaces , and a comma .",
    "naïve café 中文 🙂‍↔️ e\u0301 \u200b\ufeff",
    "\x00\x01\x7f\x80\xff",
    "1234567890 3.14159",
    "<|endoftext|> and <|pad|> spelled out",
    "".join(map(chr, range(256))),
]


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_random_texts_round_trip(tokenizer):
    rng = random.Random(0)
    for _ in range(200):
        points = [
            rng.choice([rng.randrange(128), rng.randrange(0x3000), rng.randrange(0x10000, 0x110000)]) for _ in range(30)
        ]
        text = "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_every_byte_is_a_token(tokenizer):
    from tokenizers.pre_tokenizers import ByteLevel

    assert set(ByteLevel.alphabet()) <= set(tokenizer.get_vocab())


def test_special_tokens(tokenizer):
    assert tokenizer.bos_token == tokenizer.eos_token == END_OF_TEXT
    assert tokenizer.pad_token == PAD and tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer("")["input_ids"] == []


def test_deterministic(corpus_text, tokenizer):
    again = train_tokenizer([corpus_text], 320)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_saved_and_opened_by_the_auto_class(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    opened = AutoTokenizer.from_pretrained(tmp_path)
    for text in AWKWARD:
        assert opened(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert opened.decode(opened(text)["input_ids"]) == text
    assert opened.pad_token_id == tokenizer.pad_token_id and opened.padding_side == "left"


def test_too_small_a_vocabulary():
    with pytest.raises(ConfigError, match="258"):
        train_tokenizer(["text"], 200)


@pytest.mark.parametrize(
    "text",
    ["a", " ", "\n", "-", "1", "\r\n", "é", "今天天气很好", "ACGTTGCA", "\t", "\u0301", "😀"],
    ids=ascii,
)
def test_text_without_words_is_learnt_in_parts_and_comes_back(text):
    text *= 100_000 // len(text)
    tokenizer = train_tokenizer([text], 300)
    ids = tokenizer(text, verbose=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    # The split is saved with the tokenizer, so no token joins more than it allows, plus the sign before a word.
    assert max(len(tokenizer.decode(token)) for token in set(ids)) <= LONGEST_WORD + 1
    (fast,) = encode_texts([text], tokenizer)
    assert fast.tolist() == ids


def test_learning_takes_time_in_proportion():
    letters = random.Random(0).choices("ACGT", k=60_000)
    seconds = []
    for size in (15_000, 60_000):
        begin = time.perf_counter()
        train_tokenizer(["".join(letters[:size])], 600)
        seconds.append(time.perf_counter() - begin)
    # Four times the text took about sixteen times as long when a text without spaces was one word.
    assert seconds[1] < 10 * seconds[0] + 0.5


def test_long_words_are_cut_where_they_were_cut_in_training(tmp_path):
    word = "x" * 150
    tokenizer = train_tokenizer([f"{word} {word}"], 300)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(word)["input_ids"] == tokenizer(word)["input_ids"]
    assert [len(again.decode(token)) for token in again(word)["input_ids"]] == [64, 64, 22]


def test_a_stopped_tokenizer_ends_in_a_line(tmp_path, monkeypatch, capsys):
    from hf_gpt.cli import tokenizer as train_tokenizer
    from hf_gpt.data import tokenizer as own

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(own, "train_tokenizer", stop)
    assert train_tokenizer.main(["--train_file", "tinyshakespeare", "--output_dir", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err.strip() == "Stopped. A tokenizer is written whole or not at all."
    assert not (tmp_path / "out").exists()
