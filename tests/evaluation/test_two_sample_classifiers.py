import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from hf_gpt.data.collators import pad_rows
from hf_gpt.evaluation import load
from hf_gpt.evaluation.language_model.fitting import fit, length_batches
from hf_gpt.evaluation.text.tokenization import tokenize
from hf_gpt.evaluation.text.vocabulary import BOS, EOS, UNKNOWN, WordVocabulary
from hf_gpt.evaluation.two_sample.auc_interval import auc, auc_interval


WORDS = [f"w{n}" for n in range(12)]
SMALL = {"epochs": 6, "batch_size": 16, "resamples": 200}


def sample(count, reversed_order=False, seed=0):
    """Texts of ascending words; `reversed_order` turns them round: the same words, another order."""
    generator = np.random.default_rng(seed)
    rows = [sorted(generator.choice(12, 6)) for _ in range(count)]
    return [" ".join(WORDS[n] for n in (row[::-1] if reversed_order else row)) for row in rows]


def test_auc_is_that_of_scikit_learn_with_ties():
    generator = np.random.default_rng(0)
    real, generated = generator.integers(2, 9, 40).astype(float), generator.integers(0, 8, 31).astype(float)
    labels = np.repeat([1, 0], [40, 31])
    assert auc(real, generated) == pytest.approx(roc_auc_score(labels, np.concatenate([real, generated])), abs=1e-12)


def test_bootstrap_agrees_with_resampling_by_hand_and_theory():
    generator = np.random.default_rng(1)
    real, generated = generator.normal(1, 1, 400), generator.normal(0, 1, 300)
    found = auc_interval(real, generated, resamples=2000)
    samples = [auc(generator.choice(real, 400), generator.choice(generated, 300)) for _ in range(500)]
    assert found.low == pytest.approx(np.quantile(samples, 0.025), abs=0.01)
    assert found.high == pytest.approx(np.quantile(samples, 0.975), abs=0.01)
    # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt(2)) = 0.760.
    assert found.low < 0.760 < found.high and found.p_value < 1e-6


def test_interval_covers_one_half_where_there_is_no_difference():
    generator = np.random.default_rng(2)
    found = auc_interval(generator.normal(size=500), generator.normal(size=500))
    assert found.low < 0.5 < found.high and found.p_value > 0.01


@pytest.mark.parametrize("classifier", ["ngram_cnn", "gpt"])
def test_fresh_classifier_finds_order(classifier):
    test = load("c2st")
    real, generated = sample(150), sample(150, reversed_order=True, seed=1)
    found = test.compute(predictions=generated, references=real, classifier=classifier, learning_rate=5e-3, **SMALL)
    assert found["auc"] > 0.95 and found["auc_low"] > 0.85 and found["p_value"] < 1e-6
    assert (found["n_train"], found["n_test"], found["classifier"]) == (150, 150, classifier)


@pytest.mark.parametrize("name", ["c2st", "tfidf_test"])
def test_words_that_nobody_writes_give_a_sample_away(name):
    # Each occurs once, so that none of those in the held-out half was learnt.
    generated = [f"{text.rpartition(' ')[0]} x{n}" for n, text in enumerate(sample(200, seed=1))]
    options = {"learning_rate": 5e-3, **SMALL} if name == "c2st" else {}
    assert load(name).compute(predictions=generated, references=sample(200), **options)["auc"] > 0.95


def test_same_distribution_is_not_told_apart():
    for name in ("c2st", "tfidf_test"):
        options = SMALL if name == "c2st" else {}
        found = load(name).compute(predictions=sample(200, seed=3), references=sample(200, seed=4), **options)
        assert found["auc_low"] < 0.5 < found["auc_high"] + 0.05 and found["p_value"] > 0.01


def test_words_alone_do_not_tell_order_but_pairs_do():
    real, generated = sample(200), sample(200, reversed_order=True, seed=1)
    test = load("tfidf_test")
    assert test.compute(predictions=generated, references=real, max_order=1)["auc"] < 0.62
    assert test.compute(predictions=generated, references=real, max_order=2)["auc"] > 0.99


