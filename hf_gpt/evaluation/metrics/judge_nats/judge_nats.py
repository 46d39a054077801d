"""What a pretrained language model that shares nothing with the generators says of their texts, in nats per word."""

import functools
from typing import Any

import numpy as np

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.language_model.likelihood import likelihood
from hf_gpt.evaluation.models import open_model
from hf_gpt.evaluation.statistics.bootstrap import Sums, bootstrap, interval


_RESAMPLES = 1000
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
        if model is None:
            raise ValueError("model is missing. Give a causal language model, or the path of one.")
        texts = [text for text in predictions if text.strip()]
        if not texts:
            raise ValueError("predictions hold no words: every text is empty.")
        opened = _opened(model) if isinstance(model, str) else open_model(model, processing_class)
        found = likelihood(*opened, texts, max_length=max_length, batch_size=batch_size)
        words = np.array([len(text.split()) for text in texts])
        values = {"": Sums(np.stack([found.nll, words], 1), lambda sums: {"judge_nats": sums[0] / sums[1]})}
        low, high = interval(bootstrap(values, _RESAMPLES)[""]["judge_nats"])
        value = float(found.nll.sum() / words.sum())
        return {"judge_nats": value, "judge_nats_low": low, "judge_nats_high": high, "judge_words": int(words.sum())}
