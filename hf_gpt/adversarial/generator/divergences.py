"""
Divergences of two next-token distributions over the whole vocabulary, as pure functions with an exact gradient.

`log_g` and `log_m` (..., V) are normalised log-probabilities: of G, the generator, and of M, what it is compared with
(a discriminator that is a language model, or the data itself). Each returns (...), nats >= 0, and 0 only where G = M. A
token that one of them rules out (minus infinity) adds what the limit says: 0 log 0 = 0.
"""

import math
from collections.abc import Callable

import torch


def reverse_kl(log_g: torch.Tensor, log_m: torch.Tensor, beta: float = 0.5) -> torch.Tensor:
    """KL(G || M), mode-seeking: G is punished for what M would not say. `beta` is not used.

    Source: CoT, Lu et al. 2019, arXiv:1804.03782; on-policy distillation with it: MiniLLM, arXiv:2306.08543.
    """
    return _kl(log_g, log_m)


def forward_kl(log_g: torch.Tensor, log_m: torch.Tensor, beta: float = 0.5) -> torch.Tensor:
    """KL(M || G), mode-covering: G is punished for not saying what M would. `beta` is not used.

    At G's own prefixes it is imitation of M where G goes (DAgger); at real ones, distillation by soft labels.

    Source: GKD, Agarwal et al. 2024, arXiv:2306.13649, sec. 2.
    """
    return _kl(log_m, log_g)


def jsd(log_g: torch.Tensor, log_m: torch.Tensor, beta: float = 0.5) -> torch.Tensor:
    """beta KL(M || W) + (1 - beta) KL(G || W), W = beta M + (1 - beta) G: the generalised Jensen-Shannon divergence.

    Never above log 2 at beta = 1/2. Divided by beta it tends to KL(M || G) as beta falls to 0; divided by 1 - beta it
    tends to KL(G || M) as beta rises to 1.

    Source: GKD, arXiv:2306.13649, eq. 1 (P is M, Q is G).
    """
    log_w = _mixture(log_m, log_g, beta)
    return beta * _kl(log_m, log_w) + (1 - beta) * _kl(log_g, log_w)


def skew_reverse_kl(log_g: torch.Tensor, log_m: torch.Tensor, beta: float = 0.1) -> torch.Tensor:
    """KL(G || (1 - beta) M + beta G): reverse KL whose log-ratio is never above -log beta.

    Source: DistiLLM, Ko et al. 2024, arXiv:2402.03898, eq. 3 (alpha is beta).
    """
    return _kl(log_g, _mixture(log_g, log_m, beta))


def skew_forward_kl(log_g: torch.Tensor, log_m: torch.Tensor, beta: float = 0.1) -> torch.Tensor:
    """KL(M || beta M + (1 - beta) G): forward KL whose log-ratio is never above -log beta.

    Source: DistiLLM, arXiv:2402.03898, eq. 2 (alpha is beta).
    """
    return _kl(log_m, _mixture(log_m, log_g, beta))


TOKEN_DIVERGENCES: dict[str, Callable[..., torch.Tensor]] = {
    "reverse_kl": reverse_kl,
    "forward_kl": forward_kl,
    "jsd": jsd,
    "skew_reverse_kl": skew_reverse_kl,
    "skew_forward_kl": skew_forward_kl,
}


def token_divergence(
    log_g: torch.Tensor, log_m: torch.Tensor, kind: str = "reverse_kl", beta: float = 0.5
) -> torch.Tensor:
    """One of `TOKEN_DIVERGENCES` by its name, in float32.

    Args:
        log_g: Of G, (..., V), normalised.
        log_m: Of M, (..., V), normalised; no gradient flows into it.
        kind: Which.
        beta: Weight in mixtures, strictly between 0 and 1.

    Returns:
        (...) fp32, nats.

    Raises:
        ValueError: there is no such divergence, or beta is not between 0 and 1.
    """
    if kind not in TOKEN_DIVERGENCES:
        raise ValueError(f"there is no token divergence {kind!r}; choose from {', '.join(TOKEN_DIVERGENCES)}")
    if not 0 < beta < 1:
        raise ValueError(f"beta of a token divergence must be between 0 and 1, both excluded; got {beta}")
    return TOKEN_DIVERGENCES[kind](log_g.float(), log_m.detach().float(), beta)


def _kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    # Where p is 0, neither value nor gradient counts.
    never = log_p.isneginf()
    log_p, log_q = log_p.masked_fill(never, 0.0), log_q.masked_fill(never, 0.0)
    return torch.where(never, 0.0, log_p.exp() * (log_p - log_q)).sum(-1)


def _mixture(log_a: torch.Tensor, log_b: torch.Tensor, weight: float) -> torch.Tensor:
    """log(weight a + (1 - weight) b), with a gradient that is finite where one of them is ruled out, or both."""
    least = torch.finfo(log_a.dtype).min / 2
    return torch.logaddexp(log_a.clamp(min=least) + math.log(weight), log_b.clamp(min=least) + math.log1p(-weight))
