"""The protocol of a classifier two-sample test: learn on one half of each sample, judge the other."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from .auc import auc_interval


Item = TypeVar("Item")
# From training items, their labels (1 real, 0 generated) and test items to scores of training and test items.
Classifier = Callable[[list[Any], np.ndarray, list[Any]], tuple[np.ndarray, np.ndarray]]
LEAST = 20


def classifier_test(
    real: Sequence[Item], generated: Sequence[Item], classifier: Classifier, seed: int = 0, resamples: int = 1000
) -> dict[str, float | int]:
    """Classifier two-sample test (https://arxiv.org/abs/1610.06545), judged by the AUC of the held-out halves.

    Args:
        real, generated: The two samples, at least `LEAST` items each. Both are split at random into halves.
        classifier: Learns from the training half and scores both; higher is more real. Fresh for every call.
        seed: Of the split and the bootstrap.
        resamples: Of the bootstrap.

    Returns:
        `auc` with `auc_low`, `auc_high` (95 %) and `p_value`; `accuracy`, the mean over both classes at the threshold
        0; `train_auc`; `n_train` and `n_test`, of both samples together. An AUC of 0.5 says that the classifier found
        no difference, not that there is none.

    Raises:
        ValueError: a sample has fewer than `LEAST` items.
    """
    for name, sample in (("references", real), ("predictions", generated)):
        if len(sample) < LEAST:
            raise ValueError(f"{name} holds {len(sample)} texts. A two-sample test needs at least {LEAST} of each.")
    generator = np.random.default_rng(seed)
    halves: list[list[Item]] = [[], []]
    labels: list[list[int]] = [[], []]
    for label, sample in ((1, real), (0, generated)):
        order = generator.permutation(len(sample))
        for half, places in enumerate((order[: len(sample) // 2], order[len(sample) // 2 :])):
            halves[half] += [sample[place] for place in places]
            labels[half] += [label] * len(places)
    train_labels, test_labels = map(np.array, labels)
    train_scores, scores = classifier(halves[0], train_labels, halves[1])
    found = auc_interval(scores[test_labels == 1], scores[test_labels == 0], resamples, seed=seed)
    trained = auc_interval(train_scores[train_labels == 1], train_scores[train_labels == 0], 1)
    accuracy = ((scores[test_labels == 1] > 0).mean() + (scores[test_labels == 0] <= 0).mean()) / 2
    return {
        "auc": found.auc,
        "auc_low": found.low,
        "auc_high": found.high,
        "p_value": found.p_value,
        "accuracy": float(accuracy),
        "train_auc": trained.auc,
        "n_train": len(train_labels),
        "n_test": len(test_labels),
    }
