"""Divergences of a generator from a data distribution whose density is known, by Monte Carlo, with standard errors."""

import math

import numpy as np


def exact_divergences(
    model_at_model: np.ndarray, data_at_model: np.ndarray, model_at_data: np.ndarray, data_at_data: np.ndarray
) -> dict[str, float]:
    """Divergences between a generator q and the data p, both of whose log-densities are known.

    Args:
        model_at_model, data_at_model: `log q(y)` and `log p(y)` of samples y from q, both `(n,)`.
        model_at_data, data_at_data: `log q(y)` and `log p(y)` of samples y from p, both `(m,)`. All in nats for a whole
            text, its end included. A density of zero is -inf, allowed only for the distribution that y is not from.

    Returns:
        In nats for a text, each with its standard error under the key with `_error` behind it:
        `nll_oracle` `-E_q log p`, `nll_test` `-E_p log q`, `entropy` H(q), `data_entropy` H(p), `reverse_kl` KL(q||p) =
        `nll_oracle - entropy`, `forward_kl` KL(p||q) = `nll_test - data_entropy`, and `jsd`, the Jensen-Shannon
        divergence, at most log 2. The KL are means of the log-ratios, whose spread is smaller than that of their two
        terms. `nll_oracle` alone is no measure of quality: it is lowest for a generator that always writes the
        likeliest text.

    Raises:
        ValueError: lengths differ, there are fewer than 2 samples, or a density is NaN or impossible.
    """
    at_model = _check(model_at_model, data_at_model, "model_at_model", "data_at_model")
    at_data = _check(data_at_data, model_at_data, "data_at_data", "model_at_data")
    result: dict[str, float] = {}

    def put(name: str, *terms: np.ndarray) -> None:
        # The terms come from independent samples, so their variances add.
        result[name] = float(sum(term.mean() for term in terms))
        finite = all(np.isfinite(term).all() for term in terms)
        variance = sum(term.var(ddof=1) / len(term) for term in terms) if finite else math.inf
        result[f"{name}_error"] = math.sqrt(variance)

    put("nll_oracle", -at_model[1])
    put("nll_test", -at_data[1])
    put("entropy", -at_model[0])
    put("data_entropy", -at_data[0])
    put("reverse_kl", at_model[0] - at_model[1])
    put("forward_kl", at_data[0] - at_data[1])
    # KL to the mixture m = (p + q) / 2: log p - log m = log 2 - log(1 + q / p).
    put("jsd", *((math.log(2) - np.logaddexp(0.0, other - own)) / 2 for own, other in (at_model, at_data)))
    return result


def _check(own: np.ndarray, other: np.ndarray, own_name: str, other_name: str) -> tuple[np.ndarray, np.ndarray]:
    own, other = np.asarray(own, np.float64), np.asarray(other, np.float64)
    if own.ndim != 1 or own.shape != other.shape or len(own) < 2:
        raise ValueError(
            f"{own_name} has shape {own.shape} and {other_name} {other.shape}. Give both log-densities of each sample, "
            "for at least 2 samples."
        )
    if not np.isfinite(own).all():
        raise ValueError(f"{own_name} must be finite: a sample has a density above 0 under its own distribution.")
    if np.isnan(other).any() or (other == np.inf).any():
        raise ValueError(f"{other_name} holds NaN or +inf. A log-density is finite, or -inf for what cannot occur.")
    return own, other
