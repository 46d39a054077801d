"""Which models do exactly what their configuration says, so that our own steps compute the same."""

import torch
from torch import nn
from transformers.activations import ACT2FN

from hf_gpt import compat
from hf_gpt.models.configuration_hf_gpt import HfGptConfig
from hf_gpt.models.layers_hf_gpt import (
    HfGptAttention,
    HfGptDecoderLayer,
    HfGptMLP,
    HfGptRMSNorm,
    HfGptRotaryEmbedding,
    HfGptSquaredReLU,
)
from hf_gpt.models.modeling_hf_gpt import HfGptForCausalLM, HfGptModel


# RoPE scalings that depend on the length so far.
_GROWING_ROPE = ("dynamic", "longrope")
_ATTENTIONS = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3")
_NORMS = (HfGptRMSNorm, nn.LayerNorm)
# Modules of a plain model, by the last part of their names, beside activations. Any other class, such as an adapter,
# may do anything.
_CLASSES: dict[str, tuple[type[nn.Module], ...]] = {
    "": (HfGptForCausalLM,),
    "model": (HfGptModel,),
    "layers": (nn.ModuleList,),
    "layer": (HfGptDecoderLayer,),
    "self_attn": (HfGptAttention,),
    "mlp": (HfGptMLP,),
    "rotary_emb": (HfGptRotaryEmbedding,),
    **dict.fromkeys(("embed_tokens", "embed_positions"), (nn.Embedding,)),
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), (nn.Linear,)),
    **dict.fromkeys(("gate_proj", "up_proj", "down_proj", "lm_head"), (nn.Linear,)),
    **dict.fromkeys(("input_layernorm", "post_attention_layernorm", "norm"), _NORMS),
    **dict.fromkeys(("q_norm", "k_norm"), (*_NORMS, nn.Identity)),
}
_OTHER_CLASSES = (nn.Dropout, nn.Identity)
# Methods that may be set on a model instance, as by PEFT for prompt tuning.
_METHODS = ("forward", "prepare_inputs_for_generation", *compat.GENERATION_METHODS)


def can_decode(model: nn.Module) -> bool:
    """Whether a model is a plain `HfGptForCausalLM` that follows its configuration.

    It is not adapted, quantised, sharded or hooked.
    """
    if type(model) is not HfGptForCausalLM or has_hooks(model):
        return False
    if any(type(parameter) is not nn.Parameter for parameter in model.parameters()):
        return False
    # DeepSpeed's third stage leaves empty parameters behind.
    if not all(parameter.is_floating_point() and parameter.numel() for parameter in model.parameters()):
        return False
    if any(name in vars(model) and not _by_accelerate(model, name) for name in _METHODS):
        return False
    if not all(_is_in_place(name, module, model) for name, module in model.named_modules(remove_duplicate=False)):
        return False
    return _follows_config(model)


def has_hooks(model: nn.Module) -> bool:
    """Whether hooks or wrappers change a forward pass; accelerate's mixed precision does not count."""
    if compat.has_global_forward_hooks():
        return True
    return any(
        compat.has_forward_hooks(module) or ("forward" in vars(module) and not _by_accelerate(module, "forward"))
        for module in model.modules()
    )


def drops_out(model: nn.Module) -> bool:
    """Whether a forward pass is random: dropout in training mode."""
    return any(
        module.training and (getattr(module, "attention_dropout", 0) or (isinstance(module, nn.Dropout) and module.p))
        for module in model.modules()
    )


def _by_accelerate(module: nn.Module, name: str) -> bool:
    return name == "forward" and compat.is_forward_of_accelerate(module)


def _activation(name: str) -> nn.Module:
    return HfGptSquaredReLU() if name == "relu2" else ACT2FN[name]


def _follows_config(model: HfGptForCausalLM) -> bool:
    """Whether modules have the settings of the configuration, which may have changed since."""
    config, inner = model.config, model.model
    if inner.config is not config or compat.attention_implementation(config) not in _ATTENTIONS or not config.is_causal:
        return False
    number, kind, tokens = config.num_hidden_layers, config.position_embedding_type, inner.embed_tokens
    if (
        tokens.max_norm is not None
        or len(tokens.weight) != len(model.lm_head.weight)
        or not _is_norm(inner.norm, config)
    ):
        return False
    if not 0 < number <= len(inner.layers) or len(config.layer_types) < number:
        return False
    if kind != "none" and not hasattr(inner, "embed_positions" if kind == "learned" else "rotary_emb"):
        return False
    if kind == "learned" and len(inner.embed_positions.weight) < config.max_position_embeddings:
        return False
    if kind == "rope":
        types = {inner.rotary_emb.rope_type, config.rope_parameters["rope_type"]}
        if inner.rotary_emb.config is not config or len(types) > 1 or types & set(_GROWING_ROPE):
            return False
    return all(_layer_follows(layer, config, i) for i, layer in enumerate(inner.layers[:number])) and shapes_fit(model)


