"""F1 of whole entities in sequences of IOB tags, as in the CoNLL-2003 evaluation."""

from hf_gpt.evaluation import metric


class EntityF1(metric.PairedMetric):
    """An entity is right when its type and both its ends are right. `accuracy` is that of the single tags."""

    source = "https://aclanthology.org/W03-0419"
    inputs = "predictions, references: tags such as B-PER, I-PER and O, a list for each sentence."
    predictions = ["string"]
    references = ["string"]

    def _compute(self, predictions: list[list[str]], references: list[list[str]]) -> dict[str, float]:
        found = expected = both = right = total = 0
        for row, (predicted, reference) in enumerate(zip(predictions, references, strict=True)):
            if len(predicted) != len(reference):
                raise ValueError(
                    f"sentence {row} has {len(predicted)} predicted and {len(reference)} reference tags. Give a tag "
                    "for each word in both."
                )
            in_prediction, in_reference = entities(predicted), entities(reference)
            found, expected = found + len(in_prediction), expected + len(in_reference)
            both += len(in_prediction & in_reference)
            right += sum(p == r for p, r in zip(predicted, reference, strict=True))
            total += len(reference)
        return {
            "precision": both / max(found, 1),
            "recall": both / max(expected, 1),
            "f1": 2 * both / max(found + expected, 1),
            "accuracy": right / max(total, 1),
        }


def entities(tags: list[str]) -> set[tuple[str, int, int]]:
    """Type, first and past-the-last word of each entity. An `I-` of another type than the word before begins one.

    Tags without a prefix (parts of speech) count as entities of one word; `O` is none.
    """
    spans = set()
    kind, start = None, 0
    for position, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-") if tag[:2] in ("B-", "I-") else ("B", "", tag)
        if kind is not None and (prefix == "B" or name != kind):
            spans.add((kind, start, position))
            kind = None
        if kind is None and tag != "O":
            kind, start = name, position
    return spans
