"""The metrics of hf-gpt, which `evaluate` loads from their folders without the internet."""

from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import evaluate


METRICS = Path(__file__).with_name("metrics")


def metric_names() -> list[str]:
    """Names that `load` takes."""
    return sorted(path.parent.name for path in METRICS.glob("*/*.py") if path.stem == path.parent.name)


def load(name: str, **kwargs: Any) -> "evaluate.Metric":
    """A metric by name, held in memory. `evaluate.load(folder)` opens the same one from its folder.

    Args:
        name: One of `metric_names()`.
        kwargs: As for `evaluate.load`.

    Raises:
        ValueError: there is no such metric.
        ImportError: a package that it needs is missing.
    """
    import evaluate

    if name not in metric_names():
        raise ValueError(f"there is no metric {name!r}. Choose one of: {', '.join(metric_names())}.")
    return evaluate.load(str(METRICS / name), **{"keep_in_memory": True, **kwargs})


def compute(name: str, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any]:
    """The result of a metric for all examples at once.

    Args:
        name: One of `metric_names()`.
        predictions, references: Of the kind that the metric's description says: a reference for each prediction, or two
            samples that need not be equally large.
        kwargs: Options of the metric.

    Raises:
        ValueError: there are no examples, or not equally many of both where they come in pairs.
    """
    metric = load(name)
    if "references" in metric.features:
        counts = [len(given) if hasattr(given, "__len__") else 0 for given in (predictions, references)]
        if not counts[0] or counts[0] != counts[1]:
            raise ValueError(
                f"{name}: got {counts[0]} predictions and {counts[1]} references. Give one of each for every "
                "example, and at least one example."
            )
    given = {"predictions": predictions, "references": references}
    return metric.compute(**{key: value for key, value in given.items() if value is not None}, **kwargs)
