"""Base classes of metrics: checked input, and samples of texts without pairs."""

import sys
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from hf_gpt.evaluation.checks import check_integers, check_same_length, check_texts, check_vector
from hf_gpt.evaluation.text.tokenization import Tokenizer, get_tokenizer, tokenize


class _Described(evaluate.Metric):
    """A metric described by the docstrings of its module and its class.

    Attributes:
        source: Where it was published.
        inputs: What it takes, in words.
        predictions, references: Type of a prediction and of a reference, in a list where each is a list of such.
    """

    source = ""
    inputs = ""
    predictions: str | list[str] = "string"
    references: str | list[str] | None = None

    def _info(self) -> evaluate.MetricInfo:
        columns = {"predictions": self.predictions, "references": self.references}
        features = {
            name: datasets.Value(kind) if isinstance(kind, str) else datasets.List(datasets.Value(kind[0]))
            for name, kind in columns.items()
            if kind is not None
        }
        return evaluate.MetricInfo(
            description=f"{sys.modules[type(self).__module__].__doc__}\n\n{type(self).__doc__}",
            citation=self.source,
            inputs_description=self.inputs,
            features=datasets.Features(features),
        )


class SampleMetric(_Described):
    """A metric of a sample of texts, or of two samples that need not be equally large.

    `evaluate` pairs predictions with references; here `predictions` is one sample (the generated texts) and
    `references` another (real texts), kept apart. A metric defines `measure(predictions, references, **options)`, or
    without references `measure(predictions, **options)`; its description is its docstring.
    """

    needs_references = True
    least_predictions = 1
    least_references = 1

    def __init__(self, *args: Any, **kwargs: Any):
        self._references: list[str] = []
        super().__init__(*args, **kwargs)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Adds a text to either sample, or to both."""
        given = {"predictions": prediction, "references": reference}
        self.add_batch(**{name: [text] for name, text in given.items() if text is not None}, **kwargs)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Adds texts to either sample, or to both."""
        if references is not None:
            self._references += self._checked_references(references)
        if predictions is not None:
            super().add_batch(predictions=check_texts("predictions", predictions, at_least=0), **kwargs)

    def compute(self, *, predictions: Any = None, references: Any = None, **options: Any) -> dict[str, Any] | None:
        """The result for all texts given here or added before."""
        if references is not None:
            self._references += self._checked_references(references)
        taken, self._references = self._references, []
        if predictions is not None:
            predictions = check_texts("predictions", predictions, 0 if len(self) else self.least_predictions)
        elif not len(self):
            raise ValueError(f"{self.name}: predictions are missing. Give a list of texts.")
        if self.needs_references:
            taken = check_texts("references", taken or None, self.least_references)
        return super().compute(predictions=predictions, sample=taken, **options)

    def _compute(self, predictions: Sequence[str], sample: list[str], **options: Any) -> dict[str, Any]:
        texts = check_texts("predictions", predictions, self.least_predictions)
        return self.measure(texts, sample, **options) if self.needs_references else self.measure(texts, **options)

    def _checked_references(self, references: Any) -> list[str]:
        if not self.needs_references:
            raise ValueError(f"{self.name} measures predictions alone. Leave references out.")
        return check_texts("references", references)

    def measure(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The result; to be defined by the metric."""
        raise NotImplementedError


class TokenMetric(SampleMetric):
    """A metric of tokens: `measure` gets a list of them for each text, and the result names the tokenizer.

    Its option `tokenizer` is that of `get_tokenizer`.
    """

    def _compute(
        self, predictions: Sequence[str], sample: list[str], tokenizer: str | Tokenizer = "auto", **options: Any
    ) -> dict[str, Any]:
        texts = check_texts("predictions", predictions, self.least_predictions)
        name, function = get_tokenizer(tokenizer, texts)
        if options.get("held_out") is not None:
            options["held_out"] = tokenize(check_texts("held_out", options["held_out"]), function)
        samples = [texts, sample] if self.needs_references else [texts]
        return {**self.measure(*(tokenize(each, function) for each in samples), **options), "tokenizer": name}


class FeatureMetric(_Described):
    """A metric of two samples of features, or of texts that a model turns into them, without Arrow.

    A metric defines `measure(predictions, references, **options)` of tables `(texts, dimensions)`. Its options `model`,
    `processing_class`, `batch_size` and `max_length` are those of `mean_hidden_states`.
    """

    inputs = "predictions, references: features of shape (texts, dimensions), or texts with a model."
    predictions = ["float64"]

    def add_batch(self, **kwargs: Any) -> None:
        """Refused: both samples are needed at once."""
        raise ValueError(f"{self.name} takes both samples at once. Call compute(predictions=..., references=...).")

    def compute(
        self,
        *,
        predictions: Any = None,
        references: Any = None,
        model: Any = None,
        processing_class: Any = None,
        batch_size: int = 32,
        max_length: int = 256,
        **options: Any,
    ) -> dict[str, Any]:
        """The result for both samples."""
        from hf_gpt.evaluation.two_sample.features import as_features

        read = {"batch_size": batch_size, "max_length": max_length}
        generated = as_features("predictions", predictions, model, processing_class, **read)
        real = as_features("references", references, model, processing_class, **read)
        return self.measure(generated, real, **options)

    def measure(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The result; to be defined by the metric."""
        raise NotImplementedError


class PairedMetric(_Described):
    """A metric of predictions that each have a reference, checked against its `features` before Arrow casts them."""

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Adds examples."""
        given = {"predictions": predictions, "references": references}
        checked = {name: _check_column(name, values, self.features[name]) for name, values in given.items()}
        check_same_length(**checked)
        super().add_batch(**checked, **kwargs)

    def compute(self, *, predictions: Any = None, references: Any = None, **options: Any) -> dict[str, Any] | None:
        """The result for all examples given here or added before."""
        empty = predictions is None or (hasattr(predictions, "__len__") and not len(predictions))
        if empty and not len(self):
            raise ValueError(f"{self.name}: there are no predictions. Give at least one example.")
        return super().compute(predictions=predictions, references=references, **options)


def _check_column(name: str, values: Any, feature: Any) -> list[Any]:
    """`values` as a list of what `feature` describes: texts, numbers, or a list of such for each example."""
    if isinstance(feature, datasets.List):
        if values is None or isinstance(values, str) or not hasattr(values, "__len__"):
            raise ValueError(f"{name} must be a list with a list for each example; got {type(values).__name__}.")
        return [_check_column(f"{name}[{row}]", entry, feature.feature) for row, entry in enumerate(values)]
    if feature.dtype == "string":
        return check_texts(name, values, at_least=0)
    if feature.dtype.startswith("int"):
        return check_integers(name, values).tolist()
    return check_vector(name, values).tolist()
