"""How well single classes are told apart, for the report: precision and recall, confusions, confident mistakes."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from hf_gpt.reporting.report import Section

# Classes of a confusion matrix, pairs in place of a larger one, mistakes that are shown, and characters of each.
_MOST_CLASSES, _PAIRS, _MISTAKES, _CHARACTERS = 12, 20, 10, 300


def class_sections(
    names: Sequence[str],
    wanted: Sequence[str],
    predicted: Sequence[str],
    probabilities: Sequence[float],
    texts: Sequence[str],
) -> "list[Section]":
    """Tables of a classification's predictions.

    Args:
        names: The classes.
        wanted: The class of each example.
        predicted: The class that the model gave it.
        probabilities: The model's probability of that class.
        texts: What the model read.
    """
    from hf_gpt.reporting.report import Section, results_table, table_section

    sections = [
        table_section("classes", "Classes", *_by_class(names, wanted, predicted)),
        table_section("confusion", "Confusion matrix", *_confusion(names, wanted, predicted)),
    ]
    pairs = zip(wanted, predicted, probabilities, texts, strict=True)
    wrong = sorted((row for row in pairs if row[0] != row[1]), key=lambda row: -row[2])
    if wrong:
        rows = [[f"{probability:.3f}", true, given, _cut(text)] for true, given, probability, text in wrong[:_MISTAKES]]
        heads = ["probability", "true", "predicted", "text"]
        table = results_table("Most confident mistakes", heads, rows, of_words=True)
        note = f'<p class="muted after">{len(wrong):,} of {len(wanted):,} examples are mistaken.</p>'
        sections.append(Section("mistakes", "Most confident mistakes", f"{table}\n{note}"))
    return sections


def _by_class(
    names: Sequence[str], wanted: Sequence[str], predicted: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    from sklearn.metrics import precision_recall_fscore_support

    found = precision_recall_fscore_support(wanted, predicted, labels=list(names), zero_division=0.0)
    rows = [
        [name, *(f"{value:.3f}" for value in scores), f"{int(count):,}"]
        for name, *scores, count in zip(names, *found, strict=True)
    ]
    return ["", "precision", "recall", "F1", "examples"], rows


def _confusion(
    names: Sequence[str], wanted: Sequence[str], predicted: Sequence[str]
) -> tuple[list[str], list[list[str]], str]:
    counts = Counter(zip(wanted, predicted, strict=True))
    if len(names) > _MOST_CLASSES:
        mistakes = [(pair, count) for pair, count in counts.most_common() if pair[0] != pair[1]]
        rows = [[true, given, f"{count:,}"] for (true, given), count in mistakes[:_PAIRS]]
        return ["true", "predicted", "examples"], rows, "The pairs that are confused most."
    rows = [[f"true {true}", *(f"{counts[true, given]:,}" for given in names)] for true in names]
    return ["", *(f"predicted {name}" for name in names)], rows, "Examples of each class, by the class they were given."


def _cut(text: str) -> str:
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]} …"
