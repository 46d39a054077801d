"""Perplexity of texts under a language model whose texts are weighted by a discriminator, with bounds."""

from typing import Any

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.language_model.residual_likelihood import own_sampling, residual_likelihood, text_rows
from hf_gpt.evaluation.models import open_model
from hf_gpt.generation.guidance.residual_model import ResidualLanguageModel, open_discriminator


class ResidualPerplexity(metric.SampleMetric):
    """Of the residual energy-based model p(x) = q(x) e^l(x) / Z, with a generator q and a discriminator's logit l.

    Texts are cut at `max_new_tokens`, which also cuts the samples of q that log Z is estimated by. The result holds
    `perplexity` with its 95 % interval, `base_perplexity` of q alone, and `gain` in nats a text with its interval and
    the two bounds of Deng et al. `convergence` shows how the bounds of log Z meet as samples grow.
    """

    source = "https://arxiv.org/abs/2004.11714"
    inputs = (
        "predictions: unseen real texts. model: a causal language model or its path; processing_class: its tokenizer; "
        "discriminator: a classifier with one label, or its path."
    )
    needs_references = False
    least_predictions = 2

    def measure(
        self,
        predictions: list[str],
        model: Any = None,
        discriminator: Any = None,
        processing_class: Any = None,
        max_new_tokens: int = 64,
        num_samples: int = 4096,
        batch_size: int = 64,
        seed: int = 0,
    ) -> dict[str, Any]:
        if discriminator is None:
            raise ValueError("discriminator is missing. Give a classifier with one label, or the path of one.")
        generator, tokenizer = open_model(model, processing_class)
        if isinstance(discriminator, str) or hasattr(discriminator, "__fspath__"):
            discriminator = open_discriminator(str(discriminator), tokenizer)
        pair = ResidualLanguageModel(generator, discriminator, tokenizer)
        found = residual_likelihood(
            pair.generator,
            pair.discriminator,
            *text_rows(tokenizer, predictions, max_new_tokens),
            sampling=own_sampling(tokenizer, max_new_tokens),
            num_samples=num_samples,
            batch_size=batch_size,
            seed=seed,
        )
        return found.to_dict()
