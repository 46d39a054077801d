"""What a pretrained language model that shares nothing with the generators says of their texts, in nats per word."""

import functools
from typing import Any

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.language_model.likelihood import likelihood, nats_per_word
from hf_gpt.evaluation.models import open_model


# A judge of a hundred million parameters is loaded once for all models that it judges.
_opened = functools.lru_cache(maxsize=1)(open_model)


class JudgeNats(metric.SampleMetric):
    """Nats per word of texts under a causal language model, with the 95 % bootstrap interval over texts.

    Low is likely, not good: the value of real texts is the aim, and a low temperature goes below it. Read it together
    with `self_bleu`. Words are what blanks part, so judges with different tokenizers can be compared.
    """

    source = "https://arxiv.org/abs/1811.02549"
    inputs = "predictions: texts. model: a causal language model or its path; processing_class: its tokenizer."
    needs_references = False

    def measure(
        self,
        predictions: list[str],
        model: Any = None,
        processing_class: Any = None,
        max_length: int | None = None,
        batch_size: int = 8,
    ) -> dict[str, Any]:
        texts = [text for text in predictions if text.strip()]
        if not texts:
            raise ValueError("predictions hold no words: every text is empty.")
        opened = _opened(model) if isinstance(model, str) else open_model(model, processing_class)
        found = likelihood(*opened, texts, max_length=max_length, batch_size=batch_size)
        words = sum(len(text.split()) for text in texts)
        return {**nats_per_word("judge_nats", found.nll, texts), "judge_words": words}
