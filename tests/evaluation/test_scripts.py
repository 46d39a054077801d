"""Metrics that compare words do so in every script, and in English as the reference implementations do."""

import collections
import re
import string
import unicodedata

import pytest
import sacrebleu
from rouge_score import rouge_scorer

from hf_gpt.evaluation import compute
from hf_gpt.evaluation.text.references import chosen_tokenizer
from hf_gpt.evaluation.text.words import pieces, words
from hf_gpt.evaluation.two_sample.surface_tests import FEATURES, surface_features


SENTENCES = {
    "Chinese": "今天天气很好，我们去公园散步。",
    "Japanese": "今日はとても天気がいいです。",
    "Thai": "วันนี้อากาศดีมาก",
    "Lao": "ມື້ນີ້ອາກາດດີຫຼາຍ",
    "Khmer": "ថ្ងៃនេះអាកាសធាតុល្អណាស់",
    "Burmese": "ဒီနေ့ရာသီဥတုကောင်းတယ်",
    "Korean": "오늘은 날씨가 아주 좋습니다",
    "Russian": "сегодня очень хорошая погода",
    "Arabic": "الطَّقْسُ جَمِيلٌ جِدًّا اليوم",
    "Persian": "می‌خواهم به پارک بروم",
    "Hindi": "आज मौसम बहुत अच्छा है",
    "Greek": "ο καιρός είναι πολύ καλός",
    "Turkish": "İstanbul'da hava çok güzel",
    "German": "das Wetter ist heute sehr schön",
    "Tibetan": "དེ་རིང་གནམ་གཤིས་ཡག་པོ་འདུག",
    "rare Han": "𠀀𠀁𠀂𠀃𠀄𠀅",
    "emoji": "😀😎🎉❤️👍🏽",
}
ENGLISH = [
    ("The quick brown fox jumps over the lazy dog.", "A quick brown dog jumped over lazy foxes, didn't it?"),
    ("Rates rose by 2.5% in 2020; markets (mostly) fell.", "In 2020 rates rose 2.5 %.\nMarkets fell mostly."),
    ("It's the U.S.'s best-known author's e-mail_address", "the best known authors of the US"),
    ("!!!", "..."),
    ("", "an answer"),
    ("An apple a day", "apple day"),
]


@pytest.mark.parametrize("language", SENTENCES)
def test_identical_texts_are_perfect_and_different_ones_are_not(language):
    text = SENTENCES[language]
    other = "совсем другое предложение" if language != "Russian" else "今天"
    assert compute("rouge", [text], [[text]])["rouge1"] == pytest.approx(100)
    assert compute("rouge", [text], [[text]])["rougeL"] == pytest.approx(100)
    assert compute("rouge", [text], [[other]])["rouge1"] == 0
    assert compute("squad", [text], [[text]])["f1"] == pytest.approx(100)
    assert compute("squad", [text], [[other]])["f1"] == 0
    if language == "Tibetan" or (language != "Korean" and len(pieces(text)) >= 4):
        assert compute("sacrebleu", [text], [[text]])["sacrebleu"] == pytest.approx(100)
        assert compute("bleu", [text], [[text]])["bleu"] == pytest.approx(100)


@pytest.mark.parametrize("language", SENTENCES)
def test_composed_and_decomposed_characters_are_the_same(language):
    text = SENTENCES[language]
    decomposed = unicodedata.normalize("NFD", text)
    assert compute("rouge", [decomposed], [[text]])["rouge2"] == compute("rouge", [text], [[text]])["rouge2"]
    assert compute("squad", [decomposed], [[text]]) == compute("squad", [text], [[text]])
    for name, metric in (("sacrebleu", "chrf"), ("chrf", "chrf"), ("sacrebleu", "sacrebleu"), ("bleu", "bleu")):
        assert compute(name, [decomposed], [[text]])[metric] == compute(name, [text], [[text]])[metric]
        assert compute(name, [text], [[decomposed]])[metric] == compute(name, [text], [[text]])[metric]
    assert compute("duplicates", [decomposed, text])["duplicate_rate"] == 0.5
    assert compute("copy_rate", [decomposed], [text])["copy_rate"] == 1
    assert words(decomposed) == words(text) and pieces(decomposed) == pieces(text)


