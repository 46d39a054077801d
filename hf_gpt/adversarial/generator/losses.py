"""
Losses of the generator, as pure functions on log-probabilities.

`logps` (B, C) are log q(y_t | s_t) of generated tokens, with gradient. q must be the distribution that they were
sampled from, temperature and truncation included (`SamplingConfig.policy_logits`), or the expected score is not 0.
`mask` (B, C) is 1 at generated tokens up to and including the end-of-text token. p is the distribution of the data, l
a discriminator's logit. `rewards.REWARDS` says what each reward descends.
"""

import torch
from torch.nn.functional import log_softmax, one_hot, softplus

from hf_gpt.adversarial.discriminator.losses import bradley_terry_loss, split_groups
from hf_gpt.adversarial.generator.divergences import token_divergence
from hf_gpt.adversarial.masked_reductions import masked_mean, masked_sum


NORMALIZATIONS = ("sequence", "token", "length")


def policy_gradient_loss(
    logps: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor, normalization: str = "sequence"
) -> torch.Tensor:
    """REINFORCE: -A log q, whose gradient is that of minus the expected reward, E_q[A grad log q].

    Descends what the reward stands for, KL(q || p) for the logit; exactly so with normalization "sequence" and
    returns of gamma = 1.

    Source: Williams 1992; for text GANs SeqGAN, Yu et al. 2017, arXiv:1609.05473.

    Args:
        logps: (B, C).
        advantages: (B,) one a text, or (B, C) one a token; no gradient flows into them.
        mask: (B, C).
        normalization: Of the sum over tokens: "sequence" takes the mean over texts of it, "token" divides it by the
            number of tokens in the batch (DAPO, arXiv:2503.14476), "length" divides each text's by its length first
            (GRPO).

    Returns:
        fp32 scalar.
    """
    return _reduce(-_per_token(advantages, mask) * logps.float(), mask, normalization)


def grpo_loss(
    logps: torch.Tensor,
    old_logps: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    epsilon: float = 0.2,
    beta: float = 0.0,
    ref_logps: torch.Tensor | None = None,
    normalization: str = "length",
) -> torch.Tensor:
    """-min(rho A, clip(rho, 1 - eps, 1 + eps) A) + beta k3, rho = q / q_old of a token: PPO's loss, and GRPO's.

    At rho = 1 its gradient is that of `policy_gradient_loss`; beyond the clip a token has none, so that a batch may be
    used for several updates. The k3 term descends KL(q || reference).

    Source: PPO, Schulman et al. 2017, arXiv:1707.06347, eq. 7; GRPO, arXiv:2402.03300, eq. 3; with a discriminator as
    reward: TextGAIL, arXiv:2004.13796; GAD, arXiv:2511.10643, sec. 2.

    Args:
        logps: (B, C).
        old_logps: (B, C) of the policy that generated the texts.
        advantages: (B,) or (B, C).
        mask: (B, C).
        epsilon: How far from 1 the ratio may go.
        beta: Weight of the KL penalty.
        ref_logps: (B, C) of the reference; needed when beta is not 0.
        normalization: As in `policy_gradient_loss`.

    Returns:
        fp32 scalar.
    """
    if beta and ref_logps is None:
        raise ValueError("a KL penalty (beta) needs ref_logps, the log-probabilities of the reference model")
    advantages = _per_token(advantages, mask)
    ratio = _ratio(logps, old_logps, mask)
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
    loss = _reduce(-torch.minimum(ratio * advantages, clipped * advantages), mask, normalization)
    return loss + beta * kl_penalty(logps, ref_logps, mask, normalization) if beta else loss


def kl_penalty(
    logps: torch.Tensor, ref_logps: torch.Tensor, mask: torch.Tensor, normalization: str = "length"
) -> torch.Tensor:
    """k3 = e^d - d - 1 with d = log pi_ref - log q, at generated tokens: an estimate >= 0 of KL(q || pi_ref).

    Its value is unbiased; its gradient at a token is (1 - e^d) grad log q.

    Source: Schulman 2020, joschu.net/blog/kl-approx.html; GRPO, arXiv:2402.03300, eq. 4.
    Arguments as in `grpo_loss`.
    """
    difference = torch.where(mask.bool(), ref_logps.detach().float() - logps.float(), 0.0)
    return _reduce(difference.exp() - difference - 1, mask, normalization)


