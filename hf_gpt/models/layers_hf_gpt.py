"""What every HfGpt model is built of: norms, rotary position embeddings, attention, MLP and the block."""

from collections.abc import Callable

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.integrations import use_kernel_forward_from_hub, use_kernelized_func
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .configuration_hf_gpt import HfGptConfig
from .last_token_hf_gpt import at_positions


class _RMSNormFunction(torch.autograd.Function):
    """
    x / sqrt(mean(x^2) + eps) * weight, and 1 / sqrt(mean(x^2) + eps). On a CPU, where each operation is a pass over
    memory, what autograd makes of the formula takes twice as many.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x, weight, eps):
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        return (x * scale).mul_(weight), scale

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, ctx.eps = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, weight, output[1])

    @staticmethod
    def backward(ctx, grad, _):
        x, weight, scale = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            if torch.is_grad_enabled():
                # The gradient is to be differentiated itself.
                scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + ctx.eps)
                unit, grad_unit = x * scale, grad * weight
                grad_weight = (grad * unit).sum(tuple(range(grad.ndim - 1)))
                return (grad_unit - unit * (grad_unit * unit).mean(-1, keepdim=True)) * scale, grad_weight, None
            unit = x * scale
            product = unit * grad
            share = torch.matmul(product, weight).unsqueeze(-1).div_(-x.shape[-1])
            grad_x = (grad * weight).addcmul_(unit, share).mul_(scale)
            return grad_x, product.sum(tuple(range(grad.ndim - 1))), None


class _SquaredReLUFunction(torch.autograd.Function):
    """max(x, 0)^2, for the same reason; what autograd makes of it keeps another tensor of this size, too."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.clamp(min=0).square_()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return 2 * grad * x.clamp(min=0)
        return x.clamp(min=0).mul_(grad).mul_(2)


def is_plain(x: torch.Tensor) -> bool:
    """Whether `x` is float32 on a CPU, and nobody traces, shards or rounds what becomes of it."""
    return (
        type(x) is torch.Tensor
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
    )


@use_kernel_forward_from_hub("RMSNorm")
class HfGptRMSNorm(nn.Module):
    """Root mean square normalisation, x / sqrt(mean(x^2) + eps) * weight, in fp32 (https://arxiv.org/abs/1910.07467)."""

    def __init__(self, hidden_size: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.variance_epsilon = eps

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        weight = self.weight
        # Without gradient in the library's order of operations: converted checkpoints give its logits, digit by digit.
        is_trained = torch.is_grad_enabled() and type(weight) is nn.Parameter and weight.dtype == torch.float32
        if is_trained and is_plain(hidden_states):
            return _RMSNormFunction.apply(hidden_states, self.weight, self.variance_epsilon)[0]
        input_dtype = hidden_states.dtype
        hidden_states = hidden_states.to(torch.float32)
        mean_square = hidden_states.pow(2).mean(-1, keepdim=True)
        hidden_states = hidden_states * torch.rsqrt(mean_square + self.variance_epsilon)
        return self.weight * hidden_states.to(input_dtype)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, eps={self.variance_epsilon}"


def build_norm(config: HfGptConfig) -> nn.Module:
    """The norm over the residual stream that the configuration asks for."""
    if config.norm_type == "layernorm":
        return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)
    return HfGptRMSNorm(config.hidden_size, eps=config.norm_eps)