def test_a_test_can_be_repeated_and_leaves_the_generators_alone():
    torch.manual_seed(5)
    expected = torch.random.get_rng_state()
    results = [
        load("c2st").compute(predictions=sample(40, seed=7), references=sample(40, seed=8), epochs=1) for _ in range(2)
    ]
    assert results[0] == results[1]
    assert torch.equal(torch.random.get_rng_state(), expected)


def test_samples_may_differ_in_size():
    real, generated = sample(300), sample(60, reversed_order=True, seed=1)
    found = load("tfidf_test").compute(predictions=generated, references=real)
    assert found["accuracy"] > 0.9 and found["n_test"] == 180


def test_fit_keeps_the_weights_of_the_best_epoch():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    target = {True: 1.0, False: 0.2}

    # Training pulls the weight to 1, held-out examples have theirs at 0.2: the loss falls, then rises.
    def loss(module, positions):
        goal = target[module.training]
        return ((module.weight - goal) ** 2).mean(), len(positions)

    record = fit(model, loss, [1] * 8, np.arange(6), np.arange(6, 8), learning_rate=0.05, weight_decay=0, patience=3)
    assert record.loss == min(record.losses) and len(record.losses) == record.best_epoch + 3
    assert ((model.weight.item() - 0.2) ** 2) == pytest.approx(record.loss)
    assert not model.training


def test_batches_hold_every_example_once_with_like_lengths():
    lengths = np.random.default_rng(0).integers(1, 50, 333)
    batches = length_batches(np.arange(333), lengths, 10, np.random.default_rng(1))
    assert sorted(np.concatenate(batches).tolist()) == list(range(333))
    assert np.mean([np.ptp(lengths[batch]) for batch in batches]) < 5


def test_vocabulary_and_rows_by_hand():
    vocabulary = WordVocabulary([["b", "a", "b"], ["c", "c", "b"]], size=6)
    assert vocabulary.numbers == {"b": 4, "c": 5}
    rows = vocabulary.encode([["b", "a"], ["c", "b", "b"], []], max_length=2)
    assert [row.tolist() for row in rows] == [[BOS, 4, UNKNOWN, EOS], [BOS, 5, 4], [BOS, EOS]]
    ids, mask = pad_rows(rows)
    assert ids.tolist() == [[1, 4, 3, 2], [1, 5, 4, 0], [1, 2, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]
    assert vocabulary.unknown_rate([["a", "b"], ["z", "b"]]) == 0.5


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("c2st", {"predictions": ["a"] * 5, "references": ["a"] * 30}, "predictions holds 5 texts"),
        ("c2st", {"predictions": ["a"] * 30, "references": ["a"] * 5}, "references holds 5 texts"),
        ("c2st", {"predictions": ["a"] * 30, "references": ["b"] * 30, "classifier": "svm"}, "classifier must be one"),
        ("tfidf_test", {"predictions": ["a"] * 30, "references": [None] * 30}, r"references\[0\] is None"),
        ("tfidf_test", {"predictions": ["a"] * 30}, "references is missing"),
    ],
)
def test_bad_input_is_explained(name, given, message):
    with pytest.raises(ValueError, match=message):
        load(name).compute(**given)


def test_seqgan_captions_are_told_from_real_ones(read_data):
    generator = np.random.default_rng(0)

    def shuffled(path, count):
        # The files are sorted by subject in part, so halves of a file differ.
        lines = read_data(path)
        chosen = [lines[n] for n in generator.permutation(len(lines))[:count]]
        return [" ".join(words) for words in tokenize(chosen, "treebank")]

    # Against the captions that the generators learnt: test_coco.txt is about other subjects.
    real = shuffled("lm/coco_captions/image_coco.txt", 3000)
    auc_of = {
        name: load("tfidf_test").compute(predictions=texts, references=real[:1500])["auc"]
        for name in ("mle", "seq")
        for texts in [shuffled(f"detection/texygen_coco_samples/{name}.txt", 1500)]
    }
    floor = load("tfidf_test").compute(predictions=real[1500:3000], references=real[:1500])
    assert abs(floor["auc"] - 0.5) < 0.06
    assert floor["auc"] + 0.05 < auc_of["mle"] < auc_of["seq"] - 0.1
