"""The discriminator's loss on a batch of real and generated texts."""

import contextlib
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hf_gpt.adversarial.config import LANGUAGE_MODEL_LOSSES, PAIRED_LOSSES, AdversarialConfig
from hf_gpt.adversarial.discriminator.losses import (
    DISCRIMINATOR_LOSSES,
    Counts,
    density_loss,
    gradient_penalty,
    grgc_calibration,
    mediator_loss,
    mix_embeddings,
    r1_penalty,
)
from hf_gpt.adversarial.masked_reductions import masked_sum
from hf_gpt.generation.scoring.logprobs import token_logps


@dataclass
class Batch:
    """Texts as a discriminator reads them, R rows.

    Attributes:
        input_ids, attention_mask: (R, T) int64, padded at the right.
        prompt_length: (R,) int64.
        completions, completion_mask: (R, C).
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    prompt_length: torch.Tensor
    completions: torch.Tensor
    completion_mask: torch.Tensor

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return Batch(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    def __getitem__(self, rows: slice) -> "Batch":
        return Batch(**{name: tensor[rows] for name, tensor in vars(self).items()})


def concatenate(batches: "list[Batch]", pad_token_id: int) -> Batch:
    """The rows of all batches, padded to one width, for one forward pass."""
    fill = {"input_ids": pad_token_id, "completions": pad_token_id}
    joined = {}
    for name in vars(batches[0]):
        tensors = [getattr(batch, name) for batch in batches]
        if tensors[0].ndim == 2:
            width = max(tensor.shape[1] for tensor in tensors)
            tensors = [
                nn.functional.pad(tensor, (0, width - tensor.shape[1]), value=fill.get(name, 0)) for tensor in tensors
            ]
        joined[name] = torch.cat([tensor.to(tensors[0].dtype) for tensor in tensors])
    return Batch(**joined)


def token_counts(batches: list[tuple[Batch, Batch]]) -> torch.Tensor:
    """(2,) completion tokens of real and generated texts, the mean over pairs of batches."""
    counts = [[texts.completion_mask.bool().sum() for texts in batch] for batch in batches]
    return torch.stack([torch.stack(each) for each in counts]).float().mean(0)


def discriminator_loss(
    args: AdversarialConfig,
    scorer: nn.Module,
    real: Batch,
    generated: Batch,
    partners: torch.Tensor,
    pad_token_id: int,
    num_fresh: int = 0,
    group_size: int = 1,
    noise: torch.Generator | None = None,
    counts: Counts | None = None,
    generator_logps: torch.Tensor | None = None,
    fresh_scores: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, and the scores behind it.

    Args:
        args: Names the loss and its penalties.
        scorer: `Scorer`, as it is trained (wrapped).
        real: Real texts, R rows.
        generated: Generated texts, F rows; the first `num_fresh` in groups of a prompt.
        partners: (F,) int64, for each generated text the row of `real` with the same prompt.
        pad_token_id: Fills rows.
        num_fresh: Texts that the calibration is over.
        group_size: Their group.
        noise: Random numbers for the points of the gradient penalty.
        counts: Real and generated tokens that sums are divided by, for losses over tokens. None: those of the batch.
        generator_logps: (R + F,) of whole texts, real ones first, under the generator, for the density ratio.
        fresh_scores: Scores of the first generated texts, with gradient, if they are known.

    Returns:
        A scalar with gradient, and (F,) and (F,) logits of the partners and of the generated texts.
    """
    both = concatenate([real, generated], pad_token_id)
    if args.discriminator_loss in LANGUAGE_MODEL_LOSSES:
        return _language_model(args, scorer, both, len(real), partners, counts, generator_logps)
    if args.reward_level == "prefix":
        return _prefixes(args, scorer, both, len(real), partners, counts)
    if fresh_scores is None:
        fresh_scores = torch.empty(0, device=both.input_ids.device)
    unseen = concatenate([real, generated[len(fresh_scores) :]], pad_token_id)
    scores = scorer(unseen.input_ids, unseen.attention_mask, prompt_length=unseen.prompt_length)
    real_scores, generated_scores = scores[: len(real)], torch.cat([fresh_scores, scores[len(real) :]])
    function = DISCRIMINATOR_LOSSES[args.discriminator_loss]
    if args.discriminator_loss in PAIRED_LOSSES:
        loss = function(real_scores[partners], generated_scores)
    elif args.discriminator_loss == "bce":
        loss = function(real_scores, generated_scores, args.real_label)
    else:
        loss = function(real_scores, generated_scores)
    if args.calibration_weight:
        loss = loss + args.calibration_weight * grgc_calibration(generated_scores[:num_fresh], group_size)
    if args.r1_gamma:
        embeddings = _embed(scorer, both.input_ids[: len(real)]).detach().requires_grad_()
        mask = both.attention_mask[: len(real)]
        with _twice_differentiable():
            again = scorer(kind="embeddings", embeddings=embeddings, attention_mask=mask)
        loss = loss + r1_penalty(again, embeddings, args.r1_gamma)
    if args.gradient_penalty_weight:
        rows = torch.cat([partners, torch.arange(len(real), len(both), device=partners.device)])
        between = mix_embeddings(*_embed(scorer, both.input_ids[rows]).chunk(2), generator=noise)
        mask = torch.maximum(*both.attention_mask[rows].chunk(2))
        with _twice_differentiable():
            again = scorer(kind="embeddings", embeddings=between, attention_mask=mask)
        loss = loss + args.gradient_penalty_weight * gradient_penalty(again, between)
    return loss, real_scores[partners].detach(), generated_scores.detach()


