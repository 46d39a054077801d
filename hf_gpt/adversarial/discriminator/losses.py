"""
Losses of the discriminator, as pure functions on its scores.

Scores are logits l: one for each text (B,), or one for each prefix (B, C) with a mask. Positive means real. p is the
distribution of the data, q that of the generator. Each docstring names the optimal score l* and the least value of the
loss over all scores: a constant minus the divergence that a generator descends against l*.
"""

from collections.abc import Callable

import torch
from torch.nn.functional import logsigmoid, relu, softplus

from hf_gpt.adversarial.masked_reductions import masked_sum, mean_of, select


Counts = tuple[float | torch.Tensor, float | torch.Tensor]


def bce_loss(
    real_scores: torch.Tensor,
    generated_scores: torch.Tensor,
    real_label: float = 0.9,
    real_mask: torch.Tensor | None = None,
    generated_mask: torch.Tensor | None = None,
    counts: Counts | None = None,
) -> torch.Tensor:
    """Binary cross-entropy with one-sided label smoothing: half of -a log s(l_r) - (1-a) log s(-l_r) - log s(-l_f).

    With a = `real_label` = 1: l* = log p/q, least value log 2 - JSD(p, q). With a < 1, s(l*) = a p / (p + q): no score
    above log a/(1-a) pays, so rewards stay bounded where q is 0. The zero point moves to log a/(2-a). Generated texts
    are not smoothed, which would reward q for what it already does.

    Source: Goodfellow et al. 2014, arXiv:1406.2661, eq. 1; smoothing: Salimans et al. 2016, arXiv:1606.03498, sec. 3.4.

    Args:
        real_scores: Logits of real texts, (B,) or (B, C).
        generated_scores: Logits of generated texts, (B',) or (B', C').
        real_label: The target a of real texts, in (0, 1].
        real_mask: 1 where a real prefix counts, shape of `real_scores`; left out: all count.
        generated_mask: 1 where a generated prefix counts, shape of `generated_scores`.
        counts: What the sums over real and over generated scores are divided by; left out: how many count.

    Returns:
        fp32 scalar; log 2 = 0.693 for scores of 0 throughout.
    """
    if not 0 < real_label <= 1:
        raise ValueError(f"real_label is {real_label}, and must be above 0 and at most 1")
    real_scores, generated_scores = select(real_scores, real_mask), select(generated_scores, generated_mask)
    num_real, num_generated = counts or (None, None)
    real = -real_label * logsigmoid(real_scores) - (1 - real_label) * logsigmoid(-real_scores)
    return (mean_of(real, num_real) + mean_of(softplus(generated_scores), num_generated)) / 2


def hinge_loss(
    real_scores: torch.Tensor,
    generated_scores: torch.Tensor,
    real_mask: torch.Tensor | None = None,
    generated_mask: torch.Tensor | None = None,
    counts: Counts | None = None,
) -> torch.Tensor:
    """Hinge loss: half of max(0, 1 - l_r) + max(0, 1 + l_f).

    l* = sign(p - q), least value 1 - TV(p, q) (total variation). The score is a margin and no log-ratio: estimators
    that read it as log p/q (`weighted_likelihood_loss`, `exact_token_loss`) do not apply.

    Source: Lim & Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957.
    Arguments and result as in `bce_loss`; 1 for scores of 0 throughout.
    """
    real, generated = relu(1 - select(real_scores, real_mask)), relu(1 + select(generated_scores, generated_mask))
    num_real, num_generated = counts or (None, None)
    return (mean_of(real, num_real) + mean_of(generated, num_generated)) / 2


