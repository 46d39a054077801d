"""Exact match and word F1 of answers, by the rules of SQuAD, with questions that have no answer."""

import re
import string
from collections import Counter

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.text.words import has_other_letters, is_punctuation, lower_case, pieces


class Squad(metric.PairedMetric):
    """Answers are compared without case, punctuation and articles; the best of several reference answers counts.

    No reference answer means that the question has none; right is then the empty prediction
    (https://arxiv.org/abs/1806.03822). Values are percentages. In scripts without spaces, such as Chinese, F1 is that
    of characters, as in MLQA (https://arxiv.org/abs/1910.07475).
    """

    source = "https://arxiv.org/abs/1606.05250"
    inputs = "predictions: answers. references: lists of right answers, empty if there is none."
    predictions = "string"
    references = ["string"]

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        matches, scores, has_answer = [], [], []
        for predicted, answers in zip(predictions, references, strict=True):
            wanted = list(answers) or [""]
            matches.append(max(float(normalize(predicted) == normalize(answer)) for answer in wanted))
            scores.append(max(word_f1(predicted, answer) for answer in wanted))
            has_answer.append(bool(answers))
        result = {"exact_match": 100 * _mean(matches), "f1": 100 * _mean(scores)}
        if not all(has_answer):
            for name, kept in (("has_answer", True), ("no_answer", False)):
                result[f"{name}_f1"] = 100 * _mean([s for s, h in zip(scores, has_answer, strict=True) if h is kept])
        return result


def normalize(text: str) -> str:
    """Lower case, without punctuation and English articles, with single spaces.

    Punctuation is ASCII's, as in SQuAD's own script, and in a text with letters beyond the Latin ones that of every
    script. Characters of scripts without spaces stay together.
    """
    is_mark = is_punctuation if has_other_letters(text) else string.punctuation.__contains__
    text = "".join(character for character in lower_case(text) if not is_mark(character))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def word_f1(predicted: str, answer: str) -> float:
    """F1 of the bags of words, or of characters in scripts without spaces; of two empty answers 1."""
    first, second = pieces(normalize(predicted)), pieces(normalize(answer))
    if not first or not second:
        return float(first == second)
    common = sum((Counter(first) & Counter(second)).values())
    return 2 * common / (len(first) + len(second))


def _mean(values: list[float]) -> float:
    return sum(values) / max(len(values), 1)
