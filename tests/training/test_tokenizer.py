import random

import pytest
from transformers import AutoTokenizer

from hf_gpt.training.errors import ConfigError
from hf_gpt.training.tokenizer import END_OF_TEXT, PAD, train_tokenizer


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
