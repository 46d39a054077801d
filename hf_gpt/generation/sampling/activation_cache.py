"""Activation cache: outputs of linear layers during sampling, reused by the update on the same texts."""

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from hf_gpt.generation.decoding.fingerprint import fingerprint


if TYPE_CHECKING:
    from hf_gpt.models.modeling_hf_gpt import HfGptForCausalLM


# Largest activation cache, in bytes.
MOST_BYTES = 2**32


class ActivationCache:
    """Outputs of all linear layers during a `rollout`.

    With them, a forward pass over the same texts by the same weights needs no matrix multiplication with weights.
    `rollout` fills an empty cache where the compiled steps sample all texts in one batch, in float32.

    Attributes:
        linear_outputs: For each kind (queries, keys and values; output; up, gates first; down), (layers, B, C - 1,
            outputs): at each completion token but the last. Empty: nothing was kept.
        logits: (B, C, V) that the tokens were sampled from.
        completions: (B, C) int64, the tokens.
        is_written: (B, C), up to the end of each text.
    """

    def __init__(self) -> None:
        self.linear_outputs: list[torch.Tensor] = []
        self.logits = self.completions = self.is_written = torch.empty(0)
        self._weights: tuple[list[torch.nn.Parameter], Any] = [], None

    def begin(self, model: "HfGptForCausalLM", rows: int, num_tokens: int) -> bool:
        """Allocates memory for texts of `num_tokens`; False if that is too much, or layers have other widths."""
        layers = model.model.layers[: model.config.num_hidden_layers]
        widths, vocab_size = _widths(layers[0]), len(model.lm_head.weight)
        numbers = rows * num_tokens * (len(layers) * sum(widths) + vocab_size)
        if num_tokens < 2 or 4 * numbers > MOST_BYTES or any(_widths(layer) != widths for layer in layers):
            return False
        self.linear_outputs = [torch.empty(len(layers), rows, num_tokens - 1, width) for width in widths]
        self.logits = torch.empty(rows, num_tokens, vocab_size)
        self._weights = list(model.parameters()), fingerprint(model)
        return True

    def end(self, completions: torch.Tensor, lengths: torch.Tensor) -> None:
        """Cuts to the longest of `completions` (B, C) with `lengths` (B,), and clears unwritten values."""
        if not self.linear_outputs:
            return
        count = completions.shape[1]
        self.completions, self.is_written = completions, torch.arange(count) < lengths[:, None]
        self.logits = self.logits[:, :count]
        self.linear_outputs = [kept[:, :, : count - 1] for kept in self.linear_outputs]
        unwritten = ~self.is_written
        if bool(unwritten.any()):
            self.logits[unwritten] = 0
            for kept in self.linear_outputs:
                kept[:, unwritten[:, 1:]] = 0

    def narrow(self, rows: int) -> None:
        """Keeps only the first texts."""
        self.linear_outputs = [kept[:, :rows] for kept in self.linear_outputs]
        self.logits, self.completions, self.is_written = (
            kept[:rows] for kept in (self.logits, self.completions, self.is_written)
        )

    def is_of(self, model: torch.nn.Module, completions: torch.Tensor) -> bool:
        """Whether the cache is of these texts and of this model with its current weights."""
        parameters, state = self._weights
        return (
            bool(self.linear_outputs)
            and self.completions.shape == completions.shape
            and torch.equal(self.completions[self.is_written], completions[self.is_written])
            and [id(parameter) for parameter in model.parameters()] == [id(parameter) for parameter in parameters]
            and fingerprint(model) == state
        )

    def of_trunk(self, model: "HfGptForCausalLM") -> "SuppliedLinears":
        """A context that supplies the trunk's linear layers, for a pass over all completion tokens but the last."""
        results = {}
        for layer, qkv, output, up, down in zip(model.model.layers, *self.linear_outputs, strict=False):
            attention, mlp = layer.self_attn, layer.mlp
            projections = [attention.q_proj, attention.k_proj, attention.v_proj]
            parts = qkv.split([projection.out_features for projection in projections], -1)
            projections += [attention.o_proj, mlp.down_proj]
            parts += (output, down)
            ups = [mlp.gate_proj, mlp.up_proj] if mlp.is_gated else [mlp.up_proj]
            for projection, part in zip([*projections, *ups], [*parts, *up.chunk(len(ups), -1)], strict=True):
                results[id(projection.weight)] = part
        return SuppliedLinears(results)

    def of_head(self, model: "HfGptForCausalLM") -> "SuppliedLinears":
        """The same for the head, over all completion tokens, unless a scale or cap follows it."""
        is_matmul = model.config.logit_scale == 1 and model.config.final_logit_softcapping is None
        return SuppliedLinears({id(model.lm_head.weight): self.logits} if is_matmul else {})


def _widths(layer: torch.nn.Module) -> tuple[int, ...]:
    """Outputs of a layer's linear layers of each kind; of its tensors, which compiled steps write by."""
    attention, mlp = layer.self_attn, layer.mlp
    read = sum(len(part.weight) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
    ups = len(mlp.up_proj.weight) * (1 + mlp.is_gated)
    return read, len(attention.o_proj.weight), ups, len(mlp.down_proj.weight)


class SuppliedLinears(TorchFunctionMode):
    """Inside, `linear` with some weights returns known outputs; gradients are those of the linear layer.

    Args:
        results: The output by the `id` of the weight.
    """

    def __init__(self, results: dict[int, torch.Tensor]):
        super().__init__()
        self.results = results

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.linear and len(args) == 3 and (known := self.results.get(id(args[1]))) is not None:
            return _KnownLinear.apply(*args, known)
        return func(*args, **(kwargs or {}))


class _KnownLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, known):
        if x.shape[:-1] != known.shape[:-1]:
            raise ValueError(
                f"the known output has shape {tuple(known.shape)}, which does not fit an input of {tuple(x.shape)}."
            )
        ctx.save_for_backward(x, weight)
        return known.detach()

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        flat = grad.reshape(-1, grad.shape[-1])
        return (
            grad @ weight if needs_x else None,
            flat.t() @ x.reshape(-1, x.shape[-1]) if needs_weight else None,
            flat.sum(0) if needs_bias else None,
            None,
        )