def _prefixes(args, scorer, both, num_real, partners, counts):
    scores = scorer(
        both.input_ids,
        both.attention_mask,
        kind="prefix",
        prompt_length=both.prompt_length,
        num_tokens=both.completions.shape[1],
    )
    # The prompt alone is the same for both sides.
    scores, mask = scores[:, 1:], both.completion_mask
    settings = {"real_label": args.real_label} if args.discriminator_loss == "bce" else {}
    loss = DISCRIMINATOR_LOSSES[args.discriminator_loss](
        scores[:num_real],
        scores[num_real:],
        real_mask=mask[:num_real],
        generated_mask=mask[num_real:],
        counts=counts,
        **settings,
    )
    last = (mask.sum(-1).long() - 1).clamp(min=0)
    whole = scores.detach().gather(1, last[:, None])[:, 0]
    return loss, whole[:num_real][partners], whole[num_real:]


def _language_model(args, scorer, both, num_real, partners, counts, generator_logps):
    logits = scorer(
        both.input_ids,
        both.attention_mask,
        kind="token",
        prompt_length=both.prompt_length,
        num_tokens=both.completions.shape[1],
    )
    logps, mask = token_logps(logits, both.completions), both.completion_mask
    sides = logps[:num_real], logps[num_real:], mask[:num_real], mask[num_real:]
    texts = masked_sum(logps.detach(), mask)
    if args.discriminator_loss == "mediator":
        loss = mediator_loss(*sides, counts)
    elif generator_logps is None:
        loss = density_loss(*sides, counts=counts)
    else:
        references = generator_logps[:num_real], generator_logps[num_real:]
        loss = density_loss(*sides, *references, weight=args.density_ratio_weight, counts=counts)
        texts = texts - generator_logps
    return loss, texts[:num_real][partners], texts[num_real:]


def _twice_differentiable() -> contextlib.AbstractContextManager[None]:
    # PyTorch's fused attention has no second derivative.
    return sdpa_kernel(SDPBackend.MATH)


def _embed(scorer: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    inner = scorer.module if not hasattr(scorer, "model") else scorer
    return inner.model.get_input_embeddings()(ids)
