"""Sums and means over the tokens that count."""

import torch


def select(values: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """The entries whose mask is not 0, in fp32 and one dimension; all of them where there is no mask.

    The others get a gradient of exactly 0, whatever they hold.
    """
    return values.float().flatten() if mask is None else values[mask.bool()].float()


def masked_sum(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Sum over the last dimension of the entries whose mask is not 0, in fp32; (B, C) and (B, C) give (B,).

    What stands under a mask of 0 does not matter, not even infinity or NaN.
    """
    return torch.where(mask.bool(), values.float(), 0.0).sum(-1)


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over all entries whose mask is not 0, in fp32, as a scalar; 0 where no entry counts."""
    return masked_sum(values, mask).sum() / mask.bool().sum().clamp(min=1)


def mean_of(values: torch.Tensor, count: float | torch.Tensor | None = None) -> torch.Tensor:
    """The sum over `count`, or over how many values there are.

    Where a batch is spread over processes whose gradients are averaged, each divides by its share of all that count,
    their number over that of the processes: the mean of means would give every process the same weight, however many
    tokens it has.
    """
    return values.mean() if count is None else values.sum() / count
