"""The HfGpt decoder and its heads: language model, sequence score (the discriminator), token score, answer span."""

import math
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutputWithPast,
    TokenClassifierOutput,
)
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .checkpoint_hf_gpt import HfGptCheckpointMixin
from .configuration_hf_gpt import HfGptConfig
from .inputs_hf_gpt import (
    check_not_empty,
    check_range,
    count_tokens,
    create_masks,
    default_position_ids,
    num_tokens,
)
from .language_head_hf_gpt import HfGptLanguageHeadMixin
from .last_token_hf_gpt import at_positions, can_query_positions, mask_at_positions, positions_to_pool
from .layers_hf_gpt import HfGptAttention, HfGptDecoderLayer, HfGptRotaryEmbedding, build_norm
from .loss_hf_gpt import are_values, classification_loss, question_answering_loss
from .pooling_hf_gpt import HfGptPooler, HfGptSpectralLinear
from .sequence_head_hf_gpt import HfGptSequenceHeadMixin


# One architecture with switches, on purpose: ARCHITECTURE.md says which model family sets which.
# trf-ignore: TRF041 config.position_embedding_type, config.output_projection_init, config.is_causal
# trf-ignore: TRF041 config.classifier_spectral_norm, config.classifier_hidden_size, config.classifier_pooling


