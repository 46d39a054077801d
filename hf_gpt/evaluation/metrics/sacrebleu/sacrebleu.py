"""BLEU and chrF of translations over a whole corpus, by the `sacrebleu` package."""

from typing import Any

from sacrebleu.metrics import BLEU, CHRF

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.text.references import chosen_tokenizer


class Sacrebleu(metric.CorpusMetric):
    """BLEU (https://aclanthology.org/W18-6319) and chrF (https://aclanthology.org/W15-3049), both from 0 to 100.

    `tokenize` is one of sacrebleu's, or `"auto"`: its default 13a, and where most letters of the references are of
    scripts without spaces zh for Chinese and char for others.
    """

    source = "https://aclanthology.org/W18-6319"

    def scorers(self, references: list[list[str]], tokenize: str = "auto", lowercase: bool = False) -> dict[str, Any]:
        bleu = BLEU(tokenize=chosen_tokenizer(tokenize, references), lowercase=lowercase)
        return {"sacrebleu": bleu, "chrf": CHRF()}
