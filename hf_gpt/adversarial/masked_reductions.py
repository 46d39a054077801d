"""Sums and means under a mask."""

import torch
from accelerate import Accelerator


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
    """The sum divided by `count`, or by the number of values.

    With several processes, `count` is the mean number of values of a process. A mean of the processes' means would
    give each the same weight, however many tokens it has.
    """
    return values.mean() if count is None else values.sum() / count


def mean_over_processes(accelerator: Accelerator, total: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The sum of all processes' totals, divided by that of their counts, as a scalar; 0 where there are none."""
    sums = torch.stack([total, count])
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(sums, "sum")
    return sums[0] / sums[1].clamp(min=1)
