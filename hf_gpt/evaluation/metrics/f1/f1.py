"""F1 of class ids: the harmonic mean of precision and recall, of one class or averaged over classes."""

from hf_gpt.evaluation import metric


AVERAGES = ("macro", "micro", "weighted", "binary")


class F1(metric.PairedMetric):
    """`average` is `"macro"` (each class counts alike), `"micro"`, `"weighted"` (by frequency) or `"binary"` (of 1).

    A class that is neither predicted nor there does not count; one that is only one of the two has F1 0.
    """

    inputs = "predictions, references: class ids, one for each example."
    predictions = "int64"
    references = "int64"

    def _compute(self, predictions: list[int], references: list[int], average: str = "macro") -> dict[str, float]:
        if average not in AVERAGES:
            raise ValueError(f"average must be one of {', '.join(AVERAGES)}, got {average!r}.")
        classes = [1] if average == "binary" else sorted({*predictions, *references})
        pairs = list(zip(predictions, references, strict=True))
        right = [sum(p == r == label for p, r in pairs) for label in classes]
        wrong = [sum((p == label) != (r == label) for p, r in pairs) for label in classes]
        if average == "micro":
            right, wrong = [sum(right)], [sum(wrong)]
        scores = [2 * hits / max(2 * hits + misses, 1) for hits, misses in zip(right, wrong, strict=True)]
        weights = [1.0] * len(scores)
        if average == "weighted":
            weights = [float(sum(reference == label for reference in references)) for label in classes]
        return {"f1": sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights)}
