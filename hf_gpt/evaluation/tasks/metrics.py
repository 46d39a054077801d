"""From the records of models to metrics, with what their intervals are computed from."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hf_gpt import compat
from hf_gpt.errors import UserError
from hf_gpt.evaluation.language_model.likelihood import Likelihood, perplexity_of
from hf_gpt.evaluation.loading import compute, load
from hf_gpt.evaluation.statistics.bootstrap import Averaged, MetricValues, Recomputed, Sums, means
from hf_gpt.evaluation.tasks.registry import TaskSpec


Better = Literal["higher", "lower", "reference"]


@dataclass(frozen=True)
class Meaning:
    """How a metric is read.

    Attributes:
        label: For tables.
        better: Which way is better; `"reference"`: the value of real texts is the aim.
        largest: What it cannot exceed; intervals end there.
    """

    label: str
    better: Better
    largest: float = math.inf


# The values that tables show. A metric may give more, which are only in the files.
MEANINGS: dict[str, Meaning] = {
    "perplexity": Meaning("Perplexity", "lower"),
    "base_perplexity": Meaning("Perplexity of the generator alone", "lower"),
    "gain": Meaning("Nats a text gained by the discriminator", "higher"),
    "bits_per_byte": Meaning("Bits per byte", "lower"),
    "accuracy": Meaning("Accuracy", "higher", 1),
    "word_perplexity": Meaning("Perplexity of the last word", "lower"),
    "accuracy_norm": Meaning("Accuracy by length", "higher", 1),
    "acc": Meaning("Accuracy", "higher", 1),
    "acc_norm": Meaning("Accuracy by length", "higher", 1),
    "f1": Meaning("F1", "higher"),
    "mcc": Meaning("Matthews correlation", "higher"),
    "exact_match": Meaning("Exact match", "higher"),
    "sacrebleu": Meaning("BLEU", "higher"),
    "bleu": Meaning("BLEU", "higher"),
    "chrf": Meaning("chrF", "higher"),
    "rouge1": Meaning("ROUGE-1", "higher"),
    "rouge2": Meaning("ROUGE-2", "higher"),
    "rougeL": Meaning("ROUGE-L", "higher"),
    "bleu_4": Meaning("BLEU-4", "reference", 1),
    "self_bleu_4": Meaning("self-BLEU-4", "reference", 1),
    "distinct_2": Meaning("distinct-2", "reference", 1),
    "tfidf_auc": Meaning("TF-IDF test AUC", "lower", 1),
    "c2st_auc": Meaning("Classifier test AUC", "lower", 1),
    "shortcut_auc": Meaning("Shortcut AUC", "lower", 1),
    "mauve": Meaning("MAUVE", "higher", 1),
    "frechet_distance": Meaning("Fréchet distance", "lower"),
    "lm_score": Meaning("LM score", "reference"),
    "judge_nats": Meaning("Judge's nats per word", "reference"),
    "reverse_lm_score": Meaning("Reverse LM score", "lower"),
    "copy_rate": Meaning("Copied whole", "reference", 1),
}
# Corpus metrics that depend on sums of counts, as BLEU.
_CORPUS = ("sacrebleu", "bleu", "chrf")
# Metrics that are means over examples.
_MEANS = ("squad", "rouge", "accuracy")


def metrics_of(spec: TaskSpec, record: Mapping[str, Any]) -> MetricValues:
    """The metrics of a record with items: of every kind but `unconditional`."""
    if spec.kind == "language_modelling":
        return Sums(np.stack([record[name] for name in ("nll", "tokens", "bytes")], 1), _likelihoods)
    if spec.kind == "residual_language_modelling":
        columns = [record[name] for name in ("nll", "tokens", "gain_lower", "gain_upper")]
        return Sums(np.stack([*columns, np.ones(len(columns[0]))], 1), _residual)
    if spec.kind == "last_word":
        table = np.stack([record["right"], record["nll"], np.ones(len(record["nll"]))], 1)
        return Sums(table, lambda s: {"accuracy": s[0] / s[2], "word_perplexity": perplexity_of(s[1] / s[2])})
    if spec.kind == "multiple_choice":
        return means(_right_choices(record))
    if spec.kind == "classification":
        return _joined(spec, record["predictions"], record["references"])
    return Averaged([_joined(spec, texts, record["references"]) for texts in record["predictions"]])


def sample_metrics(spec: TaskSpec, texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Metrics of generated texts without pairs among the real ones, as the task names them.

    A value that several metrics give, such as `auc`, is prefixed by its metric.

    Raises:
        UserError: a metric refuses the texts or its options.
    """
    found: dict[str, float] = {}
    for name, options in spec.wanted_metrics.items():
        given = dict(options)
        metric = load(name)
        if getattr(metric, "needs_references", True):
            given["references"] = list(references)
        if name in _CONTROLLED:
            # Real texts have a row of their own.
            given.setdefault("with_control", False)
        with _named(spec, name):
            result = metric.compute(predictions=list(texts), **given)
        for key, value in result.items():
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                continue
            prefix = name.removesuffix("_test") if key.removeprefix("real_") in _SHARED else ""
            found[f"{prefix}_{key}" if prefix else key] = float(value)
    return found