def least_squares_loss(
    real_scores: torch.Tensor,
    generated_scores: torch.Tensor,
    real_mask: torch.Tensor | None = None,
    generated_mask: torch.Tensor | None = None,
    counts: Counts | None = None,
) -> torch.Tensor:
    """Least squares with targets +1 and -1: half of (l_r - 1)^2 + (l_f + 1)^2.

    l* = (p - q)/(p + q), least value 1 - (1/2) sum (p - q)^2 / (p + q): the Pearson chi-squared of p against the
    mixture (p + q)/2. The score is a regression value in [-1, 1] and no log-ratio.

    Source: Mao et al. 2017, arXiv:1611.04076, eq. 2 with a = -1, b = 1.
    Arguments and result as in `bce_loss`; 1 for scores of 0 throughout.
    """
    real, generated = select(real_scores, real_mask) - 1, select(generated_scores, generated_mask) + 1
    num_real, num_generated = counts or (None, None)
    return (mean_of(real.square(), num_real) + mean_of(generated.square(), num_generated)) / 2


def wasserstein_loss(
    real_scores: torch.Tensor,
    generated_scores: torch.Tensor,
    real_mask: torch.Tensor | None = None,
    generated_mask: torch.Tensor | None = None,
    counts: Counts | None = None,
) -> torch.Tensor:
    """mean(l_f) - mean(l_r); least value -W_1(p, q) over scores that are 1-Lipschitz, unbounded over all others.

    Needs `gradient_penalty`, or spectral normalisation of the whole discriminator.

    Source: Arjovsky et al. 2017, arXiv:1701.07875, eq. 2. Arguments as in `bce_loss`.
    """
    num_real, num_generated = counts or (None, None)
    return mean_of(select(generated_scores, generated_mask), num_generated) - mean_of(
        select(real_scores, real_mask), num_real
    )


def bradley_terry_loss(real_scores: torch.Tensor, generated_scores: torch.Tensor) -> torch.Tensor:
    """-log s(l(y) - l(y')) over pairs of a real text y and a generated y' for one prompt.

    l* = log p/q + c(prompt), least value log 2 - JSD(p x q, q x p): telling a pair from the swapped pair. Only
    differences within a prompt have a meaning, so rewards from it need a baseline within the prompt. On a *pair* this
    is also the cross-entropy of a softmax over both (TextGAIL) and the loss of the relativistic discriminator
    (RSGAN).

    Source: GAD, arXiv:2511.10643, eq. 3; TextGAIL, arXiv:2004.13796; Jolicoeur-Martineau 2018, arXiv:1807.00734.

    Args:
        real_scores: Logits (P,), one real text a prompt.
        generated_scores: Logits (P * N,); the N generated texts of a prompt are adjacent.

    Raises:
        ValueError: the number of generated texts is no multiple of that of real texts.
    """
    return softplus(-_margins(real_scores, generated_scores)).mean()


def relativistic_loss(real_scores: torch.Tensor, generated_scores: torch.Tensor, average: bool = False) -> torch.Tensor:
    """-log s(l_r - l_f) for random pairs (RSGAN, as in RelGAN), or each side against the mean of the other (RaSGAN).

    Without `average`: see `bradley_terry_loss`, which this is. With it: half of -log s(l_r - mean l_f)
    - log s(-(l_f - mean l_r)), which has no closed-form optimum; log 2 for equal scores.

    Source: Jolicoeur-Martineau 2018, arXiv:1807.00734 (RSGAN, RaSGAN); RelGAN, Nie et al. 2019,
    openreview.net/forum?id=rJedV3R5tm.
    Arguments as in `bradley_terry_loss`.
    """
    if not average:
        return bradley_terry_loss(real_scores, generated_scores)
    real_scores, generated_scores = real_scores.float(), generated_scores.float()
    real, generated = real_scores - generated_scores.mean(), generated_scores - real_scores.mean()
    return (softplus(-real).mean() + softplus(generated).mean()) / 2


def relativistic_average_loss(real_scores: torch.Tensor, generated_scores: torch.Tensor) -> torch.Tensor:
    """`relativistic_loss` of each side against the mean of the other (RaSGAN)."""
    return relativistic_loss(real_scores, generated_scores, average=True)


