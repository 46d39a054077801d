"""NLL_oracle, entropy, both KL divergences and JSD of a generator, for data with a known density."""

from typing import Any

from hf_gpt.evaluation import metric
from hf_gpt.evaluation.checks import check_same_length, check_vector
from hf_gpt.evaluation.statistics.exact_divergence import exact_divergences


class ExactDivergence(metric.PairedMetric):
    """All in nats for a text, with standard errors, from samples of generator q and of data p under both densities.

    `nll_oracle` alone rewards a generator for writing the likeliest text over and over; `reverse_kl` is `nll_oracle`
    less the generator's own entropy, and is zero only where both distributions agree.
    """

    source = "https://arxiv.org/abs/1609.05473, https://arxiv.org/abs/1811.02549"
    inputs = (
        "predictions: log q of samples from the generator. references: log p of the same samples. "
        "data_predictions, data_references: log q and log p of samples from the data. "
        "predictions and references must be equally many."
    )
    predictions = "float64"
    references = "float64"

    def _compute(
        self,
        predictions: list[float],
        references: list[float],
        data_predictions: Any = None,
        data_references: Any = None,
    ) -> dict[str, float]:
        if data_predictions is None or data_references is None:
            raise ValueError("data_predictions and data_references are missing. Give log q and log p of data samples.")
        own = check_vector("data_references", data_references, 2)
        check_same_length(data_predictions=data_predictions, data_references=own)
        return exact_divergences(predictions, references, data_predictions, own)
