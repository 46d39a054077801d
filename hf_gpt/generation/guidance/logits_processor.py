"""Step-wise guided decoding: the discriminator re-scores each next token."""

from collections.abc import Callable

import torch
from transformers import LogitsProcessor, PreTrainedModel

from hf_gpt.generation.scoring.discriminator import ScoreError, check_scores, describe_scorer, sequence_scores
from hf_gpt.generation.scoring.shared_tokens import check_vocabulary


# (sequences (n, length), attention_mask (n, length)) to logits (n,).
Scorer = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def as_scorer(discriminator: PreTrainedModel | Scorer, batch_size: int | None = None) -> Scorer:
    """A discriminator as a function of sequences and mask that checks its scores: none is nan or plus infinity.

    A function may rule a text out by minus infinity, a model may not. It may return a tensor of shape (n,) or (n, 1),
    or a sequence of n numbers.
    """
    if isinstance(discriminator, torch.nn.Module):
        return lambda sequences, attention_mask: sequence_scores(discriminator, sequences, attention_mask, batch_size)
    return lambda sequences, attention_mask: check_scores(
        _one_each(discriminator(sequences, attention_mask), sequences, discriminator), discriminator, may_rule_out=True
    )


def _one_each(scores: object, sequences: torch.Tensor, discriminator: Scorer) -> torch.Tensor:
    """The result of a function as (n,) logits.

    Raises:
        ScoreError: it is not one number for each of the n texts.
    """
    found = scores
    if not isinstance(found, torch.Tensor):
        try:
            found = torch.as_tensor(scores, dtype=torch.float32, device=sequences.device)
        except (TypeError, ValueError, RuntimeError):
            found = None
    if found is None or found.shape not in ((len(sequences),), (len(sequences), 1)):
        given = type(scores).__name__ if found is None else f"shape {tuple(found.shape)}"
        raise ScoreError(
            f"{describe_scorer(discriminator)} gave {given} for {len(sequences)} texts: it must return one logit for "
            f"each, of shape ({len(sequences)},)."
        )
    return found.reshape(-1)


class DiscriminatorLogitsProcessor(LogitsProcessor):
    """Adds to the log-probability of each candidate token its improvement of the discriminator's logit.

    log pi(v | s) + weight * (l(s, v) - l(s)) for the `top_k` likeliest tokens v; all others are ruled out
    (discriminative adversarial search, https://arxiv.org/abs/2002.10375, one step at a time). If l(s) is the log-ratio
    of data to generator for the prefix s, then weight 1 and all tokens give exactly the data's distribution.

    Each token costs `top_k + 1` passes of the discriminator over its text.

    Args:
        discriminator: A sequence classifier with one label, over the generator's tokens, best a causal one trained on
            prefixes. Or a function of sequences and mask that returns logits.
        weight: Weight of the discriminator; 0 keeps the generator's probabilities.
        top_k: Candidates for each step; 0: the whole vocabulary.
        attention_mask: Mask of the prompts, shape `(prompts, length)`. Left out: leading padding tokens are padding.
        pad_token_id: The padding token, for prompts without a mask.
        eos_token_id: Ends a text: rows with it past the prompt are not changed.
        prompt_length: Tokens of the prompts, padding included. Left out: those of the first call.
        batch_size: Texts that the discriminator reads at a time. Left out: all candidates of a step.

    Raises:
        ValueError: a negative `top_k`; at the first call, a discriminator of another number of tokens.
    """

    def __init__(
        self,
        discriminator: PreTrainedModel | Scorer,
        weight: float = 1.0,
        top_k: int = 20,
        attention_mask: torch.Tensor | None = None,
        pad_token_id: int | None = None,
        eos_token_id: int | list[int] | None = None,
        prompt_length: int | None = None,
        batch_size: int | None = None,
    ):
        if top_k < 0:
            raise ValueError(f"top_k must be 0 (all tokens) or more, got {top_k}.")
        self.scorer = as_scorer(discriminator, batch_size)
        self._unchecked = discriminator if isinstance(discriminator, torch.nn.Module) else None
        self.weight = weight
        self.top_k = top_k
        self.attention_mask = attention_mask
        self.pad_token_id = pad_token_id
        self.eos_token_ids = torch.tensor([] if eos_token_id is None else eos_token_id).reshape(-1).long()
        self.prompt_length = prompt_length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """`scores` of shape `(rows, vocab_size)` for the token after `input_ids` of shape `(rows, length)`."""
        if self._unchecked is not None:
            check_vocabulary(scores.shape[-1], self._unchecked)
            self._unchecked = None
        if self.prompt_length is None:
            self.prompt_length = input_ids.shape[1]
        log_probs = scores.log_softmax(-1)
        running = ~torch.isin(input_ids[:, self.prompt_length :], self.eos_token_ids.to(input_ids)).any(1)
        if running.any():
            mask = self._mask(input_ids)[running]
            log_probs[running] = self._rescore(input_ids[running], mask, log_probs[running])
        return log_probs

    def _rescore(self, input_ids: torch.Tensor, mask: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        rows, vocab_size = log_probs.shape
        number = min(self.top_k or vocab_size, vocab_size)
        values, tokens = log_probs.topk(number, dim=-1)
        longer = torch.cat([input_ids.repeat_interleave(number, 0), tokens.reshape(-1, 1)], 1)
        longer_mask = torch.nn.functional.pad(mask.repeat_interleave(number, 0), (0, 1), value=1)
        # If the prefix is ruled out, by minus infinity, its logit counts as 0.
        before = self.scorer(input_ids, mask)
        before = before.masked_fill(before == -torch.inf, 0.0)
        added = self.scorer(longer, longer_mask).view(rows, number) - before[:, None]
        # A token that the generator rules out stays out.
        guided = torch.where(values == -torch.inf, values, values + self.weight * added.to(values))
        # All ruled out: the generator alone decides.
        guided = torch.where((guided == -torch.inf).all(1, keepdim=True), values, guided)
        return torch.full_like(log_probs, -torch.inf).scatter(1, tokens, guided)

    def _mask(self, input_ids: torch.Tensor) -> torch.Tensor:
        mask = torch.ones_like(input_ids)
        if self.attention_mask is not None:
            prompts = self.attention_mask.to(mask)
            mask[:, : prompts.shape[1]] = prompts.repeat_interleave(len(mask) // len(prompts), 0)
        elif self.pad_token_id is not None:
            prompt = input_ids[:, : self.prompt_length]
            # The last token of a prompt is no padding, even if texts begin with the padding token.
            leading = (prompt == self.pad_token_id).long().cumprod(1)[:, :-1]
            mask[:, : leading.shape[1]] = 1 - leading
        return mask