def _is_in_place(name: str, module: nn.Module, model: HfGptForCausalLM) -> bool:
    """Whether a module is of the class that its place asks for; another one may have been put there."""
    last = name.rpartition(".")[2]
    if last == "act_fn":
        return type(module) is type(_activation(model.config.hidden_act))
    return type(module) in _CLASSES.get("layer" if last.isdigit() else last, _OTHER_CLASSES)


def _layer_follows(layer: HfGptDecoderLayer, config: HfGptConfig, index: int) -> bool:
    attention, mlp = layer.self_attn, layer.mlp
    window = config.sliding_window if config.layer_types[index] == "sliding_attention" else None
    head_norm = HfGptRMSNorm if config.use_qk_norm else nn.Identity
    return (
        attention.config is config
        and attention.layer_idx == index
        and attention.is_causal
        and (attention.sliding_window or None) == window
        and attention.head_dim == config.head_dim
        and attention.scaling == config.head_dim**-0.5
        and attention.q_proj.out_features == config.num_attention_heads * config.head_dim
        and attention.k_proj.out_features == config.num_key_value_heads * config.head_dim
        and attention.num_key_value_groups == config.num_attention_heads // config.num_key_value_heads
        and all(type(norm) is head_norm for norm in (attention.q_norm, attention.k_norm))
        and (not config.use_qk_norm or attention.q_norm.variance_epsilon == config.norm_eps)
        and (not config.use_qk_norm or attention.k_norm.variance_epsilon == config.norm_eps)
        and mlp.is_gated == config.is_gated_act
        and type(mlp.act_fn) is type(_activation(config.hidden_act))
        and _is_norm(layer.input_layernorm, config)
        and _is_norm(layer.post_attention_layernorm, config)
    )


def shapes_fit(model: HfGptForCausalLM) -> bool:
    """Whether all tensors that are decoded with have the shapes that the configuration and each other ask for.

    Steps in C read by these shapes. A forward pass of another shape raises an error, or has a meaning of its own.
    """
    config, inner = model.config, model.model
    width, head_dim = config.hidden_size, config.head_dim
    queries, keys = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
    expected = [*_linear_shapes(model.lm_head, len(inner.embed_tokens.weight), width), *_norm_shapes(inner.norm, width)]
    expected.append((inner.embed_tokens.weight, (len(model.lm_head.weight), width)))
    if config.position_embedding_type == "learned":
        expected.append((inner.embed_positions.weight, (len(inner.embed_positions.weight), width)))
    elif config.position_embedding_type == "rope":
        expected.append((inner.rotary_emb.inv_freq, (head_dim // 2,)))
    for layer in inner.layers[: config.num_hidden_layers]:
        attention, mlp = layer.self_attn, layer.mlp
        inside = len(mlp.up_proj.weight)
        read = [(attention.q_proj, queries), (attention.k_proj, keys), (attention.v_proj, keys)]
        ups = [(part, inside) for part in ([mlp.gate_proj, mlp.up_proj] if mlp.is_gated else [mlp.up_proj])]
        for group in (read, ups):
            if len({part.bias is None for part, _ in group}) > 1:
                return False
        for linear, outputs in (*read, *ups):
            expected += _linear_shapes(linear, outputs, width)
        expected += _linear_shapes(attention.o_proj, width, queries) + _linear_shapes(mlp.down_proj, width, inside)
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            expected += _norm_shapes(norm, width)
        if config.use_qk_norm:
            expected += _norm_shapes(attention.q_norm, head_dim) + _norm_shapes(attention.k_norm, head_dim)
    return keys > 0 and queries % keys == 0 and all(tuple(tensor.shape) == shape for tensor, shape in expected)


_Shapes = list[tuple[torch.Tensor, tuple[int, ...]]]


def _linear_shapes(linear: nn.Linear, outputs: int, inputs: int) -> _Shapes:
    return [(linear.weight, (outputs, inputs)), *([] if linear.bias is None else [(linear.bias, (outputs,))])]


def _norm_shapes(norm: nn.Module, width: int) -> _Shapes:
    bias = getattr(norm, "bias", None)
    return [(norm.weight, (width,)), *([] if bias is None else [(bias, (width,))])]


def _is_norm(norm: nn.Module, config: HfGptConfig) -> bool:
    if config.norm_type == "layernorm":
        return type(norm) is nn.LayerNorm and norm.eps == config.norm_eps
    return type(norm) is HfGptRMSNorm and norm.variance_epsilon == config.norm_eps