def soft_target_loss(
    logits: torch.Tensor, tokens: torch.Tensor, target_logits: torch.Tensor, share: float = 1.0
) -> torch.Tensor:
    """(1 - share) (-log q(y)) + share (-sum_v M(v) log q(v)) at real prefixes, M a language model of the real texts.

    The MLE term with soft targets (distillation). Where M = p it descends KL(p || q) without the variance of a sampled
    next token. A small generator learns more from a larger M than from the texts; one no better than q teaches nothing.

    Source: Hinton et al. 2015, arXiv:1503.02531; of words, Kim and Rush 2016, arXiv:1606.07947, sec. 3.1; beside a
    divergence at the generator's own texts: GKD, Agarwal et al. 2024, arXiv:2306.13649, eq. 4.

    Args:
        logits: G's, (B, C, V), with gradient.
        tokens: The real next tokens, (B, C) int64.
        target_logits: M's, (B, C, V); no gradient flows into them.
        share: 0 for the next token alone, 1 for M alone.

    Returns:
        (B, C) fp32, nats.
    """
    log_q = log_softmax(logits.float(), dim=-1)
    hard = -log_q.gather(-1, tokens[..., None])[..., 0]
    targets = target_logits.detach().float().softmax(-1)
    # What M rules out adds nothing, whatever the generator gives it.
    soft = -(targets * log_q.masked_fill(targets == 0, 0.0)).sum(-1)
    return (1 - share) * hard + share * soft if share < 1 else soft


def self_normalised_weights(
    scores: torch.Tensor,
    clip: float = 4.0,
    temperature: float = 1.0,
    baseline: float = 0.0,
    group_size: int | None = None,
) -> torch.Tensor:
    """softmax of clip(l, +-clip) / temperature over the texts (of a group), minus baseline / N.

    Importance weights p/q of generated texts, so that a weighted likelihood on them is one on data: descends
    KL(p || q), biased by 1/N and by the clip. baseline = 1 takes off their mean, which lowers the variance and leaves
    the expectation as it is.

    Source: MaliGAN, Che et al. 2017, arXiv:1702.07983 (with b = baseline / N); weights of a cooperating
    discriminator: SelfGAN, Scialom et al. 2021, arXiv:2106.06363.

    Args:
        scores: Logits (B,).
        clip: Largest absolute logit.
        temperature: Above 1 evens the weights out.
        baseline: b in units of 1/N.
        group_size: N; left out: all B together.

    Returns:
        (B,) fp32 without gradient; with baseline 0 the weights of a group add up to 1.
    """
    groups = split_groups(scores.detach().float(), scores.shape[0] if group_size is None else group_size)
    weights = (groups.clamp(-clip, clip) / temperature).softmax(dim=1) - baseline / groups.shape[1]
    return weights.flatten()


def selected_weights(scores: torch.Tensor, group_size: int | None = None, keep: int = 1) -> torch.Tensor:
    """1/keep at the `keep` highest scores of each group, 0 elsewhere, (B,): likelihood on the texts that pass.

    Descends KL(p' || q), p' the distribution of the best of N samples, a sharper q. Expert iteration.

    Source: SelfGAN, arXiv:2106.06363, with selection in place of tree search.
    Arguments as in `self_normalised_weights`.
    """
    groups = split_groups(scores.detach().float(), scores.shape[0] if group_size is None else group_size)
    chosen = groups.topk(keep, dim=1).indices
    return torch.zeros_like(groups).scatter_(1, chosen, 1 / keep).flatten()


def weighted_likelihood_loss(
    logps: torch.Tensor, weights: torch.Tensor, mask: torch.Tensor, num_groups: int = 1
) -> torch.Tensor:
    """-sum_i w_i log q(y_i), over the number of groups whose weights each add up to 1. See `self_normalised_weights`.

    Args:
        logps: (B, C).
        weights: (B,); no gradient flows into them.
        mask: (B, C).
        num_groups: Divisor.
    """
    return -(weights.detach().float() * masked_sum(logps, mask)).sum() / num_groups


