import warnings

import evaluate
import numpy as np
import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from hf_gpt.evaluation import load
from hf_gpt.evaluation.loading import METRICS
from hf_gpt.evaluation.text.ngrams import count_ngrams
from hf_gpt.evaluation.text.sentence_bleu import ngram_bleu, self_bleu
from hf_gpt.evaluation.text.tokenization import tokenize


ORDERS = (1, 2, 3, 4, 5)


def by_nltk(hypotheses, references, smoothing="method1", epsilon=0.1):
    """NLTK's scores; `references` holds a list of them for each hypothesis."""
    weights = [(1 / order,) * order for order in ORDERS]
    function = getattr(SmoothingFunction(epsilon=epsilon), smoothing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.array([sentence_bleu(r, h, weights, function) for h, r in zip(hypotheses, references, strict=True)])


def others(sentences):
    return [[*sentences[:n], *sentences[n + 1 :]] for n in range(len(sentences))]


@pytest.mark.parametrize("smoothing", ["method0", "method1", "method2"])
def test_bleu_equals_nltk(captions, samples, smoothing):
    hypotheses, references = tokenize([*samples, "", captions[1]]), tokenize(captions)
    expected = by_nltk(hypotheses, [references] * len(hypotheses), smoothing)
    np.testing.assert_allclose(ngram_bleu(hypotheses, references, ORDERS, smoothing), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("epsilon", [0.1, 1e-3])
def test_self_bleu_equals_nltk(captions, epsilon):
    sentences = tokenize([*captions, "", "airplane airplane"])
    expected = by_nltk(sentences, others(sentences), epsilon=epsilon)
    found = self_bleu(sentences, ORDERS, epsilon=epsilon)
    np.testing.assert_allclose(found, expected, atol=1e-12, rtol=0)
    # The caption that is there twice is its twin's reference.
    assert found[1, 4] == pytest.approx(1) and found[8, 4] == pytest.approx(1)


def test_random_sentences_with_many_repeats_equal_nltk():
    generator = np.random.default_rng(0)
    # Few words, so that counts above one, ties and shared maxima occur at every order.
    samples = [list(map(str, generator.integers(0, 3, generator.integers(0, 12)))) for _ in range(60)]
    np.testing.assert_allclose(self_bleu(samples, ORDERS), by_nltk(samples, others(samples)), atol=1e-12, rtol=0)
    some, rest = samples[:20], samples[20:]
    np.testing.assert_allclose(ngram_bleu(some, rest, ORDERS), by_nltk(some, [rest] * 20), atol=1e-12, rtol=0)


def test_real_captions_equal_nltk(read_data):
    sentences = tokenize(read_data("lm/coco_captions/test_coco.txt", 300), "treebank")
    some = slice(0, 300, 15)
    expected = by_nltk(sentences[some], others(sentences)[some])
    np.testing.assert_allclose(self_bleu(sentences, ORDERS)[some], expected, atol=1e-12, rtol=0)
    samples = tokenize(read_data("detection/texygen_coco_samples/seq.txt", 20))
    expected = by_nltk(samples, [sentences] * 20)
    np.testing.assert_allclose(ngram_bleu(samples, sentences, ORDERS), expected, atol=1e-12, rtol=0)


def test_counts_by_hand():
    bigrams = list(count_ngrams([["a", "b", "a", "b"], [], ["a", "b"]], 2))[1]
    assert bigrams.size == 2
    assert sorted(zip(bigrams.sentences.tolist(), bigrams.counts.tolist(), strict=True)) == [(0, 1), (0, 2), (2, 1)]


def test_metrics_load_from_their_folders(captions, samples):
    metric = evaluate.load(str(METRICS / "ngram_bleu"), keep_in_memory=True)
    result = metric.compute(predictions=samples, references=captions, orders=(2, 5))
    expected = by_nltk(tokenize(samples), [tokenize(captions)] * len(samples)).mean(0)
    assert result == {
        "bleu_2": pytest.approx(expected[1], abs=1e-12),
        "bleu_5": pytest.approx(expected[4], abs=1e-12),
        "n_hyps": 7,
        "n_refs": 12,
        "smoothing": "method1",
        "tokenizer": "whitespace",
    }
    again = load("self_bleu").compute(predictions=captions, tokenizer="13a")
    assert (again["n_hyps"], again["n_refs"], again["tokenizer"]) == (12, 11, "13a")
    assert 0 < again["self_bleu_5"] < again["self_bleu_2"] < 1


def test_a_sample_may_be_added_in_batches(captions, samples):
    whole = load("ngram_bleu").compute(predictions=samples, references=captions)
    metric = load("ngram_bleu")
    metric.add_batch(predictions=samples[:3], references=captions)
    metric.add_batch(predictions=samples[3:])
    assert metric.compute() == whole


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("self_bleu", {"predictions": []}, "at least 2"),
        ("self_bleu", {"predictions": ["a b"]}, "at least 2"),
        ("self_bleu", {}, "predictions are missing"),
        ("self_bleu", {"predictions": "a b"}, "single str"),
        ("self_bleu", {"predictions": ["a b", None]}, r"predictions\[1\] is None"),
        ("self_bleu", {"predictions": ["a b", float("nan")]}, r"predictions\[1\] is nan"),
        ("self_bleu", {"predictions": ["a b", 3]}, r"predictions\[1\] is 3"),
        ("self_bleu", {"predictions": ["a", "b"], "references": ["a"]}, "Leave references out"),
        ("self_bleu", {"predictions": ["a", "b"], "orders": (0, 2)}, "orders must be"),
        ("self_bleu", {"predictions": ["a", "b"], "smoothing": "method9"}, "smoothing must be one of"),
        ("self_bleu", {"predictions": ["a", "b"], "tokenizer": "words"}, "tokenizer must be a function or one of"),
        ("ngram_bleu", {"predictions": ["a b"]}, "references is missing"),
        ("ngram_bleu", {"predictions": ["a b"], "references": []}, "references holds 0 texts"),
        ("ngram_bleu", {"predictions": ["a b"], "references": [["a b"]]}, r"references\[0\] is \['a b'\]"),
        ("ngram_bleu", {"predictions": 3, "references": ["a b"]}, "predictions is a int"),
    ],
)
def test_bad_input_is_explained(name, given, message):
    with pytest.raises(ValueError, match=message):
        load(name).compute(**given)
