"""`CachedDecoder` by compiled steps: prompts and new tokens alike are rows of `step.c`."""

import ctypes
import math
from typing import TYPE_CHECKING

import torch

from hf_gpt.generation.decoding.native.memory import borrow
from hf_gpt.generation.decoding.native.structures import TYPES, Decoder, Layer, Step, address
from hf_gpt.generation.decoding.native.weights import NativeWeights
from hf_gpt.generation.sampling.activation_cache import Recording
from hf_gpt.models.inputs_hf_gpt import check_range


if TYPE_CHECKING:
    from hf_gpt.models.modeling_hf_gpt import HfGptForCausalLM


# Rows of prompts that are read at a time: enough for the products, few enough for the caches of the processor.
_PROMPT_ROWS = 256
# Multiplications of a step below which more threads cost more than they save.
_WORK_OF_A_THREAD = 500_000


class NativeDecoder:
    """Reads prompts and then one token of each row at a time; arguments and methods as of `decoding.CachedDecoder`.

    The cache has no padding: a row's token stands at its position. Rows that leave keep their place in the cache,
    so nothing is copied.
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
        self.recording: Recording | None = None
        # New tokens that have been read.
        self.steps = 0
        self.slots = torch.arange(len(ids))
        self.positions = self.mask.sum(-1)
        lanes = weights.native.lanes
        self.limit = int(self.positions.max()) + max_new_tokens
        self.capacity = -(-self.limit // lanes) * lanes
        self._point_to_cache(len(ids))
        self._make_room(min(max(len(ids), _PROMPT_ROWS), max(len(ids), int(self.positions.sum()))))

    def record(self, recording: Recording, num_tokens: int) -> None:
        """Keeps from now on what steps work out, of texts of at most `num_tokens`; before the first one."""
        if self.weights.type == TYPES["float32"] and recording.begin(self.model, len(self.ids), num_tokens):
            self.recording = recording
            self.step.kept = (ctypes.c_void_p * 4)(*map(address, recording.products))
            self.step.kept_rows = len(self.ids) * (num_tokens - 1)

    def next_logits(self) -> torch.Tensor:
        """(B, V) float32 logits of the token that comes next. The next call writes over them."""
        if self.tokens is None:
            logits = self.logits = self._prefill()
        else:
            rows, self.steps = len(self.tokens), self.steps + 1
            # New memory for each step would be cleared by the system first.
            logits = self.logits[:rows]
            self._step(self.tokens.contiguous(), self.slots, self.positions, self.every_row[:rows], logits)
            self.positions = self.positions + 1
        if self.recording is not None:
            # By NumPy: PyTorch's threads would wait in a loop for the next such task, on cores that the steps need.
            self.recording.logits.numpy()[self.slots.numpy(), self.steps] = logits.numpy()
        return logits

    def append(self, tokens: torch.Tensor) -> None:
        """Adds the drawn tokens (B,)."""
        self.tokens = tokens

    def select(self, rows: torch.Tensor) -> None:
        """Keeps these rows alone."""
        self.slots, self.positions = self.slots[rows], self.positions[rows]

    def _point_to_cache(self, slots: int) -> None:
        weights, config = self.weights, self.model.config
        # Structures of our own, since what they point to is this decoder's.
        self.decoder = Decoder.from_buffer_copy(weights.decoder)
        self.layers = (Layer * len(weights.layers)).from_buffer_copy(weights.layers)
        self.decoder.layers = ctypes.cast(self.layers, ctypes.POINTER(Layer))
        heads, lanes = self.decoder.heads, weights.native.lanes
        heads.capacity = self.capacity
        self.decoder.num_positions = self.limit
        if config.position_embedding_type == "learned":
            self.decoder.num_positions = min(self.limit, config.max_position_embeddings)
        elif config.position_embedding_type == "rope":
            cos, sin = self.model.model.rotary_emb(torch.empty(0), torch.arange(self.limit)[None])
            self.turns = cos[0].contiguous(), sin[0].contiguous()
            heads.cos, heads.sin = map(address, self.turns)
        # Words of one float or two bfloat16: (slots, heads, blocks, D, lanes) and (slots, heads, tokens, D rounded up).
        pair, places, dim = 1 + heads.is_bfloat16, (slots, heads.num_keys), heads.head_dim
        keys = (*places, self.capacity // lanes, -(-dim // pair), lanes)
        values = (*places, self.capacity // pair, -(-dim // lanes) * lanes)
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
        # A row of inputs is at most as many words as numbers, and one more where they come in pairs.
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
        # Of each text one token after another.
        is_recorded = self.recording is not None and not is_prompt
        places = slots * (step.kept_rows // len(self.ids)) + self.steps - 1 if is_recorded else None
        step.places = address(places)
        status = self.weights.native.step(self.decoder, step)
        if status == 1:
            check_range("tokens", tokens, self.decoder.vocab_size, "vocab_size")
        if status:
            raise IndexError(f"no room for a token at position {int(positions.max())}: there are {self.limit}.")

    def _prefill(self) -> torch.Tensor:
        # Completions of one prompt share its reading.
        both = torch.stack([self.ids, self.mask.to(self.ids)], 1)
        whose = torch.unique(both, dim=0, return_inverse=True)[1]
        first = torch.full((int(whose.max()) + 1,), len(whose)).scatter_reduce_(0, whose, self.slots, "amin")
        rows, places = self.mask[first].nonzero(as_tuple=True)
        slots = first[rows]
        tokens = self.ids[slots, places]
        check_range("input_ids", tokens, self.decoder.vocab_size, "vocab_size")
        positions = (self.mask.cumsum(-1) - 1)[slots, places]
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
        """Gives each slot the keys and values of the slot that read its prompt."""
        length, lanes, heads = int(self.mask.sum(-1).max()), self.weights.native.lanes, self.decoder.heads
        others = (source != self.slots).nonzero()[:, 0]
        values = -(-length // (1 + heads.is_bfloat16))
        for cache, places in ((self.keys, -(-length // lanes)), (self.values, values)):
            for layer in cache:
                layer[others, :, :places] = layer[source[others], :, :places]
