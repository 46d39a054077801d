import evaluate
import numpy as np
import pytest
import sacrebleu
import sklearn.metrics

from hf_gpt.evaluation import compute, load, metric_names
from hf_gpt.evaluation.loading import METRICS


CASES = {
    "accuracy": ([1, 0, 2, 2], [1, 1, 2, 0], {"accuracy": 0.5}),
    # F1 of the classes 0, 1, 2: 0, 2/3, 2/3.
    "f1": ([1, 0, 2, 2], [1, 1, 2, 0], {"f1": 4 / 9}),
    "entity_f1": (
        [["B-PER", "I-PER", "O", "I-LOC"], ["B-LOC", "I-ORG"]],
        [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "I-LOC"]],
        {"precision": 2 / 4, "recall": 2 / 3, "f1": 4 / 7, "accuracy": 4 / 6},
    ),
    "squad": (
        ["The Eiffel tower!", "", "in 1889", "Paris"],
        [["Eiffel Tower"], [], ["1889", "the year 1889"], []],
        {"exact_match": 50.0, "f1": 100 * (1 + 1 + 2 / 3 + 0) / 4, "has_answer_f1": 250 / 3, "no_answer_f1": 50.0},
    ),
    "rouge": (
        ["the cat sat"],
        [["a dog ran", "the cat stood"]],
        {"rouge1": 200 / 3, "rouge2": 50.0, "rougeL": 200 / 3},
    ),
    "sacrebleu": (["the cat sat on the mat"], [["the cat sat on the mat"]], {"sacrebleu": 100.0, "chrf": 100.0}),
}


@pytest.mark.parametrize("name", metric_names())
def test_every_metric_opens_from_its_folder_and_says_what_it_is(name):
    metric = evaluate.load(str(METRICS / name), keep_in_memory=True)
    assert metric.name == name
    assert len(metric.description) > 40 and "predictions" in metric.inputs_description


@pytest.mark.parametrize("name", CASES)
def test_figures_computed_by_hand(name):
    predictions, references, expected = CASES[name]
    found = compute(name, predictions, references)
    assert {key: found[key] for key in expected} == pytest.approx(expected)


def test_a_metric_loads_from_its_folder_and_takes_batches():
    metric = evaluate.load(str(METRICS / "accuracy"), keep_in_memory=True)
    metric.add_batch(predictions=[1, 0], references=[1, 1])
    metric.add_batch(predictions=[1], references=[1])
    assert metric.compute() == {"accuracy": pytest.approx(2 / 3)}


def test_texts_of_two_samples_are_added_one_by_one():
    metric, predictions, references = load("ngram_bleu"), ["a b c", "a b d"], ["a b c", "b c d"]
    for prediction, reference in zip(predictions, references, strict=True):
        metric.add(prediction=prediction, reference=reference)
    metric.add(reference="a b")
    assert metric.compute() == compute("ngram_bleu", predictions, [*references, "a b"])


@pytest.mark.parametrize(
    ("average", "expected"), [("macro", 4 / 9), ("micro", 0.5), ("weighted", 0.5), ("binary", 2 / 3)]
)
def test_averages_of_f1(average, expected):
    predictions, references, _ = CASES["f1"]
    assert compute("f1", predictions, references, average=average) == {"f1": pytest.approx(expected)}


@pytest.mark.parametrize(
    ("name", "predictions", "references", "message"),
    [
        ("accuracy", [], [], "at least one example"),
        ("accuracy", [1], [1, 0], "1 predictions and 2 references"),
        ("acuracy", [1], [1], "there is no metric"),
        ("rouge", ["text"], [[]], "example 0 has no reference"),
        ("sacrebleu", ["text", "text"], [["text"], ["text", "other"]], "same number of references"),
        ("accuracy", [1, None], [1, 0], r"predictions\[1\] is nan"),
        ("accuracy", ["a", "b"], [1, 0], "predictions must be numbers"),
        ("accuracy", [1, 0], [1, 0.5], r"references\[1\] is 0.5"),
        ("f1", [1, 0], [1, float("inf")], r"references\[1\] is inf"),
        ("squad", ["a", 3], [["a"], ["b"]], r"predictions\[1\] is 3"),
        ("squad", ["a", "b"], [["a"], "b"], r"references\[1\] is a single str"),
        ("bleu", ["a"], [[None]], r"references\[0\]\[0\] is None"),
        ("chrf", ["a", "b"], [["a"], []], "same number of references"),
        ("mcc", [1, 0, 1], [1, 0], "3 predictions and 2 references"),
        ("auc", [0.1, 0.2], [1, 1], "references are all 1"),
        ("auc", [0.1, 0.2], [1, 2], "references must be 0 or 1; found 2"),
        ("auc", [0.1, float("nan")], [1, 0], r"predictions\[1\] is nan"),
        ("calibration", [3.0, 0.2], [1, 0], "Apply the sigmoid"),
        ("entity_f1", [["O"]], [["O", "O"]], "sentence 0 has 1 predicted and 2 reference tags"),
    ],
)
def test_bad_input_is_explained(name, predictions, references, message):
    with pytest.raises(ValueError, match=message):
        compute(name, predictions, references)


def test_unknown_average():
    with pytest.raises(ValueError, match="average must be one of"):
        load("f1").compute(predictions=[1], references=[1], average="mean")


def test_no_examples_at_all():
    for name in ("accuracy", "bleu", "auc"):
        with pytest.raises(ValueError, match="at least one example"):
            load(name).compute(predictions=[], references=[])
        with pytest.raises(ValueError, match="at least one example"):
            load(name).compute()


def test_classification_metrics_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    labels, classes = generator.integers(0, 2, 60), generator.integers(0, 3, (2, 60))
    scores = np.round(labels + generator.normal(size=60), 1)
    assert compute("mcc", classes[0], classes[1])["mcc"] == pytest.approx(
        sklearn.metrics.matthews_corrcoef(classes[1], classes[0])
    )
    found = compute("auc", scores, labels)
    assert found["auc"] == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores))
    assert found["average_precision"] == pytest.approx(sklearn.metrics.average_precision_score(labels, scores))
    assert found["auc_low"] < found["auc"] < found["auc_high"]
    chances = 1 / (1 + np.exp(-scores))
    assert compute("calibration", chances, labels)["brier"] == pytest.approx(np.mean((chances - labels) ** 2))


def test_calibration_error_by_hand():
    # Bins (0, 1/2] and (1/2, 1]: mean probability 0.3 against 1/2, 0.8 against 1.
    found = compute("calibration", [0.1, 0.5, 0.8, 0.8], [0, 1, 1, 1], bins=2)
    assert found["ece"] == pytest.approx(0.2)
    assert compute("calibration", [0.0, 1.0], [0, 1])["ece"] == 0


def test_bleu_and_chrf_are_those_of_sacrebleu():
    texts = ["the cat sat on the mat .", "a dog ran home"]
    wanted = [["the cat sat on a mat .", "there is a cat"], ["the dog ran home", "a dog runs"]]
    streams = [list(stream) for stream in zip(*wanted, strict=True)]
    assert compute("bleu", texts, wanted)["bleu"] == sacrebleu.corpus_bleu(texts, streams).score
    assert (
        compute("chrf", texts, wanted, word_order=2)["chrf"]
        == sacrebleu.corpus_chrf(texts, streams, word_order=2).score
    )
    assert "tok:13a" in compute("bleu", texts, wanted)["signature"]