class HfGptRotaryEmbedding(nn.Module):
    """Cosines and sines of rotary position embeddings, with the library's scalings (https://arxiv.org/abs/2104.09864)."""

    def __init__(self, config: HfGptConfig, device: torch.device | None = None):
        super().__init__()
        self.config = config
        self.max_seq_len_cached = config.max_position_embeddings
        self.original_max_seq_len = config.max_position_embeddings
        self.rope_type = config.rope_parameters["rope_type"]
        rope_init_fn = self.compute_default_rope_parameters
        if self.rope_type != "default":
            rope_init_fn = ROPE_INIT_FUNCTIONS[self.rope_type]
        inv_freq, self.attention_scaling = rope_init_fn(config)
        inv_freq = inv_freq.to(device)
        self.inv_freq = nn.Buffer(inv_freq, persistent=False)
        self.original_inv_freq = nn.Buffer(inv_freq.clone(), persistent=False)

    @staticmethod
    def compute_default_rope_parameters(config: HfGptConfig, *args, **kwargs) -> tuple[torch.Tensor, float]:
        """Inverse frequencies `theta^(-2i / head_dim)`, shape `(head_dim / 2,)`, and the factor 1.0 on cos and sin."""
        exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float) / config.head_dim
        return 1.0 / (config.rope_parameters["rope_theta"] ** exponents), 1.0

    @torch.no_grad()
    @dynamic_rope_update
    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of shape `(batch_size, sequence_length, head_dim)`, in the dtype of `x`."""
        # An elementwise product, which autocast leaves in fp32: bf16 angles are off by whole turns at long range.
        angles = position_ids[..., None].float() * self.inv_freq.to(device=x.device, dtype=torch.float)
        angles = torch.cat((angles, angles), dim=-1)
        cos = angles.cos() * self.attention_scaling
        sin = angles.sin() * self.attention_scaling
        return cos.to(dtype=x.dtype), sin.to(dtype=x.dtype)


def rotate_half(x: torch.Tensor) -> torch.Tensor:
    """(a, b) -> (-b, a) on the two halves of the last dimension."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """`x` (batch_size, num_heads, sequence_length, head_dim) turned by positions, as [`apply_rotary_pos_emb`] does."""
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    return x * cos + rotate_half(x) * sin


@use_kernel_forward_from_hub("rotary_pos_emb")
def apply_rotary_pos_emb(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Turn queries and keys by their positions.

    Args:
        q, k (`torch.Tensor` of shape `(batch_size, num_heads, sequence_length, head_dim)`):
            Queries and keys.
        cos, sin (`torch.Tensor` of shape `(batch_size, sequence_length, head_dim)`):
            From [`HfGptRotaryEmbedding`].
        unsqueeze_dim (`int`, *optional*, defaults to 1):
            Where the head dimension of `q` and `k` is; 2 for `(batch_size, sequence_length, num_heads, head_dim)`.
    """
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(scaling * Q K^T + mask) V, with each key/value head serving `num_key_value_groups` query heads."""
    key = key.repeat_interleave(module.num_key_value_groups, dim=1)
    value = value.repeat_interleave(module.num_key_value_groups, dim=1)
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    attn_weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    attn_weights = nn.functional.dropout(attn_weights, p=dropout, training=module.training)
    attn_output = torch.matmul(attn_weights, value).transpose(1, 2).contiguous()
    return attn_output, attn_weights


@use_kernelized_func(apply_rotary_pos_emb)
class HfGptAttention(nn.Module):
    """Multi-head attention with optional grouped key/value heads, QK-norm, RoPE and a sliding window."""

    def __init__(self, config: HfGptConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.layer_type = config.layer_types[layer_idx]
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_dropout
        self.is_causal = config.is_causal
        self.sliding_window = config.sliding_window if self.layer_type == "sliding_attention" else None

        query_size = config.num_attention_heads * self.head_dim
        key_value_size = config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.hidden_size, key_value_size, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.hidden_size, key_value_size, bias=config.attention_bias)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=config.attention_out_bias)
        self.o_proj.writes_to_residual_stream = True
        self.q_norm = HfGptRMSNorm(self.head_dim, eps=config.norm_eps) if config.use_qk_norm else nn.Identity()
        self.k_norm = HfGptRMSNorm(self.head_dim, eps=config.norm_eps) if config.use_qk_norm else nn.Identity()

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        query_positions: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        hidden_shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        queried = hidden_states if query_positions is None else at_positions(hidden_states, query_positions)
        input_shape = queried.shape[:-1]

        query_states = self.q_norm(self.q_proj(queried).view(*input_shape, -1, self.head_dim)).transpose(1, 2)
        key_states = self.k_norm(self.k_proj(hidden_states).view(hidden_shape)).transpose(1, 2)
        value_states = self.v_proj(hidden_states).view(hidden_shape).transpose(1, 2)

        if position_embeddings is not None and query_positions is None:
            query_states, key_states = apply_rotary_pos_emb(query_states, key_states, *position_embeddings)
        elif position_embeddings is not None:
            positions = (at_positions(table, query_positions) for table in position_embeddings)
            query_states = turn(query_states, *positions)
            key_states = turn(key_states, *position_embeddings)

        if past_key_values is not None:
            key_states, value_states = past_key_values.update(key_states, value_states, self.layer_idx)
            if self.sliding_window == 1:
                # The library's cache drops all but the last `window - 1` keys, and of none but the last 0 it keeps all.
                key_states = key_states[:, :, -hidden_states.shape[1] :]
                value_states = value_states[:, :, -hidden_states.shape[1] :]

        # vLLM looks for this call in the source of `forward` itself, and answers in a shape of its own.
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attn_output, attn_weights = attention_interface(
            self,
            query_states,
            key_states,
            value_states,
            attention_mask,
            dropout=0.0 if not self.training else self.attention_dropout,
            scaling=self.scaling,
            sliding_window=self.sliding_window,
            **kwargs,
        )
        attn_output = attn_output.reshape(*input_shape, -1).contiguous()
        return self.o_proj(attn_output), attn_weights


class HfGptCrossAttention(HfGptAttention):
    """
    Attention of the decoder to what the encoder made of the source: without positions, which the two sides do not
    share, and with keys and values that are worked out once for a source.
    """

    def __init__(self, config: HfGptConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.is_causal = False
        self.sliding_window = None

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        input_shape = hidden_states.shape[:-1]
        query_states = self.q_norm(self.q_proj(hidden_states).view(*input_shape, -1, self.head_dim)).transpose(1, 2)

        if past_key_values is not None and past_key_values.is_updated.get(self.layer_idx):
            cached = past_key_values.cross_attention_cache.layers[self.layer_idx]
            key_states, value_states = cached.keys, cached.values
        else:
            source_shape = (*encoder_hidden_states.shape[:-1], -1, self.head_dim)
            key_states = self.k_norm(self.k_proj(encoder_hidden_states).view(source_shape)).transpose(1, 2)
            value_states = self.v_proj(encoder_hidden_states).view(source_shape).transpose(1, 2)
            if past_key_values is not None:
                key_states, value_states = past_key_values.cross_attention_cache.update(
                    key_states, value_states, self.layer_idx
                )
                past_key_values.is_updated[self.layer_idx] = True

        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attn_output, attn_weights = attention_interface(
            self,
            query_states,
            key_states,
            value_states,
            attention_mask,
            dropout=0.0 if not self.training else self.attention_dropout,
            scaling=self.scaling,
            sliding_window=self.sliding_window,
            **kwargs,
        )
        attn_output = attn_output.reshape(*input_shape, -1).contiguous()
        return self.o_proj(attn_output), attn_weights


class HfGptSquaredReLU(nn.Module):
    """max(x, 0)^2 (https://arxiv.org/abs/2109.08668)."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if is_plain(hidden_states):
            return _SquaredReLUFunction.apply(hidden_states)
        return nn.functional.relu(hidden_states).square()


class HfGptMLP(nn.Module):
    """down(act(up(x))), or gated down(act(gate(x)) * up(x))."""

    def __init__(self, config: HfGptConfig):
        super().__init__()
        self.config = config
        self.is_gated = config.is_gated_act
        if self.is_gated:
            self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.down_proj.writes_to_residual_stream = True
        self.act_fn = HfGptSquaredReLU() if config.hidden_act == "relu2" else ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.is_gated:
            return self.down_proj(self.act_fn(self.gate_proj(hidden_states)) * self.up_proj(hidden_states))
        return self.down_proj(self.act_fn(self.up_proj(hidden_states)))


class HfGptDecoderLayer(GradientCheckpointingLayer):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: HfGptConfig, layer_idx: int):
        super().__init__()
        self.hidden_size = config.hidden_size
        self.self_attn = HfGptAttention(config, layer_idx)
        self.mlp = HfGptMLP(config)
        self.input_layernorm = build_norm(config)
        self.post_attention_layernorm = build_norm(config)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = False,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        query_positions: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        if query_positions is not None:
            kwargs["query_positions"] = query_positions
        attn_output, _ = self.self_attn(
            self.input_layernorm(hidden_states),
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            position_embeddings=position_embeddings,
            **kwargs,
        )
        if query_positions is not None:
            hidden_states = at_positions(hidden_states, query_positions)
        hidden_states = hidden_states + self.dropout(attn_output)
        return hidden_states + self.dropout(self.mlp(self.post_attention_layernorm(hidden_states)))
