import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.metrics.pairwise import rbf_kernel

from hf_gpt import HfGptConfig, HfGptModel
from hf_gpt.evaluation import load
from hf_gpt.evaluation.two_sample.distances import (
    compare_at_equal_size,
    frechet_distance,
    median_distance,
    mmd,
    real_floor,
)
from hf_gpt.evaluation.two_sample.features import mean_hidden_states


@pytest.fixture
def samples():
    generator = np.random.default_rng(0)
    mix = generator.normal(size=(6, 6))
    return generator.normal(size=(90, 6)), generator.normal(size=(70, 6)) @ mix + 0.5


def test_frechet_distance_is_that_of_its_formula(samples):
    first, second = samples
    covariances = [np.cov(sample, rowvar=False) for sample in samples]
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum()
    expected += np.trace(covariances[0] + covariances[1] - 2 * sqrtm(covariances[0] @ covariances[1]).real)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_known_distributions():
    generator = np.random.default_rng(1)
    first = generator.normal(size=(200_000, 2)) * [1, 2]
    second = generator.normal(size=(200_000, 2)) * [3, 1] + [1, 0]
    # |m|^2 + sum (s1 - s2)^2 = 1 + 4 + 1.
    assert frechet_distance(first, second) == pytest.approx(6, abs=0.06)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_with_fewer_texts_than_dimensions():
    generator = np.random.default_rng(2)
    first, second = generator.normal(size=(5, 8)), generator.normal(size=(4, 8))
    covariances = [np.cov(sample, rowvar=False) for sample in (first, second)]
    values = np.linalg.eigvals(covariances[0] @ covariances[1])
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1])
    expected -= 2 * np.sqrt(np.clip(values.real, 0, None)).sum()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)


def test_mmd_is_that_of_its_formula(samples):
    first, second = samples
    gamma = 1 / (2 * 1.7**2)
    within = [rbf_kernel(sample, gamma=gamma) for sample in samples]
    expected = sum((kernel.sum() - np.trace(kernel)) / (len(kernel) * (len(kernel) - 1)) for kernel in within)
    expected -= 2 * rbf_kernel(first, second, gamma=gamma).mean()
    assert mmd(first, second, 1.7) == pytest.approx(expected, abs=1e-12)