def exact_token_loss(
    logits: torch.Tensor,
    mask: torch.Tensor,
    reference_logits: torch.Tensor | None = None,
    log_ratio: torch.Tensor | None = None,
    normalization: str = "sequence",
    divergence: str = "reverse_kl",
    beta: float = 0.5,
) -> torch.Tensor:
    """sum_t D(G(. | s_t), M(. | s_t)) at states that G generated, over the whole vocabulary: no sampled reward at all.

    Descends the sum over positions of D at G's own prefixes, D one of `divergences.TOKEN_DIVERGENCES`. With KL(G || M)
    and M = p that is KL(q || p) itself. The gradient leaves out what a token does to later prefixes (gamma = 0; add
    `policy_gradient_loss` on `rewards.future_returns` of `token_divergence_rewards` for the whole). With M the mediator
    of `discriminator.losses.mediator_loss` it is CoT: KL(G || M) is the generator's half of JSD(p, q).

    Source: CoT, Lu et al. 2019, arXiv:1804.03782; with M = p on-policy distillation: GKD, arXiv:2306.13649.

    Args:
        logits: G's, (B, C, V), with gradient.
        mask: (B, C).
        reference_logits: M's, (B, C, V).
        log_ratio: In place of them the discriminator's log M(v | s_t) - log G(v | s_t) of every next token, (B, C,
            V). Same gradient; the value is then right too.
        normalization: As in `policy_gradient_loss`.
        divergence, beta: See `divergences.token_divergence`.

    Returns:
        fp32 scalar.
    """
    if (reference_logits is None) == (log_ratio is None):
        raise ValueError("exact_token_loss takes one of reference_logits and log_ratio")
    log_g = log_softmax(logits.float(), dim=-1)
    if reference_logits is not None:
        log_m = log_softmax(reference_logits.detach().float(), dim=-1)
    else:
        log_m = log_g.detach() + log_ratio.detach().float()
    return _reduce(token_divergence(log_g, log_m, divergence, beta), mask, normalization)


@torch.no_grad()
def token_divergence_rewards(
    logits: torch.Tensor, reference_logits: torch.Tensor, mask: torch.Tensor, divergence: str, beta: float = 0.5
) -> torch.Tensor:
    """-D(G(. | s_t), M(. | s_t)) of each state, (B, C), 0 outside the mask: what `exact_token_loss` has there.

    `rewards.future_returns` of them make the gradient of the sum over positions whole, for any D. For KL(G || M) the
    log-ratio of the sampled token has the same expectation, with the variance of the sample.

    Arguments as in `exact_token_loss`.
    """
    log_g, log_m = (log_softmax(given.float(), dim=-1) for given in (logits, reference_logits))
    return torch.where(mask.bool(), -token_divergence(log_g, log_m, divergence, beta), 0.0)


def straight_through_gumbel(
    logits: torch.Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
) -> torch.Tensor:
    """A sample as a one-hot vector whose gradient is that of softmax((logits + g) / temperature), g of Gumbel noise.

    For discriminators that read mixtures of embeddings. The gradient is biased, less so but with more variance for a
    lower temperature; it descends the divergence of the loss behind it.

    Source: Jang et al. 2017, arXiv:1611.01144, sec. 2.2; in RelGAN (openreview rJedV3R5tm) 1 / temperature grows as
    beta_max^(n/N).

    Args:
        logits: (..., V).
        temperature: Above 0.
        generator: Source of the noise.

    Returns:
        (..., V), dtype of `logits`: 1 at the sampled token, 0 elsewhere.
    """
    noise = torch.empty(logits.shape, device=logits.device, dtype=torch.float32).exponential_(generator=generator)
    # Minus the logarithm of an exponential variable is a Gumbel variable.
    perturbed = logits.float() - noise.clamp(min=torch.finfo(torch.float32).tiny).log()
    soft = (perturbed / temperature).softmax(dim=-1)
    hard = one_hot(perturbed.argmax(dim=-1), logits.shape[-1]).to(soft.dtype)
    # Bracketed so that the value is exactly 0 or 1.
    return (hard + (soft - soft.detach())).to(logits.dtype)


