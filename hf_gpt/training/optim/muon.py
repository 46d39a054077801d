"""Muon (https://kellerjordan.github.io/posts/muon/): PyTorch's, on sharded matrices too, and quicker on CPUs."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from hf_gpt import compat
from hf_gpt.training.distributed.sharding import shard_like
from hf_gpt.training.monitoring.mfu import prefers_bfloat16


# Matrices of one shape are orthogonalised together up to this many elements: 16 MiB of float32.
_STACK_ELEMENTS = 2**22


class Muon(torch.optim.Muon):
    """`torch.optim.Muon`, which steps on sharded matrices (DTensor) as on whole ones.

    Where a device is no quicker in bfloat16, as many CPUs are not, its Newton-Schulz iterations are those of
    `orthogonalize`, in float32 and for all matrices of one shape at once.

    The orthogonal factor of a matrix is no sum or stack of its shards' factors. So the momentum stays in shards and is
    gathered for the Newton-Schulz iterations, matrix by matrix, which every process then does for itself.
    """

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if any(_is_library_s(parameter) for group in self.param_groups for parameter in group["params"]):
            super().step()
        for group in self.param_groups:
            own = [p for p in group["params"] if p.grad is not None and not _is_library_s(p)]
            self._step_stacked([p for p in own if not isinstance(p, DTensor)], group)
            for parameter in own:
                if isinstance(parameter, DTensor):
                    self._step_sharded(parameter, group)
        return loss

    def _init_group(self, group, *lists):
        return super()._init_group({**group, "params": [p for p in group["params"] if _is_library_s(p)]}, *lists)

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        gradient, state = parameter.grad, self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"]
        momentum.lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum

    def _step_stacked(self, parameters: Sequence[torch.Tensor], group: dict[str, Any]) -> None:
        for some in _stacks(parameters):
            updates = torch.stack([self._update(parameter, group).float() for parameter in some])
            factors = orthogonalize(updates, group["ns_coefficients"], group["ns_steps"], group["eps"])
            rate = compat.adjust_muon_rate(group["lr"], group["adjust_lr_fn"], some[0].shape)
            for parameter, factor in zip(some, factors, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(factor.to(parameter.dtype), alpha=-rate)

    def _step_sharded(self, parameter: DTensor, group: dict[str, Any]) -> None:
        update = self._update(parameter, group).full_tensor()
        iterations = group["ns_coefficients"], group["ns_steps"], group["eps"]
        if prefers_bfloat16(parameter.device.type):
            factor = compat.newton_schulz(update, *iterations)
        else:
            factor = orthogonalize(update.float()[None], *iterations)[0]
        rate = compat.adjust_muon_rate(group["lr"], group["adjust_lr_fn"], parameter.shape)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(shard_like(factor, parameter).to(parameter.dtype), alpha=-rate)


def orthogonalize(
    matrices: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """The Newton-Schulz iterations of Muon, in the dtype of `matrices`: about U V^T of each U S V^T.

    A step takes X to (a + b A + c A^2) X with A = X X^T. For matrices that are much wider than high the products of
    these polynomials are formed from the small A alone, and multiplied by X once, at the end; in float32 that is the
    same but for rounding.

    Args:
        matrices: (count, rows, columns), float32 or more exact. Left as they are.
        coefficients: a, b, c.
        steps: At least 1.
        eps: The least norm that a matrix is divided by.
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    a, b, c = coefficients
    height, width = x.shape[-2:]
    # Where 4 products with X a step cost more than the 4 with A that replace them.
    if width > 1.5 * height:
        x = _polynomial(x @ x.mT, a, b, c, steps) @ x
    else:
        for _ in range(steps):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def _polynomial(gram: torch.Tensor, a: float, b: float, c: float, steps: int) -> torch.Tensor:
    """What the iterations multiply X by, from A = X X^T: all factors are polynomials of A, so they commute."""
    product = None
    for step in range(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else product @ factor
        if step + 1 < steps:
            gram = factor @ gram @ factor
    return product


def _is_library_s(parameter: torch.Tensor) -> bool:
    return not isinstance(parameter, DTensor) and prefers_bfloat16(parameter.device.type)


def _stacks(parameters: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Parameters of one shape together, in lists that are not too large."""
    by_shape: dict[torch.Size, list[torch.Tensor]] = {}
    for parameter in parameters:
        by_shape.setdefault(parameter.shape, []).append(parameter)
    for shape, some in by_shape.items():
        count = max(1, _STACK_ELEMENTS // shape.numel())
        for start in range(0, len(some), count):
            yield some[start : start + count]
