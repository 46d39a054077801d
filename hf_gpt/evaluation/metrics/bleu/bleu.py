"""Corpus BLEU of translations, by sacrebleu."""

from sacrebleu.metrics import BLEU

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.text.references import chosen_tokenizer, composed, reference_streams


class Bleu(metric.PairedMetric):
    """BLEU over a whole corpus, from 0 to 100; `ngram_bleu` is the mean over sentences that text-GAN papers use.

    `signature` names all settings and the version, so that values can be compared between papers.
    """

    source = "https://aclanthology.org/W18-6319"
    inputs = "predictions: texts. references: a list of reference texts for each, all equally many."
    predictions = "string"
    references = ["string"]

    def _compute(
        self, predictions: list[str], references: list[list[str]], tokenize: str = "auto", lowercase: bool = False
    ) -> dict[str, float | str]:
        scorer = BLEU(tokenize=chosen_tokenizer(tokenize, references), lowercase=lowercase)
        score = scorer.corpus_score(composed(predictions), reference_streams(references)).score
        return {"bleu": score, "signature": str(scorer.get_signature())}