def non_saturating_loss(generated_scores: torch.Tensor) -> torch.Tensor:
    """-log s(l_f), differentiated through the text itself (`straight_through_gumbel`); KL(q || p) - 2 JSD(p, q).

    Source: Goodfellow et al. 2014, arXiv:1406.2661, sec. 3.
    """
    return softplus(-generated_scores.float()).mean()


def relativistic_generator_loss(real_scores: torch.Tensor, generated_scores: torch.Tensor) -> torch.Tensor:
    """-log s(l_f - l_r) on random pairs, differentiated through the text itself: RSGAN's generator, as in RelGAN.

    Source: Jolicoeur-Martineau 2018, arXiv:1807.00734. Arguments as in `discriminator.losses.bradley_terry_loss`.
    """
    return bradley_terry_loss(-real_scores.detach(), -generated_scores)


def spin_loss(
    real_logps: torch.Tensor,
    generated_logps: torch.Tensor,
    ref_real_logps: torch.Tensor,
    ref_generated_logps: torch.Tensor,
    beta: float = 0.1,
    loss: str = "logistic",
    bound: float = 1.0,
) -> torch.Tensor:
    """Self-play: the discriminator is the model's own log-ratio l = beta (log q - log q_t) to the round before, q_t.

    "logistic": -log s(l(y) - l(y')), at whose optimum q is proportional to q_t (p/q_t)^(1/beta): towards p, and beyond
    it for beta < 1, along JSD(p x q_t, q_t x p). It has no bound: q of both texts may fall as long as the gap grows.
    "chi2": half of (l(y) - bound)^2 + (l(y') + bound)^2, at whose optimum l = bound (p - q_t)/(p + q_t), along the
    chi-squared of p against (p + q_t)/2: neither side is pushed further once it is there.

    Source: SPIN, Chen et al. 2024, arXiv:2401.01335, eq. 4.7; chi-squared with bounded rewards: arXiv:2602.01357,
    here in its least-squares form.

    Args:
        real_logps: log q of real texts given their prompts, summed over tokens, (B,).
        generated_logps: The same of texts that q_t generated for these prompts, (B,).
        ref_real_logps: log q_t of the real texts, (B,).
        ref_generated_logps: log q_t of the generated texts, (B,).
        beta: Lambda of the paper.
        loss: "logistic" or "chi2".
        bound: Target of |l| for "chi2".

    Returns:
        fp32 scalar.
    """
    real = beta * (real_logps.float() - ref_real_logps.detach().float())
    generated = beta * (generated_logps.float() - ref_generated_logps.detach().float())
    if loss == "logistic":
        return softplus(generated - real).mean()
    if loss == "chi2":
        return ((real - bound).square() + (generated + bound).square()).mean() / 2
    raise ValueError(f"loss is {loss!r}, and must be logistic or chi2")


def _per_token(advantages: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Advantages (B,) or (B, C) as (B, C) without gradient, 0 outside the mask."""
    advantages = advantages.detach().float()
    if advantages.dim() == 1:
        advantages = advantages.unsqueeze(1).expand(mask.shape)
    return torch.where(mask.bool(), advantages, 0.0)


def _ratio(logps: torch.Tensor, old_logps: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """q / q_old of each token, 1 outside the mask."""
    return torch.where(mask.bool(), logps.float() - old_logps.detach().float(), 0.0).exp()


def _reduce(values: torch.Tensor, mask: torch.Tensor, normalization: str) -> torch.Tensor:
    if normalization == "token":
        return masked_mean(values, mask)
    sums = masked_sum(values, mask)
    if normalization == "length":
        sums = sums / mask.bool().sum(1).clamp(min=1)
    elif normalization != "sequence":
        raise ValueError(f"normalization is {normalization!r}, and must be one of {', '.join(NORMALIZATIONS)}")
    return sums.mean()
