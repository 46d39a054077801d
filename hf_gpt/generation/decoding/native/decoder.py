"""`CachedDecoder` by compiled steps: prompt tokens and new tokens are rows of `step.c`."""

import ctypes
import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from hf_gpt.generation.decoding.native.memory import borrow
from hf_gpt.generation.decoding.native.structures import (
    ACTIVATIONS,
    TYPES,
    Decoder,
    Layer,
    Linear,
    Native,
    Norm,
    Packing,
    Step,
    address,
    native,
)
from hf_gpt.generation.decoding.plain_decoder import shapes_fit
from hf_gpt.generation.sampling.activation_cache import ActivationCache
from hf_gpt.models.inputs_hf_gpt import check_range
from hf_gpt.models.layers_hf_gpt import HfGptRMSNorm


if TYPE_CHECKING:
    from hf_gpt.models.modeling_hf_gpt import HfGptForCausalLM


_SOURCES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def takes(model: "HfGptForCausalLM", weight_dtype: str | None) -> bool:
    """Whether compiled steps decode a model that `plain_decoder.can_decode` takes.

    They need a CPU, a compiler, all parameters in float32 or all in bfloat16, and an activation of `ACTIVATIONS`.
    """
    parameters = list(model.parameters())
    if {parameter.device.type for parameter in parameters} != {"cpu"} or model.config.hidden_act not in ACTIVATIONS:
        return False
    if len({parameter.dtype for parameter in parameters}) != 1 or parameters[0].dtype not in _SOURCES:
        return False
    found = native()
    return found is not None and (weight_dtype != "int8" or found.has_int8)


