"""ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum of summaries (https://aclanthology.org/W04-1013)."""

from collections.abc import Callable

from rouge_score import rouge_scorer, tokenizers

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.text.lcs import lcs_f_measure, summary_lcs_f_measure
from hf_gpt.evaluation.text.words import english_stemmer, words


TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


class Rouge(metric.PairedMetric):
    """Mean F-measures as percentages, by the `rouge-score` package; with several references the best one counts.

    `tokenizer`: `"unicode"` takes words of every script, and of ASCII text those of the package; `"rouge_score"` is the
    package's own, for which nothing but a to z and 0 to 9 exists; or a function from a text to its words. English words
    are stemmed by `use_stemmer`.
    """

    source = "https://aclanthology.org/W04-1013"
    inputs = "predictions: texts. references: a list of reference texts for each."
    predictions = "string"
    references = ["string"]

    def _compute(
        self,
        predictions: list[str],
        references: list[list[str]],
        use_stemmer: bool = True,
        tokenizer: str | Callable[[str], list[str]] = "unicode",
    ) -> dict[str, float]:
        split = _tokenizer(tokenizer, use_stemmer)
        totals = dict.fromkeys(TYPES, 0.0)
        for row, (predicted, wanted) in enumerate(zip(predictions, references, strict=True)):
            if not wanted:
                raise ValueError(f"example {row} has no reference. ROUGE needs at least one.")
            found = [_scores(split, text, predicted) for text in wanted]
            for name in TYPES:
                totals[name] += max(scores[name] for scores in found)
        return {name: 100 * total / len(predictions) for name, total in totals.items()}


def _scores(split: tokenizers.Tokenizer, wanted: str, predicted: str) -> dict[str, float]:
    """F-measures from 0 to 1: those of n-grams by the package, those of subsequences by our own, quicker ones."""
    scorer = rouge_scorer.RougeScorer(TYPES[:2], tokenizer=split)
    lines = [[split.tokenize(line) for line in text.split("\n") if line] for text in (wanted, predicted)]
    return {
        **{name: score.fmeasure for name, score in scorer.score(wanted, predicted).items()},
        "rougeL": lcs_f_measure(split.tokenize(wanted), split.tokenize(predicted)),
        "rougeLsum": summary_lcs_f_measure(*lines),
    }


class _Words(tokenizers.Tokenizer):
    """A tokenizer as `rouge-score` takes it."""

    def __init__(self, split: Callable[[str], list[str]], stem: Callable[[str], str]):
        self.split, self.stem = split, stem

    def tokenize(self, text: str) -> list[str]:
        return [self.stem(word) for word in self.split(text)]


def _tokenizer(tokenizer: str | Callable[[str], list[str]], use_stemmer: bool) -> tokenizers.Tokenizer:
    if tokenizer == "rouge_score":
        return tokenizers.DefaultTokenizer(use_stemmer)
    if tokenizer != "unicode" and not callable(tokenizer):
        raise ValueError(f"tokenizer must be 'unicode', 'rouge_score' or a function, got {tokenizer!r}.")
    return _Words(tokenizer if callable(tokenizer) else words, english_stemmer() if use_stemmer else str)