class HfGptPreTrainedModel(HfGptCheckpointMixin, PreTrainedModel):
    """What all HfGpt models share: initialisation, and what they support."""

    config: HfGptConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["HfGptDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True
    _supports_attention_backend = True
    _can_record_outputs = {
        "hidden_states": HfGptDecoderLayer,
        "attentions": HfGptAttention,
    }

    def _build_base_model(self, config: HfGptConfig) -> PreTrainedModel:
        return HfGptModel(config)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        # The library passes over modules of third-party code that hold no parameter of their own, such as a whole
        # attention: what is special is marked on the layer itself.
        if getattr(module, "writes_to_residual_stream", False):
            if self.config.output_projection_init == "zeros":
                init.zeros_(module.weight)
            elif self.config.output_projection_init == "scaled":
                std = self.config.initializer_range / math.sqrt(2 * self.config.num_hidden_layers)
                init.normal_(module.weight, mean=0.0, std=std)
        elif isinstance(module, HfGptSpectralLinear):
            init.constant_(module.left_vector, module.out_features**-0.5)
        elif isinstance(module, HfGptPooler) and module.pooling == "attention":
            init.zeros_(module.query)


class HfGptModel(HfGptPreTrainedModel):
    """The decoder without a head: token ids to hidden states."""

    _auto_class = "AutoModel"
    _layer_class = HfGptDecoderLayer

    def __init__(self, config: HfGptConfig):
        super().__init__(config)
        # Fields may have been set one by one since they were checked together.
        config.validate_architecture()
        self.padding_idx = config.pad_token_id
        self.vocab_size = config.vocab_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        if config.position_embedding_type == "learned":
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        elif config.position_embedding_type == "rope":
            self.rotary_emb = HfGptRotaryEmbedding(config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList([self._layer_class(config, i) for i in range(config.num_hidden_layers)])
        self.norm = build_norm(config)
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
        query_positions: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Tokens; or give `inputs_embeds`.
            attention_mask (`torch.Tensor`, *optional*):
                `(batch_size, past_length + sequence_length)` with 0 at padding, or a ready 4D mask, or a dictionary of
                such masks by layer type.
            position_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Positions. Where they start again at 0 and there is neither mask nor cache, a new document begins, which
                sees nothing of the one before it.
            past_key_values (`Cache`, *optional*):
                Keys and values of earlier tokens.
            inputs_embeds (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`, *optional*):
                Embeddings in place of `input_ids`.
            use_cache (`bool`, *optional*):
                Whether to return the cache.
            query_positions (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
                The one position of each row that is asked for: `last_hidden_state` has shape
                `(batch_size, 1, hidden_size)`. Where it can, the last layer computes no other.

        Raises:
            ValueError: both or neither of `input_ids` and `inputs_embeds`; a token id outside the vocabulary or a
                position beyond learned ones (on a CPU; elsewhere the check would wait for the device).
        """
        if (input_ids is None) ^ (inputs_embeds is not None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if inputs_embeds is None:
            check_range("input_ids", input_ids, num_tokens(self.embed_tokens, self.config), "vocab_size")
            inputs_embeds = self.embed_tokens(input_ids)
        check_not_empty("input_ids", inputs_embeds)
        # Earlier tokens of a bidirectional model would need the later ones: there is nothing to cache.
        if not self.config.is_causal and past_key_values is None:
            use_cache = False
        if position_ids is None:
            position_ids = default_position_ids(self.config, inputs_embeds, attention_mask, past_key_values)
        if not isinstance(mask_mapping := attention_mask, dict):
            mask_mapping = create_masks(self.config, inputs_embeds, attention_mask, past_key_values, position_ids)
        # After the masks: with a cache, even an empty one, the library no longer sees packed documents.
        if use_cache and past_key_values is None:
            past_key_values = self._new_cache()

        hidden_states, position_embeddings = self._embed_positions(inputs_embeds, position_ids)
        masks = [mask_mapping[kind] for kind in self.config.layer_types[: self.config.num_hidden_layers]]
        asked = query_positions is not None and can_query_positions(self, masks[-1])
        if asked:
            masks[-1] = mask_at_positions(self.config, masks[-1], query_positions, hidden_states, past_key_values)
        hidden_states = self._run_layers(
            hidden_states,
            masks,
            query_positions if asked else None,
            position_embeddings=position_embeddings,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_states = self.norm(hidden_states)
        if query_positions is not None and not asked:
            hidden_states = at_positions(hidden_states, query_positions)
        return BaseModelOutputWithPast(
            last_hidden_state=hidden_states, past_key_values=past_key_values if use_cache else None
        )

    def _embed_positions(
        self, inputs_embeds: torch.Tensor, position_ids: torch.LongTensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
        """What the first layer reads, and the cosines and sines of RoPE."""
        hidden_states, position_embeddings = inputs_embeds, None
        # A later stage of a pipeline goes on from hidden states, which it is given as embeddings. Layers of other
        # stages are identities, in the library as in vLLM.
        begins = not isinstance(self.layers[0], nn.Identity)
        if self.config.position_embedding_type == "learned" and begins:
            check_range("position_ids", position_ids, self.config.max_position_embeddings, "max_position_embeddings")
            hidden_states = hidden_states + self.embed_positions(position_ids.to(inputs_embeds.device))
        elif self.config.position_embedding_type == "rope":
            position_embeddings = self.rotary_emb(hidden_states, position_ids)
        return self.dropout(hidden_states) if begins else hidden_states, position_embeddings

    def _run_layers(
        self,
        hidden_states: torch.Tensor,
        masks: list[torch.Tensor | None],
        last_positions: torch.LongTensor | None,
        *,
        past_key_values: Cache | None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The output of the last layer, at `last_positions` alone if there are any."""
        # By position: reentrant checkpointing gives gradients to nothing else.
        layer_inputs = [kwargs.pop("encoder_hidden_states")] if "encoder_hidden_states" in kwargs else []
        for i, decoder_layer in enumerate(self.layers[: self.config.num_hidden_layers]):
            if isinstance(decoder_layer, nn.Identity):
                count_tokens(past_key_values, i, hidden_states)
                continue
            if last_positions is not None and i == len(masks) - 1:
                kwargs["query_positions"] = last_positions
            hidden_states = decoder_layer(
                hidden_states, *layer_inputs, attention_mask=masks[i], past_key_values=past_key_values, **kwargs
            )
        return hidden_states

    def _new_cache(self) -> Cache:
        return DynamicCache(config=self.config)


class HfGptForCausalLM(HfGptLanguageHeadMixin, HfGptPreTrainedModel, GenerationMixin):
    """The decoder with a language-model head: scores of the next token."""

    _auto_class = "AutoModelForCausalLM"
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"lm_head": (["hidden_states"], ["logits"])}
    _fsdp_plan = {"lm_head": "keep_full_weight"}

    def __init__(self, config: HfGptConfig):
        super().__init__(config)
        if not config.is_causal:
            raise ValueError(
                "is_causal=False lets each token see the ones it should predict: use the sequence, token or question "
                "answering head, or is_causal=True."
            )
        self.model = self._build_base_model(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        skip_logits: bool | str | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        r"""
        Args:
            labels (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Tokens to predict, aligned with `input_ids` (they are shifted here); -100 does not count.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to 0):
                Number of last positions that get logits (0: all), or the positions (1D; 2D for each row), or a 2D
                boolean mask of them.
            skip_logits (`bool` or `"auto"`, *optional*):
                Return the loss without computing all logits at once; `"auto"`: where they would be large. Left out:
                in training with `config.chunked_loss="always"`.

        Returns:
            [`~transformers.modeling_outputs.CausalLMOutputWithPast`], `logits` of shape
            `(batch_size, sequence_length, vocab_size)` or None when they were skipped.
        """
        outputs: BaseModelOutputWithPast = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        loss, logits = self._loss_and_logits(
            outputs.last_hidden_state, labels, logits_to_keep=logits_to_keep, skip_logits=skip_logits, **kwargs
        )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class HfGptForSequenceClassification(HfGptSequenceHeadMixin, HfGptPreTrainedModel):
    """
    One score or one set of class scores for a sequence. With `num_labels=1` it is the discriminator
    D(x) = sigmoid(W^T f(x) + b): `logits` are W^T f(x) + b, the loss is binary cross-entropy.
    """

    _auto_class = "AutoModelForSequenceClassification"

    def __init__(self, config: HfGptConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = self._build_base_model(config)
        self.pooler = HfGptPooler(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        linear = HfGptSpectralLinear if config.classifier_spectral_norm else nn.Linear
        features = config.hidden_size
        if config.classifier_hidden_size is not None:
            self.dense = linear(features, config.classifier_hidden_size)
            self.act_fn = ACT2FN[config.classifier_hidden_act]
            features = config.classifier_hidden_size
        self.score = linear(features, config.num_labels, bias=config.classifier_bias)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutputWithPast:
        r"""
        Args:
            labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`, *optional*):
                One label: 1 (real) to 0 (generated); other values make it a regression, in the config too. Several
                labels: class ids. See [`~loss_hf_gpt.classification_loss`].

        Returns:
            [`~transformers.modeling_outputs.SequenceClassifierOutputWithPast`], `logits` of shape
            `(batch_size, num_labels)`.
        """
        positions = None
        # Others than our own decoder take no such argument.
        if self.config.classifier_pooling == "last" and isinstance(self.model, HfGptModel):
            positions = positions_to_pool(self, input_ids, attention_mask, inputs_embeds, **kwargs)
            if positions is not None:
                kwargs["query_positions"] = positions
        outputs: BaseModelOutputWithPast = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        pooled = self._pool(hidden_states, input_ids, attention_mask) if positions is None else hidden_states[:, 0]
        logits = self._score(pooled)
        loss = None
        if labels is not None:
            if self.config.problem_type is None and self.num_labels == 1 and are_values(labels):
                # As the library's own heads do, so that a value is regressed from here on and after reloading.
                self.config.problem_type = "regression"
            num_items = kwargs.get("num_items_in_batch")
            loss = classification_loss(logits, labels, self.config.problem_type, num_items_in_batch=num_items)
        return SequenceClassifierOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class HfGptForTokenClassification(HfGptPreTrainedModel):
    """Scores for each token. With `num_labels=1` the score at a token judges the text up to it."""

    _auto_class = "AutoModelForTokenClassification"

    def __init__(self, config: HfGptConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = self._build_base_model(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=config.classifier_bias)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TokenClassifierOutput:
        r"""
        Args:
            labels (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                Class ids, or with one label targets in [0, 1]; -100 does not count.

        Returns:
            [`~transformers.modeling_outputs.TokenClassifierOutput`], `logits` of shape
            `(batch_size, sequence_length, num_labels)`.
        """
        outputs: BaseModelOutputWithPast = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        logits = self.score(self.dropout(outputs.last_hidden_state))
        loss = None
        if labels is not None:
            num_items = kwargs.get("num_items_in_batch")
            loss = classification_loss(logits, labels, self.config.problem_type, num_items_in_batch=num_items)
        return TokenClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class HfGptForQuestionAnswering(HfGptPreTrainedModel):
    """Scores of where an answer starts and ends in the text."""

    _auto_class = "AutoModelForQuestionAnswering"

    def __init__(self, config: HfGptConfig):
        super().__init__(config)
        self.model = self._build_base_model(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        start_positions: torch.LongTensor | None = None,
        end_positions: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> QuestionAnsweringModelOutput:
        r"""
        Args:
            start_positions, end_positions (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
                First and last token of the answer; a position past the input does not count.

        Returns:
            [`~transformers.modeling_outputs.QuestionAnsweringModelOutput`], both logits of shape
            `(batch_size, sequence_length)`.
        """
        outputs: BaseModelOutputWithPast = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        start_logits, end_logits = self.qa_outputs(outputs.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            if hasattr(self, "_loss_function"):
                loss = self.loss_function(start_logits, end_logits, start_positions, end_positions, **kwargs)
            else:
                loss = question_answering_loss(
                    start_logits, end_logits, start_positions, end_positions, attention_mask, **kwargs
                )
        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits.contiguous(),
            end_logits=end_logits.contiguous(),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


__all__ = [
    "HfGptForCausalLM",
    "HfGptForQuestionAnswering",
    "HfGptForSequenceClassification",
    "HfGptForTokenClassification",
    "HfGptModel",
    "HfGptPreTrainedModel",
]
