"""The HfGpt encoder-decoder and its heads: what it writes about a source, and the score of source and target."""

import copy
import os
from typing import Any, Literal

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache, StaticCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPast,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
    Seq2SeqSequenceClassifierOutput,
)
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple

from .configuration_hf_gpt_seq2seq import HfGptSeq2SeqConfig
from .decoder_hf_gpt_seq2seq import HfGptSeq2SeqDecoder
from .language_head_hf_gpt import HfGptLanguageHeadMixin
from .loss_hf_gpt import classification_loss
from .modeling_hf_gpt import (
    HfGptForCausalLM,
    HfGptForSequenceClassification,
    HfGptModel,
    HfGptPreTrainedModel,
)


# trf-ignore: TRF041 config.share_encoder_decoder_embeddings


class HfGptSeq2SeqPreTrainedModel(HfGptPreTrainedModel):
    """What the encoder-decoder and its heads share."""

    config: HfGptSeq2SeqConfig
    _no_split_modules = ["HfGptDecoderLayer", "HfGptSeq2SeqDecoderLayer"]
    # Each half records its own.
    _can_record_outputs = None

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Which weight is which other one, by two switches where the library knows one."""
        if all_submodels:
            return super().get_expanded_tied_weights_keys(all_submodels=True)
        prefix = "" if self.base_model is self else f"{self.base_model_prefix}."
        encoder, decoder = (f"{prefix}{half}.embed_tokens.weight" for half in ("encoder", "decoder"))
        tied = {}
        if self.config.share_encoder_decoder_embeddings:
            tied[decoder] = encoder
        if self.config.tie_word_embeddings and hasattr(self, "lm_head"):
            tied["lm_head.weight"] = tied.get(decoder, decoder)
        return tied

    def get_input_embeddings(self) -> nn.Module:
        return self.base_model.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Module):
        self.base_model.encoder.embed_tokens = value
        if self.config.share_encoder_decoder_embeddings:
            self.base_model.decoder.embed_tokens = value

    def _resize_token_embeddings(self, new_num_tokens: int, *args, **kwargs) -> nn.Embedding:
        if not self.config.share_encoder_decoder_embeddings:
            decoder = self.base_model.decoder
            decoder.embed_tokens = self._get_resized_embeddings(decoder.embed_tokens, new_num_tokens, *args, **kwargs)
        return super()._resize_token_embeddings(new_num_tokens, *args, **kwargs)

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Embedding:
        resized = super().resize_token_embeddings(*args, **kwargs)
        # Each half has a configuration of its own.
        for half in (self.base_model.encoder, self.base_model.decoder):
            half.config.vocab_size = half.vocab_size = self.config.vocab_size
        return resized

    def _build_base_model(self, config: HfGptSeq2SeqConfig) -> PreTrainedModel:
        return HfGptSeq2SeqModel(config)


class HfGptSeq2SeqModel(HfGptSeq2SeqPreTrainedModel):
    """Encoder and decoder without a head: source and target tokens to the target's hidden states."""

    _auto_class = "AutoModel"
    _tied_weights_keys = {"decoder.embed_tokens.weight": "encoder.embed_tokens.weight"}

    def __init__(self, config: HfGptSeq2SeqConfig):
        super().__init__(config)
        self.encoder = HfGptModel(config.of_half(is_decoder=False))
        self.decoder = HfGptSeq2SeqDecoder(config.of_half(is_decoder=True))
        self._tied_weights_keys = self.get_expanded_tied_weights_keys()
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        decoder_position_ids: torch.LongTensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[torch.Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqModelOutput:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, source_length)`, *optional*):
                Tokens of the source; or give `inputs_embeds`, or `encoder_outputs`.
            attention_mask (`torch.Tensor` of shape `(batch_size, source_length)`, *optional*):
                0 at padding of the source.
            position_ids (`torch.LongTensor` of shape `(batch_size, source_length)`, *optional*):
                Positions in the source. Where they start again and there is no mask, the next packed pair begins:
                targets see the source of the same number in their row alone.
            decoder_input_ids (`torch.LongTensor` of shape `(batch_size, target_length)`, *optional*):
                Tokens of the target, after `config.decoder_start_token_id`; or give `decoder_inputs_embeds`.
            decoder_attention_mask, decoder_position_ids (*optional*):
                The same for the target.
            encoder_outputs (`tuple` or `ModelOutput`, *optional*):
                What the encoder made of the source, if it has read it before.
            past_key_values (`EncoderDecoderCache`, *optional*):
                Keys and values of earlier target tokens, and of the source.

        Returns:
            [`~transformers.modeling_outputs.Seq2SeqModelOutput`], `last_hidden_state` of shape
            `(batch_size, target_length, hidden_size)`.
        """
        # Each half has a configuration of its own, and what is set later is set in the whole model's.
        if use_cache is None:
            use_cache = self.config.use_cache
        for name in ("output_hidden_states", "output_attentions"):
            if kwargs.get(name) is None:
                kwargs[name] = getattr(self.config, name)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                inputs_embeds=inputs_embeds,
                **kwargs,
            )
        elif not isinstance(encoder_outputs, BaseModelOutput | BaseModelOutputWithPast):
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        decoder_outputs = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            position_ids=decoder_position_ids,
            past_key_values=past_key_values,
            inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            encoder_attention_mask=attention_mask,
            encoder_position_ids=position_ids,
            **kwargs,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=decoder_outputs.last_hidden_state,
            past_key_values=decoder_outputs.past_key_values,
            decoder_hidden_states=decoder_outputs.hidden_states,
            decoder_attentions=decoder_outputs.attentions,
            cross_attentions=decoder_outputs.get("cross_attentions"),
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )


def shift_tokens_right(
    labels: torch.LongTensor,
    decoder_start_token_id: int,
    pad_token_id: int | None = None,
    position_ids: torch.LongTensor | None = None,
) -> torch.LongTensor:
    """
    Inputs of the decoder that should write `labels`.

    Args:
        labels (`torch.LongTensor` of shape `(batch_size, target_length)`):
            Tokens to write; -100 becomes padding.
        decoder_start_token_id (`int`):
            Comes first.
        pad_token_id (`int`, *optional*):
            Stands where labels do not count. Left out: the start token does.
        position_ids (`torch.LongTensor` of shape `(batch_size, target_length)`, *optional*):
            Of packed targets, each of which starts anew at position 0.
    """
    shifted = labels.roll(1, dims=-1)
    shifted[:, 0] = decoder_start_token_id
    if position_ids is not None:
        shifted = shifted.masked_fill(position_ids == 0, decoder_start_token_id)
    return shifted.masked_fill(shifted == -100, decoder_start_token_id if pad_token_id is None else pad_token_id)


class HfGptForConditionalGeneration(HfGptLanguageHeadMixin, HfGptSeq2SeqPreTrainedModel, GenerationMixin):
    """The encoder-decoder with a language-model head: scores of the target's next token."""

    _auto_class = "AutoModelForSeq2SeqLM"
    _tied_weights_keys = {
        "model.decoder.embed_tokens.weight": "model.encoder.embed_tokens.weight",
        "lm_head.weight": "model.encoder.embed_tokens.weight",
    }
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _fsdp_plan = {"lm_head": "keep_full_weight"}

    def __init__(self, config: HfGptSeq2SeqConfig):
        super().__init__(config)
        self.model = self._build_base_model(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._tied_weights_keys = self.get_expanded_tied_weights_keys()
        self.post_init()

    @classmethod
    def from_decoder(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *,
        cross_attention_init: Literal["self_attention", "fresh"] = "self_attention",
        config_overrides: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> "HfGptForConditionalGeneration":
        """
        An encoder-decoder whose halves both begin as a trained decoder, as in T5Gemma
        (https://arxiv.org/abs/2504.06225): the encoder with the same weights sees the whole source.

        Args:
            pretrained_model_name_or_path (`str`):
                Checkpoint of a decoder, [`HfGptForCausalLM`].
            cross_attention_init (`str`, *optional*, defaults to `"self_attention"`):
                Initial weights of cross-attention: those of self-attention, or `"fresh"` random ones.
            config_overrides (`dict`, *optional*):
                Fields of [`HfGptSeq2SeqConfig`] that differ from the decoder's; with fewer `encoder_layers` the first
                ones are taken.
            kwargs:
                As for [`~transformers.PreTrainedModel.from_pretrained`].

        Raises:
            ValueError: the checkpoint is none of a decoder, or a layer that was asked for is not in it.
        """
        if cross_attention_init not in ("self_attention", "fresh"):
            raise ValueError(f"cross_attention_init={cross_attention_init!r} must be 'self_attention' or 'fresh'.")
        decoder = HfGptForCausalLM.from_pretrained(pretrained_model_name_or_path, **kwargs)
        fields = decoder.config.to_dict()
        for name in ("model_type", "architectures", "auto_map", "is_encoder_decoder", "transformers_version"):
            fields.pop(name, None)
        overrides = {"share_encoder_decoder_embeddings": True, **(config_overrides or {})}
        config = HfGptSeq2SeqConfig(**{**fields, **overrides})
        config._attn_implementation = decoder.config._attn_implementation
        model = cls(config).to(device=decoder.device, dtype=decoder.dtype)
        weights = decoder.model.state_dict()
        for half in (model.model.encoder, model.model.decoder):
            own = half.state_dict()
            begun = {name: weights[name] for name in own if name in weights}
            if cross_attention_init == "self_attention":
                for name in own:
                    source = name.replace(".cross_attn.", ".self_attn.")
                    source = source.replace(".cross_attention_layernorm.", ".input_layernorm.")
                    if name not in begun and source in weights:
                        begun[name] = weights[source]
            missing = [name for name in own if name not in begun and ".cross_att" not in name]
            if missing:
                raise ValueError(
                    f"{pretrained_model_name_or_path} holds no {missing[0]}: config_overrides may shorten the decoder "
                    "or its copy, but not lengthen or widen them."
                )
            half.load_state_dict(begun, strict=False)
        model.lm_head.load_state_dict(decoder.lm_head.state_dict())
        model.tie_weights()
        return model.eval()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        decoder_position_ids: torch.LongTensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[torch.Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        skip_logits: bool | str | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqLMOutput:
        r"""
        Args:
            labels (`torch.LongTensor` of shape `(batch_size, target_length)`, *optional*):
                Tokens to write; -100 does not count. Without `decoder_input_ids` the decoder reads them shifted by one.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to 0):
                Number of last positions that get logits (0: all), or the positions, or a mask of them.
            skip_logits (`bool` or `"auto"`, *optional*):
                Return the loss alone, without ever holding the logits of all tokens; `"auto"`: where they would be
                large. Left out: only in training, and only where `config.chunked_loss` is `"always"`.

        Returns:
            [`~transformers.modeling_outputs.Seq2SeqLMOutput`], `logits` of shape
            `(batch_size, target_length, vocab_size)` or None when they were skipped.
        """
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self._shift_right(labels, decoder_position_ids)
            use_cache = False if use_cache is None else use_cache
        outputs: Seq2SeqModelOutput = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            decoder_position_ids=decoder_position_ids,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        # The target is shifted where it is read, so each position's label is its own.
        kwargs.setdefault("shift_labels", labels)
        loss, logits = self._loss_and_logits(
            outputs.last_hidden_state, labels, logits_to_keep=logits_to_keep, skip_logits=skip_logits, **kwargs
        )
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            decoder_hidden_states=outputs.decoder_hidden_states,
            decoder_attentions=outputs.decoder_attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            encoder_hidden_states=outputs.encoder_hidden_states,
            encoder_attentions=outputs.encoder_attentions,
        )

    def prepare_decoder_input_ids_from_labels(self, labels: torch.LongTensor) -> torch.LongTensor:
        """What the decoder reads to write `labels`; [`~transformers.DataCollatorForSeq2Seq`] asks for it."""
        return self._shift_right(labels)

    def _shift_right(self, labels: torch.LongTensor, position_ids: torch.LongTensor | None = None) -> torch.LongTensor:
        start = self.config.decoder_start_token_id
        if start is None:
            raise ValueError(
                "config.decoder_start_token_id=None: set it, so that the decoder has a token to start from."
            )
        return shift_tokens_right(labels, start, self.config.pad_token_id, position_ids)

    def _prepare_cache_for_generation(self, generation_config, model_kwargs: dict, *args, **kwargs) -> None:
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)
        # The library makes the source's cache like the target's; a sliding one would lose the start of the source.
        cache = model_kwargs.get("past_key_values")
        if not isinstance(cache, EncoderDecoderCache) or not any(cache.cross_attention_cache.is_sliding):
            return
        if isinstance(cache.cross_attention_cache, StaticCache):
            config = copy.deepcopy(self.config.get_text_config(decoder=True))
            config.sliding_window = None
            config.layer_types = ["full_attention"] * config.num_hidden_layers
            length = model_kwargs["encoder_outputs"][0].shape[1]
            cache.cross_attention_cache = StaticCache(config=config, max_cache_len=length)
        else:
            cache.cross_attention_cache = DynamicCache()


class HfGptSeq2SeqForSequenceClassification(HfGptSeq2SeqPreTrainedModel, HfGptForSequenceClassification):
    """
    One score or one set of class scores for a source and a target. With `num_labels=1` it is the discriminator
    D(x, y) = sigmoid(W^T f(x, y) + b) of what was written about a source. Without a target the source is read as one
    too, as BART does.
    """

    _auto_class = "AutoModelForSequenceClassification"

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[torch.Tensor, ...] | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqSequenceClassifierOutput:
        r"""
        Args:
            decoder_input_ids (`torch.LongTensor` of shape `(batch_size, target_length)`, *optional*):
                Tokens of the target. Left out: the source.
            labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`, *optional*):
                For one label 1 (real) or 0 (generated), or anything between; class ids for several; see
                [`~loss_hf_gpt.classification_loss`].

        Returns:
            [`~transformers.modeling_outputs.Seq2SeqSequenceClassifierOutput`], `logits` of shape
            `(batch_size, num_labels)`.
        """
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids, decoder_inputs_embeds = input_ids, inputs_embeds
            decoder_attention_mask = attention_mask
        outputs: Seq2SeqModelOutput = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        logits = self._score(self._pool(hidden_states, decoder_input_ids, decoder_attention_mask))
        loss = None
        if labels is not None:
            loss = classification_loss(
                logits, labels, self.config.problem_type, num_items_in_batch=kwargs.get("num_items_in_batch")
            )
        return Seq2SeqSequenceClassifierOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            decoder_hidden_states=outputs.decoder_hidden_states,
            decoder_attentions=outputs.decoder_attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            encoder_hidden_states=outputs.encoder_hidden_states,
            encoder_attentions=outputs.encoder_attentions,
        )

    def prefix_logits(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        The score of every prefix of the target in one pass, of shape `(batch_size, target_length, num_labels)`.

        Raises:
            ValueError: there is no target; the source has no prefix of its own, for the encoder sees all of it.
        """
        if decoder_input_ids is None:
            raise ValueError("decoder_input_ids: give the target, whose prefixes are scored; a source has none.")
        hidden_states = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            use_cache=False,
        ).last_hidden_state
        return self._score(self._pool(hidden_states, decoder_input_ids, decoder_attention_mask, of_prefixes=True))


__all__ = [
    "HfGptForConditionalGeneration",
    "HfGptSeq2SeqForSequenceClassification",
    "HfGptSeq2SeqModel",
    "HfGptSeq2SeqPreTrainedModel",
]
