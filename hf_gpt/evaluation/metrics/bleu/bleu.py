"""Corpus BLEU of translations, by sacrebleu."""

from typing import Any

from sacrebleu.metrics import BLEU

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.text.references import chosen_tokenizer


class Bleu(metric.CorpusMetric):
    """BLEU over a whole corpus, from 0 to 100; `ngram_bleu` is the mean over sentences that text-GAN papers use."""

    source = "https://aclanthology.org/W18-6319"

    def scorers(self, references: list[list[str]], tokenize: str = "auto", lowercase: bool = False) -> dict[str, Any]:
        return {"bleu": BLEU(tokenize=chosen_tokenizer(tokenize, references), lowercase=lowercase)}
