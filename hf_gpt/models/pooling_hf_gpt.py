"""From the hidden states of a sequence to the score of it: pooling, and a linear layer of bounded slope."""

import torch
from torch import nn

from .configuration_hf_gpt import HfGptConfig


def token_mask(
    input_ids: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    hidden_states: torch.Tensor,
    pad_token_id: int | None,
) -> torch.BoolTensor:
    """
    Which of the positions of `hidden_states` hold tokens, of shape `(batch_size, sequence_length)`: by the mask, else
    by the padding token, else all.
    """
    length = hidden_states.shape[1]
    # The mask first: by ids alone an end-of-text token would be lost where it is the padding token as well.
    if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2:
        return attention_mask[:, -length:].to(device=hidden_states.device, dtype=torch.bool)
    if input_ids is not None and pad_token_id is not None:
        return input_ids.to(hidden_states.device) != pad_token_id
    return torch.ones(hidden_states.shape[:2], dtype=torch.bool, device=hidden_states.device)


def last_token_positions(mask: torch.BoolTensor) -> torch.LongTensor:
    """Where the last token of each row of `mask` (batch_size, sequence_length) stands; 0 where there is none."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    return (positions * mask).argmax(-1)


class HfGptSpectralLinear(nn.Linear):
    """
    A linear layer with its weight divided by its largest singular value, tracked by one power iteration for each
    training step (https://arxiv.org/abs/1802.05957, algorithm 1).
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__(in_features, out_features, bias=bias)
        self.left_vector = nn.Buffer(torch.full((out_features,), out_features**-0.5))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        weight = self.weight.float()
        with torch.no_grad():
            right = nn.functional.normalize(torch.mv(weight.t(), self.left_vector.float()), dim=0)
            left = nn.functional.normalize(torch.mv(weight, right), dim=0)
            if self.training:
                self.left_vector.copy_(left)
        norm = torch.dot(left, torch.mv(weight, right)).clamp(min=1e-12)
        return nn.functional.linear(hidden_states, (weight / norm).to(hidden_states.dtype), self.bias)


class HfGptPooler(nn.Module):
    """f(x): hidden states of a sequence to one vector, by the last token, the mean or attention over the tokens."""

    def __init__(self, config: HfGptConfig):
        super().__init__()
        self.pooling = config.classifier_pooling
        if self.pooling == "attention":
            self.query = nn.Parameter(torch.zeros(config.hidden_size))

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor, of_prefixes: bool = False) -> torch.Tensor:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`):
                Final hidden states.
            mask (`torch.BoolTensor` of shape `(batch_size, sequence_length)`):
                True at tokens, False at padding.
            of_prefixes (`bool`, *optional*, defaults to `False`):
                As `forward_prefixes`, which whatever wraps this module may not have.

        Returns:
            `torch.Tensor` of shape `(batch_size, hidden_size)`.
        """
        if of_prefixes:
            return self.forward_prefixes(hidden_states, mask)
        if self.pooling == "last":
            return hidden_states[torch.arange(mask.shape[0], device=mask.device), last_token_positions(mask)]
        if self.pooling == "attention":
            scores = (hidden_states @ self.query).float()
            weights = scores.masked_fill(~mask, torch.finfo(torch.float32).min).softmax(-1)
        else:
            weights = mask.float()
            weights = weights / weights.sum(-1, keepdim=True).clamp(min=1)
        return torch.einsum("bt,btd->bd", weights.to(hidden_states.dtype), hidden_states)

    def forward_prefixes(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """
        f of every prefix, of shape `(batch_size, sequence_length, hidden_size)`: entry `t` is what `forward` gives for
        the tokens up to `t`, as long as the hidden states are those of a causal model.
        """
        if self.pooling == "last":
            return hidden_states
        if self.pooling == "attention":
            scores = (hidden_states @ self.query).float().masked_fill(~mask, torch.finfo(torch.float32).min)
            # One shift for the whole row would let the sums of early tokens underflow.
            pairs = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device).tril()
            scores = scores[:, None, :].masked_fill(~pairs, torch.finfo(torch.float32).min)
            return torch.einsum("bts,bsd->btd", scores.softmax(-1).to(hidden_states.dtype), hidden_states)
        sums = (hidden_states.float() * mask[..., None]).cumsum(1)
        counts = mask.long().cumsum(1).clamp(min=1)[..., None]
        return (sums / counts).to(hidden_states.dtype)