class NativeWeights:
    """A copy of a model's current weights, packed for `step.c`; the counterpart of `cached_decoder.DecoderWeights`.

    Queries, keys and values are one linear layer, as are gate and input of an MLP. The scales of an RMS norm are part
    of the next linear layer.

    Args:
        model: A model that `takes`.
        weight_dtype: None: the model's own. `"bfloat16"`: rounds weights, and inputs too where that is faster.
            `"int8"`: weights in 255 steps for each output, inputs in 255 steps for each row. Both keep keys and values
            in bfloat16. Sums and results are float32.

    Raises:
        ValueError: a tensor of the model has another shape than its configuration and the others ask for.
    """

    def __init__(self, model: "HfGptForCausalLM", weight_dtype: str | None = None):
        config, inner = model.config, model.model
        if not shapes_fit(model):
            raise ValueError("the model's tensors do not have the shapes that its configuration asks for.")
        self.native: Native = native()
        layers = inner.layers[: config.num_hidden_layers]
        self.type = TYPES[weight_dtype or _SOURCES[model.dtype]]
        # Keeps alive what the structures point to.
        self._kept: list[torch.Tensor | nn.Parameter] = []
        self.decoder = Decoder(
            hidden_size=inner.embed_tokens.weight.shape[1],
            vocab_size=len(model.lm_head.weight),
            num_layers=len(layers),
            activation=ACTIVATIONS[config.hidden_act],
            is_layernorm=config.norm_type == "layernorm",
            is_bfloat16=model.dtype == torch.bfloat16,
            norm_eps=config.norm_eps,
            logit_scale=config.logit_scale,
            softcap=config.final_logit_softcapping or 0.0,
            embeddings=self._keep(inner.embed_tokens.weight.detach().contiguous()),
        )
        # Learned positions that there are.
        self.num_positions: int | None = None
        if config.position_embedding_type == "learned":
            self.num_positions = len(inner.embed_positions.weight)
            self.decoder.positions = self._keep(inner.embed_positions.weight.detach().contiguous())
        heads = self.decoder.heads
        heads.num_queries, heads.num_keys = config.num_attention_heads, config.num_key_value_heads
        heads.head_dim, heads.norm_eps, heads.use_qk_norm = config.head_dim, config.norm_eps, config.use_qk_norm
        heads.is_bfloat16 = self.type != TYPES["float32"]
        heads.scaling = inner.layers[0].self_attn.scaling
        self.layers = (Layer * len(layers))()
        decoded = list(zip(self.layers, layers, strict=True))
        everything = [parts for _, layer in decoded for parts in _parts_of(layer)] + [[model.lm_head]]
        # One block, since small ones get no large pages.
        self.memory = borrow(sum(map(self._size, everything)), self, self.native)
        self._used = 0
        for mine, layer in decoded:
            attention = layer.self_attn
            qkv, output, up, down = _parts_of(layer)
            mine.attention_norm, factors = self._norm(layer.input_layernorm)
            mine.qkv, mine.output = self._linear(qkv, factors), self._linear(output)
            mine.mlp_norm, factors = self._norm(layer.post_attention_layernorm)
            mine.up, mine.down = self._linear(up, factors), self._linear(down)
            if config.use_qk_norm:
                mine.cache.query_norm = self._keep(attention.q_norm.weight.detach().float().contiguous())
                mine.cache.key_norm = self._keep(attention.k_norm.weight.detach().float().contiguous())
            mine.cache.window = attention.sliding_window or 0
        self.decoder.norm, factors = self._norm(inner.norm)
        self.decoder.head = self._linear([model.lm_head], factors)
        self.decoder.layers = self.layers
        linears = [linear for one in self.layers for linear in (one.qkv, one.output, one.up, one.down)]
        self.widest_output = max(max(linear.outputs, 1) for linear in linears)
        self.widest_input = max(linear.inputs for linear in [*linears, self.decoder.head])
        self.num_weights = sum(linear.inputs * linear.outputs for linear in [*linears, self.decoder.head])

    def start(
        self, model: "HfGptForCausalLM", ids: torch.Tensor, mask: torch.Tensor, max_new_tokens: int
    ) -> "NativeDecoder":
        """A decoder of these prompts; arguments as for `CachedDecoder`."""
        return NativeDecoder(model, ids, mask, max_new_tokens, self)

    def _keep(self, tensor: torch.Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _norm(self, norm: nn.Module) -> tuple[Norm, torch.Tensor | None]:
        """A norm, and factors for the inputs of the next linear layer."""
        if isinstance(norm, HfGptRMSNorm):
            return Norm(), norm.weight.detach().float().contiguous()
        shift = None if norm.bias is None else self._keep(norm.bias.detach().float().contiguous())
        return Norm(scale=self._keep(norm.weight.detach().float().contiguous()), shift=shift), None

    def _room(self, parts: list[nn.Linear]) -> int:
        """Outputs in whole panels; those of a gated MLP alternate."""
        outputs = len(parts[0].weight) if len(parts) == 2 else sum(len(part.weight) for part in parts)
        return -(-outputs // self.native.panel) * self.native.panel * (1 + (len(parts) == 2))

    def _size(self, parts: list[nn.Linear]) -> int:
        """Bytes of a packed weight."""
        return self._room(parts) * -(-parts[0].weight.shape[1] // (1 << self.type)) * 4

    def _linear(self, parts: list[nn.Linear], factors: torch.Tensor | None = None) -> Linear:
        sources = [part.weight.detach().contiguous() for part in parts]
        is_gated, room = len(parts) == 2, self._room(parts)
        outputs = len(sources[0]) if is_gated else sum(map(len, sources))
        linear = Linear(outputs=outputs, inputs=sources[0].shape[1], type=self.type, is_gated=is_gated)
        linear.weight = self.memory.data_ptr() + self._used
        self._used += self._size(parts)
        if self.type == TYPES["int8"]:
            linear.scale = self._keep(torch.empty(room))
            linear.offset = self._keep(torch.empty(room, dtype=torch.int32))
        if parts[0].bias is not None:
            linear.bias = self._keep(_in_panels([part.bias.detach().float() for part in parts], self.native.panel))
        packing = Packing(
            linear=ctypes.pointer(linear),
            factors=address(factors),
            is_bfloat16=sources[0].dtype == torch.bfloat16,
        )
        for position, source in enumerate(sources):
            packing.parts[position], packing.part_rows[position] = source.data_ptr(), len(source)
        self.native.pack(packing, torch.get_num_threads())
        return linear


def _parts_of(layer: nn.Module) -> list[list[nn.Linear]]:
    """The layers that are packed together: `qkv`, `output`, `up` and `down`."""
    attention, mlp = layer.self_attn, layer.mlp
    up = [mlp.gate_proj, mlp.up_proj] if mlp.is_gated else [mlp.up_proj]
    return [[attention.q_proj, attention.k_proj, attention.v_proj], [attention.o_proj], up, [mlp.down_proj]]


def _in_panels(biases: list[torch.Tensor], panel: int) -> torch.Tensor:
    """Biases in the order of the packed outputs."""
    if len(biases) != 2:
        whole = torch.cat(biases)
        return nn.functional.pad(whole, (0, -len(whole) % panel))
    padded = [nn.functional.pad(bias, (0, -len(bias) % panel)).view(-1, panel) for bias in biases]
    return torch.stack(padded, 1).flatten()


# Rows of prompts read at a time: enough for the linear layers, few enough for the processor's caches.
_PROMPT_ROWS = 256
# With fewer multiplications in a step, more threads cost more than they save.
_WORK_OF_A_THREAD = 500_000


class NativeDecoder:
    """Reads prompts and then one token of each row at a time; arguments and methods as of `CachedDecoder`.

    The cache has no padding: a token stands at its position. Finished rows keep their slots, so nothing is copied.
    """

    can_select = True

    def __init__(
        self,
        model: "HfGptForCausalLM",
        ids: torch.Tensor,
        mask: torch.Tensor,
        max_new_tokens: int,
        weights: NativeWeights,
    ):
        self.model, self.weights = model, weights
        self.ids, self.mask = ids, mask.bool()
        self.tokens: torch.Tensor | None = None
        self.activation_cache: ActivationCache | None = None
        # New tokens that have been read.
        self.steps = 0
        self.slots = torch.arange(len(ids))
        self.positions = self.mask.sum(-1)
        lanes = weights.native.lanes
        self.limit = int(self.positions.max()) + max_new_tokens
        self.capacity = -(-self.limit // lanes) * lanes
        self._point_to_cache(len(ids))
        self._make_room(min(max(len(ids), _PROMPT_ROWS), max(len(ids), int(self.positions.sum()))))

    def record(self, activation_cache: ActivationCache, num_tokens: int) -> None:
        """Fills an activation cache, for texts of at most `num_tokens`. Call it before the first step."""
        if self.weights.type == TYPES["float32"] and activation_cache.begin(self.model, len(self.ids), num_tokens):
            self.activation_cache = activation_cache
            self.step.kept = (ctypes.c_void_p * 4)(*map(address, activation_cache.linear_outputs))
            self.step.kept_rows = len(self.ids) * (num_tokens - 1)

    def next_logits(self) -> torch.Tensor:
        """(B, V) float32 logits of the token that comes next. The next call writes over them."""
        if self.tokens is None:
            logits = self.logits = self._prefill()
        else:
            rows, self.steps = len(self.tokens), self.steps + 1
            # The system would clear new memory at each step.
            logits = self.logits[:rows]
            self._step(self.tokens.contiguous(), self.slots, self.positions, self.every_row[:rows], logits)
            self.positions = self.positions + 1
        if self.activation_cache is not None:
            # By NumPy: PyTorch's threads would spin afterwards, on cores that the steps need.
            self.activation_cache.logits.numpy()[self.slots.numpy(), self.steps] = logits.numpy()
        return logits

    def append(self, tokens: torch.Tensor) -> None:
        """Adds the sampled tokens (B,)."""
        self.tokens = tokens

    def select(self, rows: torch.Tensor) -> None:
        """Keeps only these rows."""
        self.slots, self.positions = self.slots[rows], self.positions[rows]

    def _point_to_cache(self, slots: int) -> None:
        weights, config = self.weights, self.model.config
        # Copies, since their pointers are this decoder's.
        self.decoder = Decoder.from_buffer_copy(weights.decoder)
        self.layers = (Layer * len(weights.layers)).from_buffer_copy(weights.layers)
        self.decoder.layers = ctypes.cast(self.layers, ctypes.POINTER(Layer))
        heads, lanes = self.decoder.heads, weights.native.lanes
        heads.capacity = self.capacity
        self.decoder.num_positions = self.limit
        if weights.num_positions is not None:
            self.decoder.num_positions = min(self.limit, weights.num_positions)
        elif config.position_embedding_type == "rope":
            cos, sin = self.model.model.rotary_emb(torch.empty(0), torch.arange(self.limit)[None])
            if not cos.shape == sin.shape == (1, self.limit, heads.head_dim):
                raise ValueError(f"RoPE of heads of {cos.shape[-1]} numbers for heads of {heads.head_dim}.")
            self.turns = cos[0].float().contiguous(), sin[0].float().contiguous()
            heads.cos, heads.sin = map(address, self.turns)
        # Words of one float or two bfloat16: (slots, heads, blocks, D, lanes) and (slots, heads, tokens, D rounded up).
        pair, leading, dim = 1 + heads.is_bfloat16, (slots, heads.num_keys), heads.head_dim
        keys = (*leading, self.capacity // lanes, -(-dim // pair), lanes)
        values = (*leading, self.capacity // pair, -(-dim // lanes) * lanes)
        sizes = [len(self.layers) * math.prod(shape) for shape in (keys, values)]
        memory = borrow(4 * sum(sizes), self, weights.native).view(torch.float32)
        self.keys, self.values = (
            part.view(-1, *shape) for part, shape in zip(memory.split(sizes), (keys, values), strict=True)
        )
        for layer, *both in zip(self.layers, self.keys, self.values, strict=True):
            layer.cache.keys, layer.cache.values = map(address, both)

    def _make_room(self, rows: int) -> None:
        weights = self.weights
        self.every_row = torch.arange(rows)
        # A row of inputs has at most as many words as numbers, and one more for pairs.
        widths = (weights.decoder.hidden_size, weights.widest_output, weights.widest_input, weights.widest_input + 1, 1)
        self.room = [torch.empty(rows, width) for width in widths]
        hidden, wide, found, steps, scales = map(address, self.room)
        self.step = Step(hidden=hidden, wide=wide, found=found, steps=steps, scales=scales)

    def _step(self, tokens, slots, positions, wanted, logits, is_prompt=False) -> None:
        step, rows = self.step, len(tokens)
        is_small = rows * self.weights.num_weights < _WORK_OF_A_THREAD
        step.rows, step.num_wanted, step.is_prompt = rows, len(wanted), is_prompt
        step.threads = 1 if is_small else torch.get_num_threads()
        step.tokens, step.slots, step.positions = tokens.data_ptr(), slots.data_ptr(), positions.data_ptr()
        step.wanted, step.logits = wanted.data_ptr(), logits.data_ptr()
        # The tokens of a text are adjacent.
        is_recorded = self.activation_cache is not None and not is_prompt
        targets = slots * (step.kept_rows // len(self.ids)) + self.steps - 1 if is_recorded else None
        step.targets = address(targets)
        status = self.weights.native.step(self.decoder, step)
        if status == 1:
            check_range("tokens", tokens, self.decoder.vocab_size, "vocab_size")
        if status:
            raise IndexError(f"no room for a token at position {int(positions.max())}: there are {self.limit}.")

    def _prefill(self) -> torch.Tensor:
        # Each prompt is read once for all of its completions.
        both = torch.stack([self.ids, self.mask.to(self.ids)], 1)
        whose = torch.unique(both, dim=0, return_inverse=True)[1]
        first = torch.full((int(whose.max()) + 1,), len(whose)).scatter_reduce_(0, whose, self.slots, "amin")
        rows, columns = self.mask[first].nonzero(as_tuple=True)
        slots = first[rows]
        tokens = self.ids[slots, columns]
        check_range("input_ids", tokens, self.decoder.vocab_size, "vocab_size")
        positions = (self.mask.cumsum(-1) - 1)[slots, columns]
        last = torch.cat([rows.diff() != 0, torch.ones(1, dtype=torch.bool)])
        logits, done = torch.empty(len(first), self.decoder.vocab_size), 0
        for begin in range(0, len(rows), len(self.every_row)):
            part = slice(begin, begin + len(self.every_row))
            wanted = last[part].nonzero()[:, 0]
            self._step(tokens[part], slots[part], positions[part], wanted, logits[done:], is_prompt=True)
            done += len(wanted)
        if len(first) == len(whose):
            return logits[whose]
        self._share_cache(first[whose])
        return logits[whose]

    def _share_cache(self, source: torch.Tensor) -> None:
        """Copies keys and values to each slot from the slot that read its prompt."""
        length, lanes, heads = int(self.mask.sum(-1).max()), self.weights.native.lanes, self.decoder.heads
        others = (source != self.slots).nonzero()[:, 0]
        values = -(-length // (1 + heads.is_bfloat16))
        for cache, width in ((self.keys, -(-length // lanes)), (self.values, values)):
            for layer in cache:
                layer[others, :, :width] = layer[source[others], :, :width]
