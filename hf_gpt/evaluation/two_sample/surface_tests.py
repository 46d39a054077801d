"""
Differences on the surface of two samples: length, case, punctuation, blanks.

A discriminator that finds them looks excellent and teaches nothing, so run these tests first.
"""

from collections.abc import Sequence

import numpy as np

from hf_gpt.evaluation.text.words import is_punctuation, pieces
from hf_gpt.evaluation.two_sample.classifier_test import NUM_SPLITS, controlled_test


FEATURES: tuple[str, ...] = (
    "characters",
    "words",
    "characters_per_word",
    "upper_case",
    "digits",
    "punctuation",
    "blanks",
    "not_ascii",
    "line_breaks",
    "starts_upper",
    "ends_with_stop",
    "outer_blank",
    "double_blank",
    "blank_before_stop",
)
# What ends a sentence, in Latin, Chinese, Hindi, Arabic, Urdu, Burmese, Khmer, Ethiopic and Armenian.
_STOPS = tuple(".!?。！？｡।॥؟۔။។።։…")
_CLASSES = ("nothing", "upper case", "lower case", "digit", "stop", "other punctuation", "blank", "other")


def surface_features(texts: Sequence[str]) -> np.ndarray:
    """Length and format of each text, float64 `(texts, len(FEATURES))`; shares are of its characters."""
    return np.array([_features(text) for text in texts], np.float64)


def _features(text: str) -> list[float]:
    size, words = max(len(text), 1), pieces(text)
    stripped = text.strip()
    return [
        len(text),
        len(words),
        sum(map(len, words)) / max(len(words), 1),
        sum(character.isupper() for character in text) / size,
        sum(character.isdigit() for character in text) / size,
        sum(map(is_punctuation, text)) / size,
        sum(character.isspace() for character in text) / size,
        sum(ord(character) > 127 for character in text) / size,
        text.count("\n"),
        stripped[:1].isupper(),
        stripped[-1:] in _STOPS,
        text != stripped,
        "  " in stripped,
        any(f" {stop}" in text for stop in ".,!?;:"),
    ]


def length_test(real: Sequence[str], generated: Sequence[str]) -> dict[str, float]:
    """Two-sample Kolmogorov-Smirnov test of the lengths in words: its statistic, its p-value, both mean lengths."""
    from scipy.stats import ks_2samp

    lengths = [np.array([len(pieces(text)) for text in texts]) for texts in (real, generated)]
    # Lengths are whole numbers, so ties make this p-value too large rather than too small.
    test = ks_2samp(*lengths, method="asymp")
    return {
        "length_ks": float(test.statistic),
        "length_p_value": float(test.pvalue),
        "length_references": float(lengths[0].mean()),
        "length_predictions": float(lengths[1].mean()),
    }


def format_test(real: Sequence[str], generated: Sequence[str]) -> dict[str, float]:
    """Chi-square test of how texts begin and end: the classes of the first and the last character."""
    from scipy.stats import chi2_contingency

    rows = [
        [_CLASSES.index(_kind(t[:1])) * len(_CLASSES) + _CLASSES.index(_kind(t[-1:])) for t in texts]
        for texts in (real, generated)
    ]
    table = np.stack([np.bincount(row, minlength=len(_CLASSES) ** 2) for row in rows])
    table = table[:, table.sum(0) > 0]
    if table.shape[1] < 2:
        return {"format_chi2": 0.0, "format_p_value": 1.0}
    test = chi2_contingency(table)
    return {"format_chi2": float(test.statistic), "format_p_value": float(test.pvalue)}


def _kind(character: str) -> str:
    if not character:
        return "nothing"
    if character.isalpha():
        return "upper case" if character.isupper() else "lower case"
    if character.isdigit():
        return "digit"
    if character in _STOPS:
        return "stop"
    if is_punctuation(character):
        return "other punctuation"
    return "blank" if character.isspace() else "other"


def shortcut_test(
    real: Sequence[str],
    generated: Sequence[str],
    seed: int = 0,
    resamples: int = 1000,
    num_splits: int = NUM_SPLITS,
    with_control: bool = True,
) -> dict[str, float | int]:
    """Classifier two-sample test of a logistic regression that sees `surface_features` and nothing else."""
    options = {"seed": seed, "resamples": resamples, "num_splits": num_splits, "with_control": with_control}
    found = controlled_test(real, generated, _linear_scores, **options)
    return {f"shortcut_{name}": value for name, value in found.items()}


def _linear_scores(texts: list[str], labels: np.ndarray, others: list[str]) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    features = surface_features(texts)
    model.fit(features, labels)
    return model.decision_function(features), model.decision_function(surface_features(others))