def test_mmd_is_unbiased():
    generator = np.random.default_rng(3)
    found = [mmd(*generator.normal(size=(2, 30, 3)), bandwidth=1.5) for _ in range(300)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 300**0.5
    assert min(found) < 0 < max(found)


def test_median_distance_by_hand():
    assert median_distance(np.array([[0.0, 0], [3, 4], [0, 1]])) == pytest.approx(18**0.5)


def test_floor_is_of_disjoint_real_samples_of_the_same_size():
    real = np.arange(40.0)[:, None]
    seen = []

    def distance(first, second):
        seen.append((len(first), len(second), len(set(first[:, 0]) & set(second[:, 0]))))
        return 1.0

    assert real_floor(distance, real, 20, repeats=3) == (1.0, 0.0)
    assert seen == [(20, 20, 0)] * 3
    assert real_floor(distance, real, 21) is None
    found = compare_at_equal_size(distance, real[:7], real)
    assert found["size"] == 7 and found["floor"] == 1.0 and seen[-1][:2] == (7, 7)


def test_metrics_tell_a_shift_from_the_floor():
    generator = np.random.default_rng(4)
    real, same, shifted = generator.normal(size=(3, 400, 4)) + np.array([0, 0, 0.5])[:, None, None]
    for name in ("frechet_distance", "mmd"):
        near = load(name).compute(predictions=same, references=real)
        far = load(name).compute(predictions=shifted, references=real)
        assert near["size"] == 200 and near["dimensions"] == 4
        assert abs(near[name] - near["floor"]) < 6 * (near["floor_spread"] + near["spread"]) + 1e-3
        assert far[name] > far["floor"] + 6 * far["floor_spread"]


def test_mauve_is_that_of_its_package():
    mauve = pytest.importorskip("mauve")
    generator = np.random.default_rng(5)
    first, second = generator.normal(size=(2, 120, 5)) + np.array([0, 1.0])[:, None, None]
    options = {"num_buckets": 6, "kmeans_num_redo": 1, "kmeans_max_iter": 20}
    expected = [
        mauve.compute_mauve(p_features=first, q_features=second, seed=seed, verbose=False, **options).mauve
        for seed in (25, 26)
    ]
    found = load("mauve").compute(predictions=first, references=second, seeds=(25, 26), **options)
    assert found["mauve"] == pytest.approx(np.mean(expected), abs=1e-9)
    assert found["mauve_spread"] == pytest.approx(np.std(expected, ddof=1), abs=1e-9)
    assert load("mauve").compute(predictions=first, references=first, seeds=(1,), **options)["mauve"] > 0.99


class Letters:
    """The least that is asked of a tokenizer: a number for each letter, nothing for an empty text."""

    def __call__(self, text, truncation, max_length):
        return {"input_ids": [ord(letter) - 96 for letter in text][:max_length]}


def test_features_are_means_over_the_tokens_of_each_text():
    torch.manual_seed(0)
    model = HfGptModel(HfGptConfig(vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)).eval()
    texts = ["abc", "", "a", "hello"]
    found = mean_hidden_states(model, Letters(), texts, max_length=4, batch_size=3)
    assert found.shape == (4, 16) and not found[1].any()
    for text, features in zip(texts, found, strict=True):
        if text:
            ids = torch.tensor([[ord(letter) - 96 for letter in text[:4]]])
            with torch.no_grad():
                expected = model(input_ids=ids).last_hidden_state[0].mean(0)
            np.testing.assert_allclose(features, expected.numpy(), atol=1e-5)
    result = load("mmd").compute(predictions=texts, references=texts * 2, model=model, processing_class=Letters())
    assert result["size"] == 4 and result["dimensions"] == 16


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"predictions": ["a"], "references": ["b"]}, "a model must be given"),
        ({"predictions": [[0.0]], "references": [[0.0], [1.0]]}, "predictions holds 1 entries"),
        ({"predictions": [[0.0], [1.0]], "references": [[0.0], [float("nan")]]}, r"references\[1, 0\] is nan"),
        ({"predictions": [[0.0], [1.0]], "references": [[0.0, 1]] * 4}, "dimensions"),
        ({"predictions": [0.0, 1.0], "references": [[0.0]] * 4}, r"predictions has shape \(2,\)"),
        ({"predictions": [[0.0], [1.0, 2.0]], "references": [[0.0]] * 4}, "predictions must be numbers"),
        ({"predictions": None, "references": [[0.0]] * 4}, "predictions is missing"),
        ({"predictions": [[0.0]] * 3, "references": [[0.0]] * 4, "size": 9}, "size is 9"),
        ({"predictions": np.array(["a", "b"]), "references": [[0.0]] * 4}, "a model must be given"),
    ],
)
def test_bad_input_is_explained(given, message):
    with pytest.raises(ValueError, match=message):
        load("frechet_distance").compute(**given)


@pytest.mark.parametrize("name", ["frechet_distance", "mmd"])
def test_an_option_that_there_is_not_is_refused(name):
    with pytest.raises(TypeError, match="repeat"):
        load(name).compute(predictions=[[0.0], [1.0]], references=[[0.0]] * 4, repeat=3)


def test_features_of_a_text_that_is_longer_than_the_model_reads():
    torch.manual_seed(0)
    sizes = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = HfGptConfig(position_embedding_type="learned", max_position_embeddings=5, hidden_dropout=0.5, **sizes)
    model = HfGptModel(config).train()
    long, cut = (mean_hidden_states(model, Letters(), [text]) for text in ("hello there".replace(" ", ""), "hello"))
    np.testing.assert_array_equal(long, cut)
    # Read without dropout, and left as it was.
    assert model.training and model.dropout.training


def test_mmd_of_equal_rows_has_no_scale():
    with pytest.raises(ValueError, match="bandwidth must be above 0"):
        load("mmd").compute(predictions=[[1.0]] * 4, references=[[1.0]] * 4)
