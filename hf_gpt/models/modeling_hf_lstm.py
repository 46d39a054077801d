"""The LSTM generator and discriminator: embedding, LSTM encoder, LSTM decoder back to the embedding's width, heads."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import initialization as init
from transformers.cache_utils import STATIC_LAYER_TYPE_MAPPING, Cache, CacheLayerMixin, DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_hf_lstm import HfLstmConfig
from .inputs_hf_gpt import check_not_empty, check_range, document_ids, num_tokens
from .modeling_hf_gpt import (
    HfGptForCausalLM,
    HfGptForSequenceClassification,
    HfGptForTokenClassification,
    HfGptPreTrainedModel,
)


# trf-ignore: TRF041 config.is_causal, config.lstm_init


class HfLstmCacheLayer(CacheLayerMixin):
    """
    What an LSTM carries from token to token, in place of keys and values: output and cell, each of shape
    `(batch_size, width)` whatever the number of tokens.
    """

    _layer_type = "lstm"
    is_sliding = False

    def __init__(self, **kwargs):
        super().__init__()
        self.cumulative_length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, num_tokens: int = 1, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes the state after `num_tokens` more tokens."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values = key_states, value_states
        self.cumulative_length += num_tokens
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.cumulative_length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cumulative_length + query_length, 0

    def get_max_length(self) -> int:
        return -1

    @property
    def batch_size(self) -> int:
        return self.keys.shape[0] if self.is_initialized else -1

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeats each row of the batch."""
        if self.is_initialized:
            self.keys = self.keys.repeat_interleave(repeats, dim=0)
            self.values = self.values.repeat_interleave(repeats, dim=0)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps these rows of the batch."""
        if self.is_initialized:
            self.keys, self.values = self.keys[indices, ...], self.values[indices, ...]

    def crop(self, tokens_to_remove: int) -> None:
        """Raises `ValueError`: a state does not tell what it was before its last token."""
        raise ValueError("The state of an LSTM cannot go back: generate without an assistant model.")


# One size for all lengths: it is static as it is.
STATIC_LAYER_TYPE_MAPPING[HfLstmCacheLayer._layer_type] = HfLstmCacheLayer


@dataclass
class HfLstmSegments:
    """
    Where the stretches of text lie that an LSTM reads one by one: rows without their padding, or the documents of
    packed rows.

    Attributes:
        rows, columns (`torch.LongTensor` of shape `(num_tokens,)`):
            Place of each token that is none of padding.
        segments, offsets (`torch.LongTensor` of shape `(num_tokens,)`):
            Segment that it belongs to, and its place there.
        lengths (`torch.LongTensor` of shape `(num_segments,)`):
            Tokens of each segment, on the CPU.
        row_of_segment (`torch.LongTensor` of shape `(num_segments,)`):
            Row that it lies in.
        is_first, is_last (`torch.BoolTensor` of shape `(num_segments,)`):
            Whether it goes on from the state that its row came with, and whether its end is the row's state.
    """

    rows: torch.LongTensor
    columns: torch.LongTensor
    segments: torch.LongTensor
    offsets: torch.LongTensor
    lengths: torch.LongTensor
    row_of_segment: torch.LongTensor
    is_first: torch.BoolTensor
    is_last: torch.BoolTensor

    @classmethod
    def find(
        cls, mask: torch.BoolTensor | None, documents: torch.LongTensor | None, shape: tuple[int, int]
    ) -> "HfLstmSegments | None":
        """
        Args:
            mask (`torch.BoolTensor` of shape `(batch_size, sequence_length)`, *optional*):
                False at padding, wherever it lies.
            documents (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Number of the document that each token of packed rows belongs to.
            shape (`tuple[int, int]`):
                Batch size and sequence length.

        Returns:
            The segments, or None where each row is one from end to end.
        """
        if (mask is None or bool(mask.all())) and (documents is None or not bool(documents.any())):
            return None
        device = (mask if documents is None else documents).device
        mask = torch.ones(shape, dtype=torch.bool, device=device) if mask is None else mask
        documents = torch.zeros(shape, dtype=torch.long, device=device) if documents is None else documents
        rows, columns = mask.nonzero(as_tuple=True)
        # A number for each pair of row and document, in their order.
        keys = rows * shape[1] + documents.expand(shape)[rows, columns]
        keys, segments, lengths = keys.unique_consecutive(return_inverse=True, return_counts=True)
        starts = lengths.cumsum(0) - lengths
        row_of_segment = torch.div(keys, shape[1], rounding_mode="floor")
        changes = row_of_segment.diff() != 0
        edge = changes.new_ones(min(1, len(keys)))
        return cls(
            rows=rows,
            columns=columns,
            segments=segments,
            offsets=torch.arange(len(rows), device=device) - starts[segments],
            lengths=lengths.cpu(),
            row_of_segment=row_of_segment,
            is_first=torch.cat([edge, changes]),
            is_last=torch.cat([changes, edge]),
        )


@dataclass
class HfLstmPositions:
    """
    The same where nothing may depend on what tensors hold, as in an export and on the meta device.

    Attributes:
        mask, begins, ends (`torch.BoolTensor` of shape `(batch_size, sequence_length)`):
            Where tokens are, and which of them are the first and last of a packed document.
    """

    mask: torch.BoolTensor
    begins: torch.BoolTensor
    ends: torch.BoolTensor

    @classmethod
    def find(
        cls, mask: torch.BoolTensor | None, documents: torch.LongTensor | None, shape: tuple[int, int]
    ) -> "HfLstmPositions | None":
        """As [`HfLstmSegments.find`]; None only where neither is given."""
        if mask is None and documents is None:
            return None
        if mask is None:
            mask = torch.ones(shape, dtype=torch.bool, device=documents.device)
        begins = ends = torch.zeros_like(mask)
        if documents is not None:
            changes = documents.expand(shape).diff(dim=-1) != 0
            edge = torch.zeros_like(mask[:, :1])
            begins, ends = torch.cat([edge, changes], 1), torch.cat([changes, edge], 1)
        return cls(mask, begins, ends)


class HfLstmLayer(GradientCheckpointingLayer):
    """One LSTM, which passes over padding and begins each packed document anew."""

    def __init__(self, config: HfLstmConfig, layer_idx: int):
        super().__init__()
        self.layer_idx = layer_idx
        num_encoder_layers = config.num_hidden_layers - config.num_decoder_layers
        is_encoder = layer_idx < num_encoder_layers
        input_size = (
            config.hidden_size if layer_idx == 0 or layer_idx > num_encoder_layers else config.intermediate_size
        )
        self.output_size = config.intermediate_size if is_encoder else config.hidden_size
        self.is_bidirectional = is_encoder and not config.is_causal
        self.lstm = nn.LSTM(
            input_size,
            self.output_size // (2 if self.is_bidirectional else 1),
            batch_first=True,
            bidirectional=self.is_bidirectional,
        )
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        segments: "HfLstmSegments | HfLstmPositions | None" = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        state = None
        if past_key_values is not None and past_key_values.layers[self.layer_idx].is_initialized:
            cached = past_key_values.layers[self.layer_idx]
            state = cached.keys.unsqueeze(0), cached.values.unsqueeze(0)
        if segments is None:
            output, state = self.lstm(hidden_states, state)
        elif isinstance(segments, HfLstmPositions):
            output, state = self._read_positions(hidden_states, segments, state)
        else:
            output, state = self._read_segments(hidden_states, segments, state)
        if past_key_values is not None:
            past_key_values.update(
                state[0].squeeze(0), state[1].squeeze(0), self.layer_idx, num_tokens=hidden_states.shape[1]
            )
        return self.dropout(output)

    def _read_positions(
        self,
        hidden_states: torch.Tensor,
        positions: "HfLstmPositions",
        state: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        batch_size, length, _ = hidden_states.shape
        if state is None:
            zeros = hidden_states.new_zeros(2 if self.is_bidirectional else 1, batch_size, self.lstm.hidden_size)
            state = zeros, zeros
        outputs, ends = [], []
        for direction, suffix in enumerate(("", "_reverse") if self.is_bidirectional else ("",)):
            weights = [getattr(self.lstm, f"{name}_l0{suffix}") for name in ("weight_ih", "weight_hh")]
            weights += [getattr(self.lstm, f"{name}_l0{suffix}") for name in ("bias_ih", "bias_hh")]
            output, cell = (part[direction] for part in state)
            read: list[torch.Tensor] = [output] * length
            for position in reversed(range(length)) if suffix else range(length):
                is_token = positions.mask[:, position, None]
                goes_on = ~(positions.ends if suffix else positions.begins)[:, position, None]
                new = torch.lstm_cell(hidden_states[:, position], (output * goes_on, cell * goes_on), *weights)
                output, cell = (torch.where(is_token, *pair) for pair in zip(new, (output, cell), strict=True))
                read[position] = output * is_token
            outputs.append(torch.stack(read, 1))
            ends.append((output, cell))
        return torch.cat(outputs, -1), tuple(torch.stack(parts) for parts in zip(*ends, strict=True))

    def _read_segments(
        self,
        hidden_states: torch.Tensor,
        segments: HfLstmSegments,
        state: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        batch_size, length, width = hidden_states.shape
        directions = 2 if self.is_bidirectional else 1
        if state is None:
            zeros = hidden_states.new_zeros(directions, batch_size, self.output_size // directions)
            state = zeros, zeros
        output = hidden_states.new_zeros(batch_size, length, self.output_size)
        if len(segments.lengths) == 0:
            return output, state
        gathered = hidden_states.new_zeros(len(segments.lengths), int(segments.lengths.max()), width)
        gathered[segments.segments, segments.offsets] = hidden_states[segments.rows, segments.columns]
        packed = pack_padded_sequence(gathered, segments.lengths, batch_first=True, enforce_sorted=False)
        is_first = segments.is_first[None, :, None]
        begin = tuple(part[:, segments.row_of_segment] * is_first for part in state)
        packed, end = self.lstm(packed, begin)
        read, _ = pad_packed_sequence(packed, batch_first=True)
        output[segments.rows, segments.columns] = read[segments.segments, segments.offsets].to(output.dtype)
        ended = segments.row_of_segment[segments.is_last]
        state = tuple(
            part.index_copy(1, ended, last[:, segments.is_last].to(part.dtype))
            for part, last in zip(state, end, strict=True)
        )
        return output, state


class HfLstmPreTrainedModel(HfGptPreTrainedModel):
    """What the LSTM and its heads share: initialisation, and what they support."""

    config: HfLstmConfig
    _no_split_modules = ["HfLstmLayer"]
    # A state cannot go back by some tokens, as assisted generation wants it to.
    _is_stateful = True
    _supports_flash_attn = False
    _supports_sdpa = False
    _supports_flex_attn = False
    _supports_attention_backend = False
    _can_compile_fullgraph = False
    _can_record_outputs = {"hidden_states": HfLstmLayer}

    def _build_base_model(self, config: HfLstmConfig) -> PreTrainedModel:
        return HfLstmModel(config)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        is_head = module is getattr(self, "lm_head", None)
        if isinstance(module, nn.Linear) and not is_head and self.config.lstm_init == "uniform":
            std = min(self.config.initializer_range, module.in_features**-0.5)
            init.normal_(module.weight, mean=0.0, std=std)
        if not isinstance(module, nn.LSTM):
            return
        bound = 1 / math.sqrt(module.hidden_size)
        for name, parameter in module.named_parameters():
            if self.config.lstm_init == "normal":
                init.normal_(parameter, mean=0.0, std=self.config.initializer_range)
            elif name.startswith("weight"):
                init.uniform_(parameter, -bound, bound)
            else:
                # Gates in PyTorch's order: input, forget, cell, output. Each has two biases, which add up.
                forget = 1.0 if name.startswith("bias_ih") else 0.0
                gates = [0.0, forget, 0.0, 0.0]
                init.copy_(parameter, torch.tensor(gates).repeat_interleave(module.hidden_size))


class HfLstmModel(HfLstmPreTrainedModel):
    """The LSTM without a head: token ids to hidden states."""

    _auto_class = "AutoModel"

    def __init__(self, config: HfLstmConfig):
        super().__init__(config)
        # Fields may have been set one by one since they were checked together.
        config.validate_architecture()
        self.padding_idx = config.pad_token_id
        self.vocab_size = config.vocab_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList([HfLstmLayer(config, i) for i in range(config.num_hidden_layers)])
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Tokens; or give `inputs_embeds`.
            attention_mask (`torch.Tensor` of shape `(batch_size, past_length + sequence_length)`, *optional*):
                0 at padding, wherever it lies: it leaves the state as it is.
            position_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Read where there is neither mask nor cache: where they start again at 0 the next packed document begins,
                from an empty state.
            past_key_values (`Cache`, *optional*):
                State after earlier tokens.
            inputs_embeds (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`, *optional*):
                Embeddings in place of `input_ids`.
            use_cache (`bool`, *optional*):
                Whether to return the state.

        Returns:
            [`~transformers.modeling_outputs.BaseModelOutputWithPast`], `last_hidden_state` of shape
            `(batch_size, sequence_length, hidden_size)`.

        Raises:
            ValueError: both or neither of `input_ids` and `inputs_embeds`; a token id outside the vocabulary (on a
                CPU).
        """
        if (input_ids is None) ^ (inputs_embeds is not None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if inputs_embeds is None:
            check_range("input_ids", input_ids, num_tokens(self.embed_tokens, self.config), "vocab_size")
            inputs_embeds = self.embed_tokens(input_ids)
        check_not_empty("input_ids", inputs_embeds, takes_no_rows=True)
        mask, documents = None, None
        if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2:
            mask = attention_mask[:, -inputs_embeds.shape[1] :].to(device=inputs_embeds.device, dtype=torch.bool)
        elif attention_mask is None and past_key_values is None and position_ids is not None:
            documents = document_ids(position_ids.to(inputs_embeds.device))
        is_blind = inputs_embeds.device.type == "meta" or torch.compiler.is_exporting()
        kind = HfLstmPositions if is_blind else HfLstmSegments
        segments = kind.find(mask, documents, tuple(inputs_embeds.shape[:2]))
        # What has been read backwards would change with each token: there is no state to carry.
        if not self.config.is_causal and past_key_values is None:
            use_cache = False
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)

        hidden_states = self.dropout(inputs_embeds)
        for layer in self.layers[: self.config.num_hidden_layers]:
            hidden_states = layer(hidden_states, segments=segments, past_key_values=past_key_values, **kwargs)
        return BaseModelOutputWithPast(
            last_hidden_state=hidden_states, past_key_values=past_key_values if use_cache else None
        )


class HfLstmForCausalLM(HfLstmPreTrainedModel, HfGptForCausalLM):
    """The LSTM with a language-model head: scores of the next token."""

    _pp_plan = None


class HfLstmForSequenceClassification(HfLstmPreTrainedModel, HfGptForSequenceClassification):
    """
    One score or one set of class scores for a sequence. With `num_labels=1` it is the discriminator
    D(x) = sigmoid(W^T f(x) + b): `logits` are W^T f(x) + b, the loss is binary cross-entropy.
    """


class HfLstmForTokenClassification(HfLstmPreTrainedModel, HfGptForTokenClassification):
    """Scores for each token. With `num_labels=1` the score at a token judges the text up to it."""


__all__ = [
    "HfLstmForCausalLM",
    "HfLstmForSequenceClassification",
    "HfLstmForTokenClassification",
    "HfLstmModel",
    "HfLstmPreTrainedModel",
]
