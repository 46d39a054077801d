"""The half of the encoder-decoder that writes: the decoder with layers that look at the source."""

from collections.abc import Callable

import torch
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.output_capturing import OutputRecorder

from .configuration_hf_gpt_seq2seq import HfGptSeq2SeqConfig
from .inputs_hf_gpt import check_not_empty, check_range, document_ids, num_tokens
from .layers_hf_gpt import HfGptAttention, HfGptCrossAttention, HfGptDecoderLayer, build_norm
from .modeling_hf_gpt import HfGptModel


class HfGptSeq2SeqDecoderLayer(HfGptDecoderLayer):
    """A block that looks at the source between its attention and its MLP."""

    def __init__(self, config: HfGptSeq2SeqConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.cross_attn = HfGptCrossAttention(config, layer_idx)
        self.cross_attention_layernorm = build_norm(config)

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        attn_output, _ = self.self_attn(
            self.input_layernorm(hidden_states),
            attention_mask=attention_mask,
            past_key_values=None if past_key_values is None else past_key_values.self_attention_cache,
            position_embeddings=position_embeddings,
            **kwargs,
        )
        hidden_states = hidden_states + self.dropout(attn_output)
        # Said of the attention to itself; every token sees the whole source.
        kwargs.pop("is_causal", None)
        attn_output, _ = self.cross_attn(
            self.cross_attention_layernorm(hidden_states),
            encoder_hidden_states,
            attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            **kwargs,
        )
        hidden_states = hidden_states + self.dropout(attn_output)
        return hidden_states + self.dropout(self.mlp(self.post_attention_layernorm(hidden_states)))


class HfGptSeq2SeqDecoder(HfGptModel):
    """The decoder with layers that look at the source."""

    config: HfGptSeq2SeqConfig
    _layer_class = HfGptSeq2SeqDecoderLayer
    _no_split_modules = ["HfGptSeq2SeqDecoderLayer"]
    _can_record_outputs = {
        "hidden_states": HfGptSeq2SeqDecoderLayer,
        "attentions": OutputRecorder(HfGptAttention, index=1, layer_name="self_attn"),
        "cross_attentions": OutputRecorder(HfGptCrossAttention, index=1),
    }

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        encoder_position_ids: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        r"""
        As [`HfGptModel`], with:

        Args:
            encoder_hidden_states (`torch.Tensor` of shape `(batch_size, source_length, hidden_size)`):
                What the encoder made of the source.
            encoder_attention_mask (`torch.Tensor`, *optional*):
                `(batch_size, source_length)` with 0 at padding, or a ready 4D mask.
            encoder_position_ids (`torch.LongTensor` of shape `(batch_size, source_length)`, *optional*):
                Positions of the source; where they start again, the next document's source begins.
        """
        if (input_ids is None) ^ (inputs_embeds is not None):
            raise ValueError("You must specify exactly one of decoder_input_ids or decoder_inputs_embeds")
        if inputs_embeds is None:
            check_range("decoder_input_ids", input_ids, num_tokens(self.embed_tokens, self.config), "vocab_size")
            inputs_embeds = self.embed_tokens(input_ids)
        check_not_empty("decoder_input_ids", inputs_embeds)
        if past_key_values is not None and not isinstance(past_key_values, EncoderDecoderCache):
            past_key_values = EncoderDecoderCache(past_key_values, DynamicCache())
        same_document = None
        if inputs_embeds.device.type == "meta":
            # There is nothing to read in tensors that have shapes alone.
            encoder_attention_mask = None
        elif attention_mask is None and encoder_attention_mask is None and past_key_values is None:
            same_document = _same_document_function(
                position_ids, encoder_position_ids, inputs_embeds, encoder_hidden_states
            )
        cross_mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=encoder_attention_mask,
            encoder_hidden_states=encoder_hidden_states,
            and_mask_function=same_document,
        )
        return super().forward(
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=cross_mask,
            **kwargs,
        )

    def _new_cache(self) -> EncoderDecoderCache:
        # The cache of the source gets no configuration, by which it might forget what a sliding window has passed.
        return EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache())


def _same_document_function(
    position_ids: torch.LongTensor | None,
    encoder_position_ids: torch.LongTensor | None,
    inputs_embeds: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
) -> Callable | None:
    """Mask function of packed pairs, the n-th target with the n-th source of a row; None if there is one pair only."""
    sides = []
    for ids, states in ((position_ids, inputs_embeds), (encoder_position_ids, encoder_hidden_states)):
        documents = torch.zeros_like(states[..., 0], dtype=torch.long) if ids is None else document_ids(ids)
        sides.append(documents.expand(states.shape[0], -1))
    targets, sources = sides
    if not torch.compiler.is_compiling():
        if not targets.any() and not sources.any():
            return None
        if not torch.equal(targets[:, -1].to(sources.device), sources[:, -1]):
            raise ValueError(
                f"The rows hold {(sources[:, -1] + 1).tolist()} packed sources and {(targets[:, -1] + 1).tolist()} "
                "targets: position_ids and decoder_position_ids must start again equally often."
            )
    elif position_ids is None and encoder_position_ids is None:
        return None

    def same_document(batch_idx, head_idx, q_idx, kv_idx):
        return targets[batch_idx, q_idx] == sources[batch_idx, kv_idx]

    return same_document


__all__ = ["HfGptSeq2SeqDecoder", "HfGptSeq2SeqDecoderLayer"]
