"""What every language model does with its last hidden states: logits, or the loss without ever holding them."""

import torch
from torch import nn

from .loss_hf_gpt import chunked_causal_lm_loss


# trf-ignore: TRF041 config.logit_scale, config.final_logit_softcapping, config.chunked_loss

# With `skip_logits="auto"`: logits of a batch (tokens x vocabulary) above which the loss is computed in chunks.
CHUNKED_LOSS_ELEMENTS = 2**24


class HfGptLanguageHeadMixin:
    """For a model with an `lm_head`: scaled and capped logits, and the loss, in chunks where that pays."""

    def _loss_and_logits(
        self,
        hidden_states: torch.Tensor,
        labels: torch.LongTensor | None,
        *,
        logits_to_keep: int | torch.Tensor = 0,
        skip_logits: bool | str | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        loss, logits = None, None
        has_targets = labels is not None or kwargs.get("shift_labels") is not None
        if has_targets and self._computes_loss_in_chunks(hidden_states, logits_to_keep, skip_logits):
            loss = chunked_causal_lm_loss(
                hidden_states,
                self.lm_head.weight,
                labels,
                logit_scale=None if self.config.logit_scale == 1 else self.config.logit_scale,
                softcap=self.config.final_logit_softcapping,
                **kwargs,
            )
        else:
            logits = self.lm_head(_slice_positions(hidden_states, logits_to_keep))
            if self.config.logit_scale != 1:
                logits = logits * self.config.logit_scale
            if (softcap := self.config.final_logit_softcapping) is not None:
                logits = torch.tanh(logits / softcap) * softcap
            if has_targets:
                if kwargs.get("num_items_in_batch") is None and not hasattr(self, "_loss_function"):
                    kwargs["num_items_in_batch"] = _count_targets(labels, **kwargs)
                loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return loss, logits

    def _computes_loss_in_chunks(
        self, hidden_states: torch.Tensor, logits_to_keep: int | torch.Tensor, skip_logits: bool | str | None
    ) -> bool:
        head = self.lm_head
        # The chunks use the head's weight itself: not when the weight is sharded, quantised or adapted, or the
        # caller set a loss of their own.
        is_plain = (
            type(head) is nn.Linear
            and type(head.weight) in (nn.Parameter, torch.Tensor)
            and head.weight.is_floating_point()
            and head.bias is None
            and not (head._forward_hooks or head._forward_pre_hooks or "forward" in vars(head))
            and not (head._backward_hooks or head._backward_pre_hooks)
            and not hasattr(self, "_loss_function")
            and isinstance(logits_to_keep, int)
            and logits_to_keep == 0
        )
        if not is_plain or skip_logits is False:
            return False
        if skip_logits is True or (self.training and self.config.chunked_loss == "always"):
            return True
        size = hidden_states.shape[:-1].numel() * self.config.vocab_size
        return skip_logits == "auto" and self.config.chunked_loss == "auto" and size > CHUNKED_LOSS_ELEMENTS


def _count_targets(
    labels: torch.Tensor | None, shift_labels: torch.Tensor | None = None, ignore_index: int = -100, **kwargs
) -> torch.Tensor:
    """How many tokens the loss is the mean over, at least 1: without a target it is 0, where a mean would be NaN."""
    targets = labels[..., 1:] if shift_labels is None else shift_labels
    return (targets != ignore_index).sum().clamp(min=1)


def _slice_positions(hidden_states: torch.Tensor, logits_to_keep: int | torch.Tensor) -> torch.Tensor:
    if isinstance(logits_to_keep, int):
        return hidden_states[:, -logits_to_keep:] if logits_to_keep else hidden_states
    if logits_to_keep.ndim == 2 and logits_to_keep.dtype == torch.bool:
        return hidden_states[logits_to_keep]
    if logits_to_keep.ndim == 2:
        return torch.take_along_dim(hidden_states, logits_to_keep[..., None], dim=1)
    return hidden_states[:, logits_to_keep]


__all__ = ["HfGptLanguageHeadMixin"]