def mediator_loss(
    real_logps: torch.Tensor,
    generated_logps: torch.Tensor,
    real_mask: torch.Tensor | None = None,
    generated_mask: torch.Tensor | None = None,
    counts: Counts | None = None,
) -> torch.Tensor:
    """Likelihood of a mediator M on half real and half generated text: half of -log M(y_r) - log M(y_f).

    M* = (p + q)/2, least value H((p + q)/2) = JSD(p, q) + (H(p) + H(q))/2. The score that comes with it is exact per
    token, log M - log G over the vocabulary, for `generator.losses.exact_token_loss`. With real text alone, M* = p.

    Source: CoT, Lu et al. 2019, arXiv:1804.03782.

    Args:
        real_logps: log M of the tokens of real texts, (B, C).
        generated_logps: log M of the tokens of generated texts, (B', C').
        real_mask: 1 at tokens, shape of `real_logps`; left out: all count.
        generated_mask: 1 at tokens, shape of `generated_logps`.
        counts: As for `bce_loss`.

    Returns:
        fp32 scalar, nats per token.
    """
    num_real, num_generated = counts or (None, None)
    real, generated = select(real_logps, real_mask), select(generated_logps, generated_mask)
    return -(mean_of(real, num_real) + mean_of(generated, num_generated)) / 2


def density_loss(
    real_logps: torch.Tensor,
    generated_logps: torch.Tensor,
    real_mask: torch.Tensor,
    generated_mask: torch.Tensor,
    real_reference: torch.Tensor | None = None,
    generated_reference: torch.Tensor | None = None,
    weight: float = 0.0,
    counts: Counts | None = None,
) -> torch.Tensor:
    """Likelihood of a language model psi on real text, and `weight` times `bce_loss` of l(y) = log psi(y) - log q(y).

    psi* = p by either part, so l* = log p/q, normalised and exact for every next token. The likelihood needs no
    generated texts. The cross-entropy, whose least value is log 2 - JSD(p, q), corrects psi where the generator goes.

    Source: the cross-entropy is noise-contrastive estimation (Gutmann & Hyvarinen 2010, AISTATS, eq. 3) with the
    generator as the noise; the sum of both is ours, measured in `eval.experiments.arena`.

    Args:
        real_logps: log psi of the tokens of real texts, (B, C).
        generated_logps: log psi of the tokens of generated texts, (B', C').
        real_mask, generated_mask: 1 at tokens.
        real_reference: log q of whole real texts, (B,); with `weight` alone.
        generated_reference: log q of whole generated texts, (B',).
        weight: Of the cross-entropy, in logits of texts, against nats per token.
        counts: As for `bce_loss`, tokens.

    Returns:
        fp32 scalar.
    """
    loss = -mean_of(select(real_logps, real_mask), (counts or (None,))[0])
    if not weight:
        return loss
    real_scores = masked_sum(real_logps, real_mask) - real_reference
    generated_scores = masked_sum(generated_logps, generated_mask) - generated_reference
    return loss + weight * bce_loss(real_scores, generated_scores, real_label=1.0)


def r1_penalty(scores: torch.Tensor, embeddings: torch.Tensor, gamma: float = 1.0) -> torch.Tensor:
    """gamma/2 times the mean over real texts of the squared gradient of the score with respect to its embeddings.

    Keeps the discriminator flat around the data, as at the equilibrium. Descends no divergence of its own.

    Source: Mescheder et al. 2018, arXiv:1801.04406, eq. 9.

    Args:
        scores: Logits (B,), computed from `embeddings`.
        embeddings: Input embeddings (B, T, d) of the real texts, which require a gradient.
        gamma: Weight.

    Returns:
        fp32 scalar, differentiable once more for the discriminator's parameters.
    """
    return gamma / 2 * _gradients(scores, embeddings).square().sum(-1).mean()


