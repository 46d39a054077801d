"""The protocol of a classifier two-sample test: train on one half of each sample, score the other."""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import numpy as np

from hf_gpt.evaluation.two_sample.auc_interval import AucInterval, auc, auc_interval, true_positive_rate


Item = TypeVar("Item")
# From training items, their labels (1 real, 0 generated) and test items to scores of training and test items.
Classifier = Callable[[list[Any], np.ndarray, list[Any]], tuple[np.ndarray, np.ndarray]]
LEAST, NUM_SPLITS = 20, 4
# Shares of real texts that a detector takes for generated ones (RAID, https://arxiv.org/abs/2405.07940).
FALSE_POSITIVE_RATES = (0.01, 0.05)
# Prefix of results of the control: real texts against real ones.
REAL = "real_"


def classifier_test(
    real: Sequence[Item],
    generated: Sequence[Item],
    classifier: Classifier,
    seed: int = 0,
    resamples: int = 1000,
    num_splits: int = NUM_SPLITS,
) -> dict[str, float | int]:
    """Held-out classifier two-sample test (C2ST, https://arxiv.org/abs/1610.06545), by the AUC of the held-out halves.

    Args:
        real, generated: The two samples, at least `LEAST` items each. Both are split at random into halves; copies of
            an item are in one half, be they real or generated.
        classifier: Learns from the training half and scores both; higher is more real. Untrained at every split.
        seed: Of the splits and the bootstrap.
        resamples: Of the bootstrap.
        num_splits: How many splits the results are the mean of.

    Returns:
        `auc` with `auc_low`, `auc_high` (95 %), `auc_error` (standard error) and `p_value`; `accuracy`, the mean over
        both classes at the threshold 0; `tpr_at_1_fpr` and `tpr_at_5_fpr`, the shares of generated texts that are found
        where 1 % and 5 % of real ones are taken for generated; `train_auc`; `n_train` and `n_test`, of both samples
        together in one split;
        `num_splits`. An AUC of 0.5 says that the classifier found no difference, not that there is none. Splits of the
        same texts are not independent: the mean over splits has the interval and the error of a single one, or wider
        where splits differ more than those say.

    Raises:
        ValueError: a sample has fewer than `LEAST` items, or the classifier gives NaN.
    """
    for name, sample in (("references", real), ("predictions", generated)):
        if len(sample) < LEAST:
            raise ValueError(f"{name} holds {len(sample)} texts. A two-sample test needs at least {LEAST} of each.")
    if num_splits < 1:
        raise ValueError(f"num_splits must be at least 1, better {NUM_SPLITS}; got {num_splits}.")
    items, labels = [*real, *generated], np.repeat([1, 0], [len(real), len(generated)])
    keys = [_key(item) for item in items]
    found, rest = [], []
    for split in range(num_splits):
        is_training = _training_half(keys, labels, np.random.default_rng((seed, split)))
        train, test = np.flatnonzero(is_training), np.flatnonzero(~is_training)
        train_labels, test_labels = labels[train], labels[test]
        train_scores, scores = classifier([items[n] for n in train], train_labels, [items[n] for n in test])
        real_scores, generated_scores = scores[test_labels == 1], scores[test_labels == 0]
        found.append(auc_interval(real_scores, generated_scores, resamples, seed=seed + split))
        accuracy = ((real_scores > 0).mean() + (generated_scores <= 0).mean()) / 2
        trained = auc(train_scores[train_labels == 1], train_scores[train_labels == 0])
        # A detector's positives are the generated texts.
        detected = [true_positive_rate(-generated_scores, -real_scores, rate) for rate in FALSE_POSITIVE_RATES]
        rest.append((accuracy, trained, len(train), len(test), *detected))
    accuracy, trained, num_train, num_test, *detected = np.mean(rest, 0)
    return {
        **mean_over_splits(found),
        "accuracy": float(accuracy),
        "train_auc": float(trained),
        "tpr_at_1_fpr": float(detected[0]),
        "tpr_at_5_fpr": float(detected[1]),
        "n_train": round(num_train),
        "n_test": round(num_test),
        "num_splits": num_splits,
    }


