"""Decoding steps of our own models without their forward pass: fused weights and a static cache."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers import DynamicCache

from hf_gpt.generation.decoding.linear import Linear, autocast_for, make_linear
from hf_gpt.generation.decoding.native.decoder import NativeWeights, takes
from hf_gpt.generation.scoring.logprobs import positions_of
from hf_gpt.models.layers_hf_gpt import HfGptRMSNorm
from hf_gpt.models.modeling_hf_gpt import HfGptForCausalLM


class _Layer(NamedTuple):
    attention_norm: Callable[[torch.Tensor], torch.Tensor]
    qkv: Linear
    output: Linear
    mlp_norm: Callable[[torch.Tensor], torch.Tensor]
    up: Linear
    down: Linear
    head_weight: torch.Tensor | None
    window: int | None


def make_weights(model: HfGptForCausalLM, weight_dtype: str | None, rows: int) -> "DecoderWeights | NativeWeights":
    """Weights for the fastest steps of a model that `can_decode` takes; `start` gives a decoder.

    On CPUs the steps are compiled at first use on a machine, in one to three seconds. Where that is not possible
    (`native.decoder.takes`), they run in PyTorch.

    Args:
        model, weight_dtype, rows: As for `DecoderWeights`.
    """
    return (
        NativeWeights(model, weight_dtype) if takes(model, weight_dtype) else DecoderWeights(model, weight_dtype, rows)
    )


class DecoderWeights:
    """A copy of a model's current weights for `CachedDecoder`.

    Queries, keys and values are one linear layer, as are gate and input of an MLP. The scales of an RMS norm are part
    of the next linear layer.

    Args:
        model: A model that `can_decode` takes.
        weight_dtype: As for `linear.make_linear`; embeddings, norms and attention stay in float32.
        rows: Most rows decoded at once.
    """

    def __init__(self, model: HfGptForCausalLM, weight_dtype: str | None = None, rows: int = 2):
        config, decoder = model.config, model.model
        self.weight_dtype, self.rows = weight_dtype, rows
        # Attributes of a configuration are slow to look up.
        self.head_dim, self.norm_eps, self.is_gated = config.head_dim, config.norm_eps, config.is_gated_act
        self.use_qk_norm, self.logit_scale = config.use_qk_norm, config.logit_scale
        self.softcap = config.final_logit_softcapping
        self.device = decoder.embed_tokens.weight.device
        self.embeddings = decoder.embed_tokens.weight
        self.position_embeddings = decoder.embed_positions.weight if hasattr(decoder, "embed_positions") else None
        self.num_queries, self.num_keys = config.num_attention_heads, config.num_key_value_heads
        self.scaling, self.activation = decoder.layers[0].self_attn.scaling, decoder.layers[0].mlp.act_fn
        self.layers = []
        for layer in decoder.layers[: config.num_hidden_layers]:
            attention, mlp = layer.self_attn, layer.mlp
            ups = (mlp.gate_proj, mlp.up_proj) if mlp.is_gated else (mlp.up_proj,)
            attention_norm, qkv = self._normed(
                layer.input_layernorm, attention.q_proj, attention.k_proj, attention.v_proj
            )
            mlp_norm, up = self._normed(layer.post_attention_layernorm, *ups)
            self.layers.append(
                _Layer(
                    attention_norm=attention_norm,
                    qkv=qkv,
                    output=self._linear(attention.o_proj.weight, attention.o_proj.bias),
                    mlp_norm=mlp_norm,
                    up=up,
                    down=self._linear(mlp.down_proj.weight, mlp.down_proj.bias),
                    head_weight=self._head_weight(attention) if config.use_qk_norm else None,
                    window=attention.sliding_window,
                )
            )
        self.final_norm, self.head = self._normed(decoder.norm, model.lm_head)

    def start(
        self, model: HfGptForCausalLM, ids: torch.Tensor, mask: torch.Tensor, max_new_tokens: int
    ) -> "CachedDecoder":
        """A decoder of these prompts; arguments as for `CachedDecoder`."""
        return CachedDecoder(model, ids, mask, max_new_tokens, self)

    def _normed(self, norm: nn.Module, *parts: nn.Linear) -> tuple[Callable[[torch.Tensor], torch.Tensor], Linear]:
        """A norm, and one linear layer in place of those that read it."""
        weight = torch.cat([part.weight for part in parts]) if len(parts) > 1 else parts[0].weight
        biases = [part.bias for part in parts]
        bias = None if biases[0] is None else torch.cat(biases)
        if isinstance(norm, HfGptRMSNorm):
            eps = norm.variance_epsilon
            return lambda inputs: _unit_rms(inputs, eps), self._linear(weight * norm.weight, bias)
        shift = None if norm.bias is None else norm.bias.float()
        scale = norm.weight.float()
        return lambda inputs: F.layer_norm(inputs, scale.shape, scale, shift, norm.eps), self._linear(weight, bias)

    def _linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
        return make_linear(weight.detach(), None if bias is None else bias.detach(), self.weight_dtype, self.rows)

    def _head_weight(self, attention: nn.Module) -> torch.Tensor:
        """(H, D) scales of QK-norm of all query heads, then all key heads."""
        queries = attention.q_norm.weight.expand(self.num_queries, -1)
        return torch.cat([queries, attention.k_norm.weight.expand(self.num_keys, -1)]).float()


class CachedDecoder:
    """Reads prompts with the model's forward pass, and then one token of each row at a time, much faster.

    Keys and values lie in a cache of the final length. The logits are the model's up to the rounding of `weights`.
    With a `weight_dtype` prompts are read under autocast in bfloat16.

    Args:
        model: A model that `can_decode` takes, in evaluation mode.
        ids: (B, L) int64 prompts, padded at the left.
        mask: (B, L), 1 at tokens.
        max_new_tokens: Most tokens that are appended.
        weights: Those of the model.
    """

    can_select = True

    def __init__(
        self,
        model: HfGptForCausalLM,
        ids: torch.Tensor,
        mask: torch.Tensor,
        max_new_tokens: int,
        weights: DecoderWeights,
    ):
        self.model, self.config, self.weights = model, model.config, weights
        self.ids, self.mask = ids, mask
        self.length = ids.shape[1]
        self.limit = self.length + max_new_tokens
        self.positions = mask.sum(-1)
        # Without padding every row stands at the same position, and no key is hidden.
        self.is_padded = not bool(mask.all())
        self.tokens: torch.Tensor | None = None

    def next_logits(self) -> torch.Tensor:
        """(B, V) logits of the token that comes next."""
        if self.tokens is None:
            return self._prefill()
        # The weights have their types already.
        with torch.autocast(self.ids.device.type, enabled=False):
            logits = self._step(self.tokens)
        self.length += 1
        self.positions += 1
        return logits

    def append(self, tokens: torch.Tensor) -> None:
        """Adds the sampled tokens (B,)."""
        self.tokens = tokens

    def select(self, rows: torch.Tensor) -> None:
        """Keeps only these rows."""
        self.keys = [keys[:, rows] for keys in self.keys]
        self.values = [values[:, rows] for values in self.values]
        self.positions = self.positions[rows]
        if self.is_padded:
            self.hidden_keys = self.hidden_keys[rows]

    def _prefill(self) -> torch.Tensor:
        # Each prompt is read once for all of its completions.
        both, whose = torch.unique(torch.stack([self.ids, self.mask], 1), dim=0, return_inverse=True)
        ids, mask = (self.ids, self.mask) if len(both) == len(self.ids) else both.unbind(1)
        cache = DynamicCache()
        with autocast_for(self.weights.weight_dtype, self.weights.device):
            outputs = self.model(
                input_ids=ids,
                attention_mask=mask if self.is_padded else None,
                position_ids=positions_of(mask),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        shared = slice(None) if ids is self.ids else whose
        # (S, B, H, D): a step reads one contiguous piece, faster than one for each head. Float32: a step's batched
        # multiplications are no faster in a narrower type.
        self.keys, self.values = [], []
        for layer in cache.layers:
            for kept, found in ((self.keys, layer.keys), (self.values, layer.values)):
                shape = (self.limit, len(self.ids), found.shape[1], found.shape[3])
                whole = torch.empty(shape, device=found.device)
                whole[: self.length] = found[shared].permute(2, 0, 1, 3)
                kept.append(whole)
        if self.is_padded:
            self.hidden_keys = torch.zeros(len(self.ids), 1, 1, self.limit, device=self.ids.device)
            self.hidden_keys[:, 0, 0, : self.length].masked_fill_(self.mask == 0, -torch.inf)
        self.turns = self._rope_tables()
        return outputs.logits[:, -1][shared]

    def _rope_tables(self) -> list[tuple[torch.Tensor, torch.Tensor]] | None:
        """Factors of heads and of themselves with their halves swapped, (S, H or 1, D) each, for every layer."""
        if self.config.position_embedding_type != "rope":
            return None
        rotary = self.model.model.rotary_emb
        positions = torch.arange(self.limit, device=self.ids.device)
        cos, sin = rotary(torch.empty(0, device=self.ids.device), positions[None])
        first, second = sin[0].chunk(2, dim=-1)
        turn, turn_half = cos[0][:, None], torch.cat([-first, second], -1)[:, None]
        # (a w) cos + rotate(a w) sin, with the scale of QK-norm inside the tables.
        return [
            (turn, turn_half)
            if layer.head_weight is None
            else (turn * layer.head_weight, turn_half * _swap_halves(layer.head_weight))
            for layer in self.weights.layers
        ]

    def _step(self, tokens: torch.Tensor) -> torch.Tensor:
        weights, rows = self.weights, len(tokens)
        num_queries, num_keys = weights.num_queries, weights.num_keys
        hidden = F.embedding(tokens, weights.embeddings).float()
        # A slice where every row stands at the same position: no table is gathered.
        at = self.positions if self.is_padded else slice(self.length, self.length + 1)
        if weights.position_embeddings is not None:
            hidden = hidden + weights.position_embeddings[at].float()
        for index, layer in enumerate(weights.layers):
            qkv = layer.qkv(layer.attention_norm(hidden)).view(rows, -1, weights.head_dim)
            turned, values = qkv.split([num_queries + num_keys, num_keys], 1)
            turned = turned.float()
            if weights.use_qk_norm:
                turned = _unit_rms(turned, weights.norm_eps)
            if self.turns is not None:
                turn, turn_half = self.turns[index]
                turned = torch.addcmul(turned * turn[at], _swap_halves(turned), turn_half[at])
            elif layer.head_weight is not None:
                turned = turned * layer.head_weight
            hidden = hidden + layer.output(self._attend(index, turned, values, layer.window))
            inner = layer.up(layer.mlp_norm(hidden))
            if weights.is_gated:
                gate, inner = inner.chunk(2, -1)
                inner = weights.activation(gate) * inner
            else:
                inner = weights.activation(inner)
            hidden = hidden + layer.down(inner)
        logits = weights.head(weights.final_norm(hidden))
        if weights.logit_scale != 1:
            logits = logits * weights.logit_scale
        if weights.softcap is not None:
            logits = torch.tanh(logits / weights.softcap) * weights.softcap
        return logits

    def _attend(self, index: int, turned: torch.Tensor, values: torch.Tensor, window: int | None) -> torch.Tensor:
        """(B, H D) attention over the keys so far. For one query, two batched multiplications are fastest."""
        rows, head_dim, num_keys = len(turned), turned.shape[-1], self.weights.num_keys
        queries, keys = turned.split([self.weights.num_queries, num_keys], 1)
        all_keys, all_values = self.keys[index], self.values[index]
        all_keys[self.length], all_values[self.length] = keys, values
        end = self.length + 1
        # Cache indices differ as positions do, so the window is a slice.
        begin = 0 if window is None else max(0, end - window)
        seen_keys = all_keys[begin:end].view(end - begin, -1, head_dim)
        seen_values = all_values[begin:end].view(end - begin, -1, head_dim)
        queries = queries.reshape(rows * num_keys, -1, head_dim)
        if self.is_padded:
            hidden = self.hidden_keys[..., begin:end].expand(-1, num_keys, -1, -1).reshape(-1, 1, end - begin)
        else:
            hidden = queries.new_zeros(1)
        scores = torch.baddbmm(
            hidden, queries, seen_keys.permute(1, 2, 0), beta=int(self.is_padded), alpha=self.weights.scaling
        )
        return torch.bmm(scores.softmax(-1), seen_values.transpose(0, 1)).view(rows, -1)


def _unit_rms(inputs: torch.Tensor, eps: float) -> torch.Tensor:
    return F.rms_norm(inputs, inputs.shape[-1:], eps=eps)


def _swap_halves(heads: torch.Tensor) -> torch.Tensor:
    return heads.roll(heads.shape[-1] // 2, -1)
