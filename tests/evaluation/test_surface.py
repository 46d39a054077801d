import numpy as np
import pytest
from scipy.stats import chi2_contingency, ks_2samp

from hf_gpt.evaluation import load
from hf_gpt.evaluation.two_sample.surface_tests import FEATURES, format_test, length_test, surface_features


def sentences(count, longest, seed, end=" ."):
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(list("abcdef"), generator.integers(3, longest))) + end for _ in range(count)]


def test_features_by_hand():
    found = dict(zip(FEATURES, surface_features([" Ab 1\né , "])[0], strict=True))
    assert found == pytest.approx(
        {
            "characters": 10,
            "words": 4,
            "characters_per_word": 5 / 4,
            "upper_case": 0.1,
            "digits": 0.1,
            "punctuation": 0.1,
            "blanks": 0.5,
            "not_ascii": 0.1,
            "line_breaks": 1,
            "starts_upper": 1,
            "ends_with_stop": 0,
            "outer_blank": 1,
            "double_blank": 0,
            "blank_before_stop": 1,
        }
    )
    assert surface_features([""]).tolist() == [[0.0] * len(FEATURES)]


def test_tests_are_those_of_scipy():
    real, generated = sentences(80, 9, 0), sentences(70, 12, 1)
    lengths = [[len(text.split()) for text in texts] for texts in (real, generated)]
    expected = ks_2samp(*lengths, method="asymp")
    found = length_test(real, generated)
    assert (found["length_ks"], found["length_p_value"]) == (expected.statistic, expected.pvalue)
    # Beginnings and ends: 3 of kind (lower, stop) and 1 (lower, lower) against 2 (upper, stop) and 4 (lower, stop).
    found = format_test(["a.", "b!", "c?", "de"], ["A.", "Bb.", "a.", "a.", "a.", "a."])
    assert found["format_chi2"] == pytest.approx(chi2_contingency([[3, 1, 0], [4, 0, 2]]).statistic)
    assert format_test(["a."], ["b."]) == {"format_chi2": 0.0, "format_p_value": 1.0}


def test_a_difference_in_spacing_alone_is_a_shortcut():
    real, generated = sentences(200, 9, 0, end="."), sentences(200, 9, 1, end=" .")
    found = load("surface").compute(predictions=generated, references=real)
    # Of 100 texts of each kind none is on the wrong side: one in 30 may be, so the interval is not of width 0.
    assert found["shortcut_auc_high"] == 1 and 0.95 < found["shortcut_auc_low"] < 0.99
    same = load("surface").compute(predictions=sentences(200, 9, 2), references=sentences(200, 9, 3))
    assert abs(same["shortcut_auc"] - 0.5) < 0.15
    assert same["length_p_value"] > 0.01 and same["format_p_value"] == 1


def test_too_few_texts():
    with pytest.raises(ValueError, match="needs at least 20"):
        load("surface").compute(predictions=["a"] * 3, references=["b"] * 30)