def controlled_test(
    real: Sequence[Item],
    generated: Sequence[Item],
    classifier: Classifier,
    *,
    held_out: Sequence[Item] | None = None,
    with_control: bool = True,
    **options: Any,
) -> dict[str, float | int]:
    """A classifier two-sample test and its control: the same between two samples of real texts.

    Args:
        real, generated, classifier: As for `classifier_test`.
        held_out: Real texts besides `real`, of which as many are taken as there are generated ones. Left out, the
            halves of `real` are compared with each other: a wider interval, for texts that are fewer.
        with_control: Whether to measure the control.
        options: As for `classifier_test`.

    Returns:
        Its results, and those of real against real with the prefix `real_`, unless there are too few texts.

    Raises:
        ValueError: as `classifier_test`, or `held_out` has too few texts.
    """
    found = classifier_test(real, generated, classifier, **options)
    if not with_control:
        return found
    generator = np.random.default_rng((options.get("seed", 0), 1_000_003))
    if held_out is None:
        first, second = _disjoint_halves(real, generator)
    else:
        if len(held_out) < LEAST:
            raise ValueError(f"held_out holds {len(held_out)} texts. A two-sample test needs at least {LEAST}.")
        positions = generator.permutation(len(held_out))[: len(generated)]
        first, second = real, [held_out[position] for position in positions]
    if min(len(first), len(second)) < LEAST:
        return found
    control = classifier_test(first, second, classifier, **options)
    return found | {f"{REAL}{name}": value for name, value in control.items() if name != "num_splits"}


def mean_over_splits(found: Sequence[AucInterval]) -> dict[str, float]:
    """The mean AUC of several splits of the same texts: `auc`, `auc_low`, `auc_high`, `auc_error`, `p_value`.

    Error and interval are the means of those of single splits, which bounds those of the mean however the splits depend
    on each other; where the splits themselves differ more, they are wider in that proportion. The p-value is twice the
    mean, which is valid under any dependence (https://arxiv.org/abs/1212.4966).
    """
    values = np.array([one.auc for one in found])
    mean, error = float(values.mean()), math.sqrt(np.mean([one.standard_error**2 for one in found]))
    spread = float(values.std(ddof=1)) if len(found) > 1 else 0.0
    wider = max(1.0, spread / error)
    low = mean - wider * (mean - np.mean([one.low for one in found]))
    high = mean + wider * (np.mean([one.high for one in found]) - mean)
    p_value = float(np.mean([one.p_value for one in found]))
    return {
        "auc": mean,
        "auc_low": float(max(0.0, low)),
        "auc_high": float(min(1.0, high)),
        "auc_error": wider * error,
        "p_value": p_value if len(found) == 1 else min(1.0, 2 * p_value),
    }


def _training_half(keys: Sequence[Hashable], labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Which items are for training: half of each label, copies in one half, bool `(items,)`.

    Copies of a text that makes up more than a quarter of a sample are split as if they differed. Otherwise one half
    would lack a generator that repeats itself.
    """
    wanted = np.bincount(labels, minlength=2) // 2
    numbers: dict[Hashable, int] = {}
    groups = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
    sizes = np.stack([np.bincount(groups[labels == label], minlength=len(numbers)) for label in (0, 1)], 1)
    common = (2 * sizes > wanted).any(1)
    members: dict[int, list[int]] = {}
    for position, group in enumerate(groups):
        # Negative numbers, each of one item, are no group's.
        members.setdefault(-1 - position if common[group] else int(group), []).append(position)
    parts = list(members.values())
    is_training = np.zeros(len(keys), bool)
    for number in generator.permutation(len(parts)):
        taken = np.bincount(labels[parts[number]], minlength=2)
        if (taken <= wanted).all():
            is_training[parts[number]] = True
            wanted = wanted - taken
    return is_training


def _disjoint_halves(sample: Sequence[Item], generator: np.random.Generator) -> tuple[list[Item], list[Item]]:
    keys = [_key(item) for item in sample]
    in_first = _training_half(keys, np.zeros(len(keys), int), generator)
    return [sample[n] for n in np.flatnonzero(in_first)], [sample[n] for n in np.flatnonzero(~in_first)]


def _key(item: Any) -> Hashable:
    return item if isinstance(item, str) else tuple(item)