_CONTROLLED = ("c2st", "tfidf_test", "surface")
_SHARED = {
    "auc",
    "auc_low",
    "auc_high",
    "auc_error",
    "num_splits",
    "p_value",
    "accuracy",
    "train_auc",
    "tpr_at_1_fpr",
    "tpr_at_5_fpr",
    "n_train",
    "n_test",
    "seed",
    "max_order",
    "size",
    "dimensions",
    "spread",
    "floor",
    "floor_spread",
    "epochs",
    "unknown_rate",
}


@contextlib.contextmanager
def _named(spec: TaskSpec, metric: str) -> Iterator[None]:
    """Names the task and the metric in what a metric complains of."""
    try:
        yield
    except (TypeError, ValueError) as error:
        reason = (
            str(error).replace("predictions", "the model's texts").replace(".measure()", "").replace("._compute()", "")
        )
        raise UserError(f"task {spec.name}, metric {metric}: {reason}") from error


class _Joined(MetricValues):
    """The values of several metrics over the same items."""

    def __init__(self, parts: Sequence[MetricValues]):
        self.parts, self.count = list(parts), parts[0].count

    def of(self, weights: np.ndarray) -> dict[str, float]:
        found: dict[str, float] = {}
        for part in self.parts:
            found.update(part.of(weights))
        return found


def _joined(spec: TaskSpec, predictions: list[Any], references: list[Any]) -> MetricValues:
    parts = []
    for name, options in spec.wanted_metrics.items():
        with _named(spec, name):
            parts.append(_metric(name, options, predictions, references))
    return _Joined(parts)


def _metric(name: str, options: Mapping[str, Any], predictions: list[Any], references: list[Any]) -> MetricValues:
    # Checks the input, once for all resamples.
    whole = compute(name, predictions, references, **options)
    metric = load(name)
    if name in _MEANS:
        rows = [
            compat.compute_unchecked(metric, predictions=[p], references=[r], **options)
            for p, r in zip(predictions, references, strict=True)
        ]
        names = [key for key, value in whole.items() if all(key in row for row in rows) and isinstance(value, float)]
        return means({key: [row[key] for row in rows] for key in names})
    if name in _CORPUS:
        return _corpus(name, options, predictions, references)

    def metrics(some: list[Any], wanted: list[Any]) -> dict[str, float]:
        found = compat.compute_unchecked(metric, predictions=some, references=wanted, **options)
        return {key: value for key, value in found.items() if isinstance(value, (int, float))}

    return Recomputed(predictions, references, metrics)


def _corpus(name: str, options: Mapping[str, Any], predictions: list[str], references: list[list[str]]) -> MetricValues:
    """BLEU and chrF from the counts of each example that sacrebleu itself resamples for its own tests."""
    from sacrebleu.metrics import BLEU, CHRF

    from hf_gpt.evaluation.text.references import chosen_tokenizer, composed, reference_streams

    scorers: dict[str, Any] = {}
    if name in ("sacrebleu", "bleu"):
        tokenize = chosen_tokenizer(options.get("tokenize", "auto"), references)
        scorers[name] = BLEU(lowercase=options.get("lowercase", False), tokenize=tokenize)
    if name in ("sacrebleu", "chrf"):
        scorers["chrf"] = CHRF(**(options if name == "chrf" else {}))
    predictions, streams = composed(predictions), reference_streams(references)
    tables = {key: np.array(compat.corpus_statistics(scorer, predictions, streams)) for key, scorer in scorers.items()}
    widths = {key: table.shape[1] for key, table in tables.items()}

    def combine(sums: np.ndarray) -> dict[str, float]:
        found, position = {}, 0
        for key, scorer in scorers.items():
            part = sums[position : position + widths[key]].round().astype(int).tolist()
            found[key] = float(compat.score_of_statistics(scorer, part).score)
            position += widths[key]
        return found

    return Sums(np.concatenate(list(tables.values()), 1), combine)


def _right_choices(record: Mapping[str, Any]) -> dict[str, list[float]]:
    """Whether the likeliest choice is right, by its log-probability and by that divided by its characters."""
    plain, by_length = [], []
    for logps, lengths, answer in zip(record["logps"], record["lengths"], record["answers"], strict=True):
        plain.append(float(np.argmax(logps) == answer))
        by_length.append(float(np.argmax(np.array(logps) / np.maximum(lengths, 1)) == answer))
    return {"accuracy": plain, "accuracy_norm": by_length}


def _likelihoods(sums: np.ndarray) -> dict[str, float]:
    nll, tokens, sizes = sums
    found = Likelihood(np.array([nll]), np.array([tokens]), np.array([sizes]))
    return {
        "perplexity": found.perplexity,
        "bits_per_byte": found.bits_per_byte,
        "nll_per_token": found.nll_per_token,
    }


def _residual(sums: np.ndarray) -> dict[str, float]:
    nll, tokens, lower, upper, texts = sums
    return {
        "perplexity": perplexity_of((nll - (lower + upper) / 2) / tokens),
        "base_perplexity": perplexity_of(nll / tokens),
        "gain": (lower + upper) / 2 / texts,
        "gain_lower_bound": lower / texts,
        "gain_upper_bound": upper / texts,
    }
