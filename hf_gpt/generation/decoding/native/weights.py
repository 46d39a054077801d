"""A model's weights as `step.c` reads them."""

import ctypes
from typing import TYPE_CHECKING

import torch
from torch import nn

from hf_gpt.generation.decoding.native.memory import borrow
from hf_gpt.generation.decoding.native.structures import (
    ACTIVATIONS,
    TYPES,
    Decoder,
    Layer,
    Native,
    Norm,
    Packing,
    Product,
    address,
    native,
)
from hf_gpt.models.layers_hf_gpt import HfGptRMSNorm


if TYPE_CHECKING:
    from hf_gpt.generation.decoding.native.decoder import NativeDecoder
    from hf_gpt.models.modeling_hf_gpt import HfGptForCausalLM


_SOURCES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def takes(model: "HfGptForCausalLM", weight_dtype: str | None) -> bool:
    """Whether the compiled steps decode this model, one that `decoding.can_decode` takes: on a CPU, all parameters in
    float32 or all in bfloat16, an activation of `ACTIVATIONS`, and a compiler."""
    parameters = list(model.parameters())
    if {parameter.device.type for parameter in parameters} != {"cpu"} or model.config.hidden_act not in ACTIVATIONS:
        return False
    if len({parameter.dtype for parameter in parameters}) != 1 or parameters[0].dtype not in _SOURCES:
        return False
    found = native()
    return found is not None and (weight_dtype != "int8" or found.has_int8)