def gradient_penalty(scores: torch.Tensor, embeddings: torch.Tensor, target: float = 1.0) -> torch.Tensor:
    """Mean of (norm of the gradient of the score with respect to its embeddings - target)^2, for `wasserstein_loss`.

    Source: Gulrajani et al. 2017, arXiv:1704.00028, eq. 3.

    Args:
        scores: Logits (B,), computed from `embeddings`.
        embeddings: Mixtures of real and generated input embeddings (B, T, d) (`mix_embeddings`).
        target: Lipschitz constant; 0 gives the R1-like penalty on the whole path.
    """
    # A norm of exactly 0 would have no derivative.
    norms = (_gradients(scores, embeddings).square().sum(-1) + 1e-12).sqrt()
    return (norms - target).square().mean()


def mix_embeddings(
    real: torch.Tensor, generated: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """A random point between each real and generated text's embeddings (B, T, d), requiring a gradient."""
    share = torch.rand(real.shape[0], 1, 1, generator=generator, device=real.device, dtype=real.dtype)
    return (share * real + (1 - share) * generated).detach().requires_grad_()


def grgc_calibration(generated_scores: torch.Tensor, group_size: int) -> torch.Tensor:
    """Squared optimal-transport distance of a group's centred scores from the quantiles of a standard Gaussian.

    (1/N) sum_j (r_(j) - mean r - q_j)^2 with q_j = Phi^-1((j - 1/2)/N), the mean over groups. The Bradley-Terry loss
    allows equal scores within a group, from which a policy gradient learns nothing. To be added with weight 0.01.
    Descends no divergence of its own.

    Source: GRGC 2026, calibration of the discriminator.

    Args:
        generated_scores: Logits (G * N,) of the generated texts; those of a prompt are adjacent.
        group_size: N, at least 2.

    Returns:
        fp32 scalar, logits squared.
    """
    groups = split_groups(generated_scores.float(), group_size)
    if group_size < 2:
        raise ValueError("grgc_calibration needs at least 2 generations a prompt: with one there is no spread")
    ranks = torch.arange(1, group_size + 1, device=groups.device, dtype=torch.float64)
    quantiles = torch.special.ndtri((ranks - 0.5) / group_size).float()
    centred = groups - groups.mean(1, keepdim=True)
    return (centred.sort(dim=1).values - quantiles).square().mean()


def split_groups(values: torch.Tensor, group_size: int) -> torch.Tensor:
    """(G * N, ...) as (G, N, ...); ValueError where the number of rows is no multiple of `group_size`."""
    if group_size < 1 or values.shape[0] % group_size:
        raise ValueError(f"{values.shape[0]} rows do not split into groups of {group_size}")
    return values.reshape(-1, group_size, *values.shape[1:])


def _margins(real_scores: torch.Tensor, generated_scores: torch.Tensor) -> torch.Tensor:
    """Real minus generated score, (P, N)."""
    if generated_scores.numel() % real_scores.numel():
        raise ValueError(
            f"{generated_scores.numel()} generated texts cannot be paired with {real_scores.numel()} real ones; each "
            "real text needs the same number of adjacent generated ones"
        )
    return real_scores.float().reshape(-1, 1) - generated_scores.float().reshape(real_scores.numel(), -1)


def _gradients(scores: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    """Gradient of each text's score with respect to its embeddings, (B, T * d), fp32."""
    if not embeddings.requires_grad:
        raise ValueError("the embeddings need requires_grad before the discriminator reads them")
    (gradients,) = torch.autograd.grad(scores.float().sum(), embeddings, create_graph=True)
    return gradients.float().flatten(1)


DISCRIMINATOR_LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "bce": bce_loss,
    "hinge": hinge_loss,
    "least_squares": least_squares_loss,
    "wasserstein": wasserstein_loss,
    "bradley_terry": bradley_terry_loss,
    "relativistic": relativistic_loss,
    "relativistic_average": relativistic_average_loss,
}
