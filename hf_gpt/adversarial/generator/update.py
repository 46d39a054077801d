"""The generator's loss on generated texts, by each estimator, and the anchor on real ones."""

from dataclasses import dataclass

import torch
from torch import nn

from hf_gpt.adversarial.config import AdversarialConfig
from hf_gpt.adversarial.generator.losses import (
    exact_token_loss,
    grpo_loss,
    kl_penalty,
    policy_gradient_loss,
    selected_weights,
    self_normalised_weights,
    soft_target_loss,
    spin_loss,
    weighted_likelihood_loss,
)
from hf_gpt.adversarial.masked_reductions import masked_sum
from hf_gpt.adversarial.monitoring.diagnostics import logp_mismatch
from hf_gpt.generation.sampling.activation_cache import ActivationCache
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.rollout import Rollout
from hf_gpt.generation.scoring.logprobs import completion_logits, completion_logps, token_logps


@dataclass
class Experience:
    """Generated texts and what the generator learns from them; B rows.

    Attributes:
        rollout: The texts, with the log-probabilities of the distribution that they were sampled from.
        group_size: Texts of a prompt, adjacent.
        scores: (B,) logits.
        judgement: The same with gradient, where the discriminator's update reuses them.
        advantages: (B,) or (B, C), for the policy gradients and beside the exact one.
        reference_logps: (B, C) of the reference model, sampled in the same way, for KL and self-play.
        mediator_logits: (B, C, V), for the exact gradient.
        real: The batch of real texts of the same prompts, for self-play.
        real_reference_logps: (B, C') of it.
        activation_cache: Activations of the generator from sampling.
        is_finite: Whether all scores are finite in every process; if not, the texts teach nothing.
    """

    rollout: Rollout
    group_size: int
    scores: torch.Tensor | None = None
    judgement: torch.Tensor | None = None
    advantages: torch.Tensor | None = None
    reference_logps: torch.Tensor | None = None
    mediator_logits: torch.Tensor | None = None
    real: dict[str, torch.Tensor] | None = None
    real_reference_logps: torch.Tensor | None = None
    activation_cache: ActivationCache | None = None
    is_finite: bool = True


def generator_loss(
    args: AdversarialConfig, model: nn.Module, experience: Experience
) -> tuple[torch.Tensor, dict[str, float]]:
    """The loss on generated texts, as a scalar with gradient, and metrics for the log.

    All log-probabilities are those of the policy: the distribution that the texts were sampled from, temperature and
    truncation included. `logp_mismatch` compares them with those recorded in sampling.

    Args:
        args: Names the estimator.
        model: The generator, as it is trained (wrapped).
        experience: What it learns from.
    """
    if args.estimator == "spin":
        return _spin(args, model, experience), {}
    rollout, mask = experience.rollout, experience.rollout.completion_mask
    width, activation_cache = rollout.completions.shape[1], experience.activation_cache
    logits = completion_logits(
        model, rollout.sequences, rollout.attention_mask, rollout.prompt_length, width, activation_cache
    )
    logits = args.sampling.policy_logits(logits, rollout.support, _sampled(rollout))
    logps = token_logps(logits, rollout.completions)
    metrics = {}
    # With cached activations, the values would be compared with themselves.
    if activation_cache is None or not activation_cache.linear_outputs:
        metrics["logp_mismatch"] = logp_mismatch(rollout.logps, logps, mask)
    if args.estimator == "exact_token":
        loss = _exact_token(args, logits, logps, experience)
    elif args.estimator == "weighted_likelihood":
        loss = _weighted_likelihood(args, logps, experience)
    elif args.estimator == "grpo":
        loss = grpo_loss(
            logps,
            rollout.logps,
            experience.advantages,
            mask,
            epsilon=args.epsilon,
            normalization=args.normalization,
        )
    else:
        loss = policy_gradient_loss(logps, experience.advantages, mask, args.normalization)
    if args.beta:
        kl = kl_penalty(logps, experience.reference_logps, mask, args.normalization)
        metrics["kl"] = kl.item()
        loss = loss + args.beta * kl
    return loss, metrics


def anchor_loss(
    model: nn.Module,
    batch: dict[str, torch.Tensor],
    num_tokens: float,
    target_logits: torch.Tensor | None = None,
    soft_targets: float = 0.0,
) -> torch.Tensor:
    """-log q of the completions of real texts, divided by `num_tokens`; q is the model at temperature 1.

    Args:
        model: The generator, as it is trained (wrapped).
        batch: Of real texts.
        num_tokens: The divisor.
        target_logits: (B, C, V) of a language model at the same positions, for the share `soft_targets` of the loss.
        soft_targets: See `losses.soft_target_loss`.
    """
    completions, mask = batch["completions"], batch["completion_mask"]
    logits = completion_logits(
        model, batch["input_ids"], batch["attention_mask"], batch["prompt_length"], completions.shape[1]
    )
    if target_logits is None:
        return -masked_sum(token_logps(logits, completions), mask).sum() / num_tokens
    losses = soft_target_loss(logits, completions, target_logits, soft_targets)
    return masked_sum(losses, mask).sum() / num_tokens


@torch.no_grad()
def logps_of(model: nn.Module, rollout: Rollout, sampling: SamplingConfig) -> torch.Tensor:
    """(B, C) log-probabilities of the rollout's tokens under another model, with its temperature and truncation."""
    width = rollout.completions.shape[1]
    logits = completion_logits(model, rollout.sequences, rollout.attention_mask, rollout.prompt_length, width)
    return token_logps(sampling.policy_logits(logits, rollout.support, _sampled(rollout)), rollout.completions)


def _sampled(rollout: Rollout) -> torch.Tensor | None:
    """The sampled tokens, if the support of the distribution was not recorded."""
    return rollout.completions if rollout.support is None else None


def _weighted_likelihood(args, logps, experience) -> torch.Tensor:
    size = experience.group_size
    if args.select_best:
        weights = selected_weights(experience.scores, size, min(args.select_best, size))
    else:
        weights = self_normalised_weights(
            experience.scores, args.weight_clip, args.weight_temperature, args.weight_baseline, size
        )
    mask = experience.rollout.completion_mask
    loss = weighted_likelihood_loss(logps, weights, mask, num_groups=len(weights) // size)
    if args.normalization == "sequence":
        return loss
    # In the anchor's unit, nats per token.
    return loss / (mask.sum() / len(weights)).clamp(min=1)


def _exact_token(args, logits, logps, experience) -> torch.Tensor:
    mask = experience.rollout.completion_mask
    loss = exact_token_loss(
        logits,
        mask,
        experience.mediator_logits,
        normalization=args.normalization,
        divergence=args.token_divergence,
        beta=args.token_divergence_beta,
    )
    if experience.advantages is not None:
        loss = loss + policy_gradient_loss(logps, experience.advantages, mask, args.normalization)
    return loss


def _spin(args, model, experience) -> torch.Tensor:
    rollout, real = experience.rollout, experience.real
    temperature = args.temperature
    generated_logps = completion_logps(
        model, rollout.sequences, rollout.attention_mask, rollout.prompt_length, rollout.completions, temperature
    )
    real_logps = completion_logps(
        model, real["input_ids"], real["attention_mask"], real["prompt_length"], real["completions"], temperature
    )
    return spin_loss(
        masked_sum(real_logps, real["completion_mask"]),
        masked_sum(generated_logps, rollout.completion_mask),
        masked_sum(experience.real_reference_logps, real["completion_mask"]),
        masked_sum(experience.reference_logps, rollout.completion_mask),
        beta=args.spin_beta,
        loss=args.spin_loss,
    )