class NativeWeights:
    """The counterpart of `decoding.DecoderWeights`: a model's weights, taken now, in panels for the compiled steps.

    Queries, keys and values are one product, as are the two inputs of a gated MLP, and the scales of an RMS norm go
    into the product behind it.

    Args:
        model: A model that `takes`.
        weight_dtype: None: the model's own. `"bfloat16"`: weights and inputs of products rounded to it, where the
            processor gains by it, else the weights alone. `"int8"`: weights in 255 steps for each output, inputs in
            255 steps for each row. Keys and values are kept in bfloat16 in both; sums, results and whatever lies
            between products are float32.
    """

    def __init__(self, model: "HfGptForCausalLM", weight_dtype: str | None = None):
        config, inner = model.config, model.model
        self.native: Native = native()
        self.type = TYPES[weight_dtype or _SOURCES[model.dtype]]
        # What the structures point to.
        self._kept: list[torch.Tensor | nn.Parameter] = []
        self.decoder = Decoder(
            hidden_size=config.hidden_size,
            vocab_size=model.lm_head.out_features,
            num_layers=config.num_hidden_layers,
            activation=ACTIVATIONS[config.hidden_act],
            is_layernorm=config.norm_type == "layernorm",
            is_bfloat16=model.dtype == torch.bfloat16,
            norm_eps=config.norm_eps,
            logit_scale=config.logit_scale,
            softcap=config.final_logit_softcapping or 0.0,
            embeddings=self._keep(inner.embed_tokens.weight.detach().contiguous()),
        )
        if config.position_embedding_type == "learned":
            self.decoder.positions = self._keep(inner.embed_positions.weight.detach().contiguous())
        heads = self.decoder.heads
        heads.num_queries, heads.num_keys = config.num_attention_heads, config.num_key_value_heads
        heads.head_dim, heads.norm_eps, heads.use_qk_norm = config.head_dim, config.norm_eps, config.use_qk_norm
        heads.is_bfloat16 = self.type != TYPES["float32"]
        heads.scaling = inner.layers[0].self_attn.scaling
        self.layers = (Layer * config.num_hidden_layers)()
        decoded = list(zip(self.layers, inner.layers, strict=False))
        everything = [parts for _, layer in decoded for parts in _parts_of(layer)] + [[model.lm_head]]
        # In one piece, since small ones get no large pages.
        self.memory = borrow(sum(map(self._size, everything)), self, self.native)
        self._used = 0
        for mine, layer in decoded:
            attention = layer.self_attn
            qkv, output, up, down = _parts_of(layer)
            mine.attention_norm, factors = self._norm(layer.input_layernorm)
            mine.qkv, mine.output = self._product(qkv, factors), self._product(output)
            mine.mlp_norm, factors = self._norm(layer.post_attention_layernorm)
            mine.up, mine.down = self._product(up, factors), self._product(down)
            if config.use_qk_norm:
                mine.cache.query_norm = self._keep(attention.q_norm.weight.detach().float().contiguous())
                mine.cache.key_norm = self._keep(attention.k_norm.weight.detach().float().contiguous())
            mine.cache.window = attention.sliding_window or 0
        self.decoder.norm, factors = self._norm(inner.norm)
        self.decoder.head = self._product([model.lm_head], factors)
        self.decoder.layers = self.layers
        products = [product for one in self.layers for product in (one.qkv, one.output, one.up, one.down)]
        self.widest_output = max(max(product.outputs, 1) for product in products)
        self.widest_input = max(product.inputs for product in [*products, self.decoder.head])
        self.num_weights = sum(product.inputs * product.outputs for product in [*products, self.decoder.head])

    def start(
        self, model: "HfGptForCausalLM", ids: torch.Tensor, mask: torch.Tensor, max_new_tokens: int
    ) -> "NativeDecoder":
        """A decoder of these prompts; arguments as for `decoding.CachedDecoder`."""
        from hf_gpt.generation.decoding.native.decoder import NativeDecoder

        return NativeDecoder(model, ids, mask, max_new_tokens, self)

    def _keep(self, tensor: torch.Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _norm(self, norm: nn.Module) -> tuple[Norm, torch.Tensor | None]:
        """A norm, and factors of the inputs of the product behind it."""
        if isinstance(norm, HfGptRMSNorm):
            return Norm(), norm.weight.detach().float().contiguous()
        shift = None if norm.bias is None else self._keep(norm.bias.detach().float().contiguous())
        return Norm(scale=self._keep(norm.weight.detach().float().contiguous()), shift=shift), None

    def _room(self, parts: list[nn.Linear]) -> int:
        """Outputs in whole panels, which two parts (those of a gated MLP) have by turns."""
        outputs = len(parts[0].weight) if len(parts) == 2 else sum(len(part.weight) for part in parts)
        return -(-outputs // self.native.panel) * self.native.panel * (1 + (len(parts) == 2))

    def _size(self, parts: list[nn.Linear]) -> int:
        """Bytes of a packed weight."""
        return self._room(parts) * -(-parts[0].weight.shape[1] // (1 << self.type)) * 4

    def _product(self, parts: list[nn.Linear], factors: torch.Tensor | None = None) -> Product:
        sources = [part.weight.detach().contiguous() for part in parts]
        is_gated, room = len(parts) == 2, self._room(parts)
        outputs = len(sources[0]) if is_gated else sum(map(len, sources))
        product = Product(outputs=outputs, inputs=sources[0].shape[1], type=self.type, is_gated=is_gated)
        product.weight = self.memory.data_ptr() + self._used
        self._used += self._size(parts)
        if self.type == TYPES["int8"]:
            product.scale = self._keep(torch.empty(room))
            product.offset = self._keep(torch.empty(room, dtype=torch.int32))
        if parts[0].bias is not None:
            product.bias = self._keep(_in_panels([part.bias.detach().float() for part in parts], self.native.panel))
        packing = Packing(
            product=ctypes.pointer(product),
            factors=address(factors),
            is_bfloat16=sources[0].dtype == torch.bfloat16,
        )
        for place, source in enumerate(sources):
            packing.parts[place], packing.part_rows[place] = source.data_ptr(), len(source)
        self.native.pack(packing, torch.get_num_threads())
        return product


def _parts_of(layer: nn.Module) -> list[list[nn.Linear]]:
    """The layers that are one product each: `qkv`, `output`, `up` and `down`."""
    attention, mlp = layer.self_attn, layer.mlp
    up = [mlp.gate_proj, mlp.up_proj] if mlp.is_gated else [mlp.up_proj]
    return [[attention.q_proj, attention.k_proj, attention.v_proj], [attention.o_proj], up, [mlp.down_proj]]


def _in_panels(biases: list[torch.Tensor], panel: int) -> torch.Tensor:
    """Biases in the places of their outputs."""
    if len(biases) != 2:
        whole = torch.cat(biases)
        return nn.functional.pad(whole, (0, -len(whole) % panel))
    padded = [nn.functional.pad(bias, (0, -len(bias) % panel)).view(-1, panel) for bias in biases]
    return torch.stack(padded, 1).flatten()