def test_words_of_other_scripts():
    assert compute("rouge", ["привет мир 2020"], [["совсем другое 2020"]])["rouge1"] == pytest.approx(100 / 3)
    assert words("Привет, «мир»!") == ["привет", "мир"]
    assert words("GPT模型很好") == ["gpt", "模", "型", "很", "好"]
    assert words("अच्छा है") == ["अच्छा", "है"]
    assert words("الطَّقْسُ") == ["الطَّقْسُ".replace("\u0640", "")]
    assert words("İSTANBUL Istanbul") == ["istanbul", "istanbul"]
    assert words("snake_case don't") == ["snake", "case", "don", "t"]
    assert words("👍🏽👍") == ["👍🏽", "👍"]
    assert words("может быть 😀") == ["может", "быть"]
    assert words("کتاب‌ها") == ["کتابها"]
    assert words("ไม่เป็นไร")[0] == "ไ"


def test_f1_of_answers_without_spaces():
    assert compute("squad", ["北京大学"], [["北京"]])["f1"] == pytest.approx(100 * 2 / 3)
    assert compute("squad", ["巴黎。"], [["巴黎"]]) == {"exact_match": 100.0, "f1": 100.0}
    assert compute("squad", ["в «Москве»"], [["в Москве"]])["exact_match"] == 100
    assert compute("squad", ["東京 Tower"], [["東京 tower"]])["f1"] == 100


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["the cat"], "13a"),
        (["кот сидит"], "13a"),
        (["오늘은 날씨가"], "13a"),
        (["今天天气很好"], "zh"),
        (["今日はとても"], "char"),
        (["วันนี้อากาศดี"], "char"),
        (["a long English text about 北京"], "13a"),
        ([""], "13a"),
    ],
)
def test_bleu_takes_the_tokenizer_of_the_references(texts, expected):
    assert chosen_tokenizer("auto", [texts]) == expected
    assert f"tok:{expected}|" in compute("sacrebleu", texts, [texts])["signature"]
    assert chosen_tokenizer("intl", [texts]) == "intl"
    theirs = sacrebleu.corpus_bleu(texts, [texts], tokenize=expected).score
    assert compute("sacrebleu", texts, [texts])["sacrebleu"] == pytest.approx(theirs)


@pytest.mark.parametrize("use_stemmer", [True, False])
def test_english_is_as_in_rouge_score(use_stemmer):
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=use_stemmer)
    for predicted, wanted in ENGLISH:
        theirs = {name: 100 * score.fmeasure for name, score in scorer.score(wanted, predicted).items()}
        assert compute("rouge", [predicted], [[wanted]], use_stemmer=use_stemmer) == pytest.approx(theirs)
        options = {"use_stemmer": use_stemmer, "tokenizer": "rouge_score"}
        assert compute("rouge", [predicted], [[wanted]], **options) == pytest.approx(theirs)


def official(text):
    """`normalize_answer` of SQuAD's evaluation script."""
    text = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def test_english_is_as_in_squad_and_sacrebleu():
    for predicted, wanted in [*ENGLISH, ("the naïve café", "Naïve “Café”!"), ("Übung", "übung")]:
        first, second = official(predicted).split(), official(wanted).split()
        common = sum((collections.Counter(first) & collections.Counter(second)).values())
        f1 = 2 * common / (len(first) + len(second)) if first and second else float(first == second)
        found = compute("squad", [predicted], [[wanted]])
        assert found == {"exact_match": 100.0 * (first == second), "f1": pytest.approx(100 * f1)}
    theirs = sacrebleu.corpus_bleu([p for p, _ in ENGLISH], [[w for _, w in ENGLISH]]).score
    found = compute("sacrebleu", [p for p, _ in ENGLISH], [[w] for _, w in ENGLISH])
    assert found["sacrebleu"] == pytest.approx(theirs) and "tok:13a" in found["signature"]


@pytest.mark.parametrize("metric", ["distinct_n", "self_bleu"])
def test_samples_without_spaces_have_more_than_one_word(metric):
    texts = ["今天天气很好", "今天天气不好", "明天天气很好"]
    found = compute(metric, texts)
    assert found["tokenizer"] == "auto"
    spaced = compute(metric, [" ".join(text) for text in texts], tokenizer="whitespace")
    assert {**found, "tokenizer": ""} == {**spaced, "tokenizer": ""}
    assert compute(metric, ["the cat sat", "a cat sat", "the dog sat"])["tokenizer"] == "whitespace"


def test_copies_without_spaces_are_found():
    found = compute("copy_rate", ["我们今天去公园"], ["他们今天去公园散步"])
    assert found["longest_span"] == 6 and found["overlap_4"] == pytest.approx(3 / 4)


def test_the_surface_of_other_scripts():
    (row,) = surface_features(["今天天气很好。"])
    features = dict(zip(FEATURES, row, strict=True))
    assert (
        features["words"] >= 6 and features["ends_with_stop"] == 1 and features["punctuation"] == pytest.approx(1 / 7)
    )
