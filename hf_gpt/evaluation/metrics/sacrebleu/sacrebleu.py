"""BLEU and chrF of translations over a whole corpus, by the `sacrebleu` package."""

from sacrebleu.metrics import BLEU, CHRF

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.text.references import chosen_tokenizer, composed, reference_streams


class Sacrebleu(metric.PairedMetric):
    """BLEU (https://aclanthology.org/W18-6319) and chrF (https://aclanthology.org/W15-3049), both from 0 to 100.

    `signature` names the tokenisation and version, so that values can be compared between papers. `tokenize` is one
    of sacrebleu's, or `"auto"`: its default 13a, and where most letters of the references are of scripts without spaces
    zh for Chinese and char for others.
    """

    source = "https://aclanthology.org/W18-6319"
    inputs = "predictions: texts. references: a list of reference texts for each, all equally many."
    predictions = "string"
    references = ["string"]

    def _compute(
        self, predictions: list[str], references: list[list[str]], tokenize: str = "auto", lowercase: bool = False
    ) -> dict[str, float | str]:
        streams = reference_streams(references)
        bleu = BLEU(tokenize=chosen_tokenizer(tokenize, references), lowercase=lowercase)
        predictions = composed(predictions)
        score = bleu.corpus_score(predictions, streams).score
        chrf = CHRF().corpus_score(predictions, streams).score
        return {"sacrebleu": score, "chrf": chrf, "signature": str(bleu.get_signature())}
