"""
The n-gram CNN (https://arxiv.org/abs/1408.5882) and its score, the discriminator of SeqGAN
(https://arxiv.org/abs/1609.05473): fast to train on little data, blind to what lies further apart than its widest
filter.
"""

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .checkpoint_hf_gpt import HfGptCheckpointMixin
from .configuration_hf_ngram_cnn import HfNgramCnnConfig
from .inputs_hf_gpt import check_not_empty
from .loss_hf_gpt import classification_loss
from .pooling_hf_gpt import HfGptSpectralLinear, token_mask
from .sequence_head_hf_gpt import HfGptSequenceHeadMixin


# A switch of the discriminator, on purpose: spectral normalisation is an option of its training.
# trf-ignore: TRF041 config.classifier_spectral_norm


class HfNgramCnnConvolutions(GradientCheckpointingLayer):
    """Filters of several widths side by side, with one window for each token."""

    def __init__(self, config: HfNgramCnnConfig):
        super().__init__()
        self.is_causal = config.is_causal
        # Not read off the filters: what an adapter wraps them in may not tell.
        self.kernel_sizes = config.kernel_sizes
        self.filters = nn.ModuleList(
            nn.Conv1d(config.embedding_size, number, width)
            for width, number in zip(config.kernel_sizes, config.num_filters, strict=True)
        )
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, sequence_length, embedding_size)`):
                Embeddings, zero at padding.

        Returns:
            `torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`.
        """
        channels = hidden_states.transpose(1, 2)
        outputs = []
        for convolution, width in zip(self.filters, self.kernel_sizes, strict=True):
            reach = width - 1
            before = reach if self.is_causal else reach // 2
            outputs.append(convolution(nn.functional.pad(channels, (before, reach - before))))
        return self.act_fn(torch.cat(outputs, dim=1)).transpose(1, 2)


class HfNgramCnnPooler(nn.Module):
    """f(x): each filter's largest or mean value over the tokens of a text."""

    def __init__(self, config: HfNgramCnnConfig):
        super().__init__()
        self.pooling = config.classifier_pooling

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor, of_prefixes: bool = False) -> torch.Tensor:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`):
                Values of the filters.
            mask (`torch.BoolTensor` of shape `(batch_size, sequence_length)`):
                True at tokens, False at padding.
            of_prefixes (`bool`, *optional*, defaults to `False`):
                As `forward_prefixes`, which whatever wraps this module may not have.

        Returns:
            `torch.Tensor` of shape `(batch_size, hidden_size)`, 0 for a text without tokens.
        """
        if of_prefixes:
            return self.forward_prefixes(hidden_states, mask)
        mask = mask[..., None]
        if self.pooling == "mean":
            return (hidden_states * mask).sum(1) / mask.sum(1).clamp(min=1)
        largest = hidden_states.masked_fill(~mask, torch.finfo(hidden_states.dtype).min).amax(1)
        return largest * mask.any(1)

    def forward_prefixes(self, hidden_states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """f of every prefix, of shape `(batch_size, sequence_length, hidden_size)`: running maximum or mean."""
        mask = mask[..., None]
        counts = mask.long().cumsum(1)
        if self.pooling == "mean":
            return ((hidden_states * mask).float().cumsum(1) / counts.clamp(min=1)).to(hidden_states.dtype)
        largest = hidden_states.masked_fill(~mask, torch.finfo(hidden_states.dtype).min).cummax(1).values
        return largest * (counts > 0)


class HfNgramCnnHighway(nn.Module):
    """`g * relu(W x) + (1 - g) * x` with the gate `g = sigmoid(V x)` (https://arxiv.org/abs/1505.00387)."""

    def __init__(self, config: HfNgramCnnConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.gate = nn.Linear(config.hidden_size, config.hidden_size)
        self.gate.initial_bias = config.highway_bias
        self.act_fn = nn.ReLU()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        gate = self.gate(hidden_states).sigmoid()
        return gate * self.act_fn(self.dense(hidden_states)) + (1 - gate) * hidden_states


class HfNgramCnnPreTrainedModel(HfGptCheckpointMixin, PreTrainedModel):
    """What the n-gram CNN and its head share: initialisation, and what they support."""

    config: HfNgramCnnConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["HfNgramCnnConvolutions"]
    _can_record_outputs = {"hidden_states": HfNgramCnnConvolutions}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if hasattr(module, "initial_bias"):
            init.constant_(module.bias, module.initial_bias)
        elif isinstance(module, HfGptSpectralLinear):
            init.constant_(module.left_vector, module.out_features**-0.5)


class HfNgramCnnModel(HfNgramCnnPreTrainedModel):
    """Embeddings and convolutions: token ids to the values of the filters at each token."""

    _auto_class = "AutoModel"

    def __init__(self, config: HfNgramCnnConfig):
        super().__init__(config)
        # Fields may have been set one by one since they were checked together.
        config.validate_architecture()
        # Without `padding_idx`: the mask tells padding, and the token may end texts as well.
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.convolutions = HfNgramCnnConvolutions(config)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Tokens; or give `inputs_embeds`.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                0 at padding, on either side. Left out: `config.pad_token_id` tells it, if there is one.
            inputs_embeds (`torch.Tensor` of shape `(batch_size, sequence_length, embedding_size)`, *optional*):
                Embeddings in place of `input_ids`.

        Returns:
            [`~transformers.modeling_outputs.BaseModelOutput`], `last_hidden_state` of shape
            `(batch_size, sequence_length, hidden_size)`.

        Raises:
            ValueError: both or neither of `input_ids` and `inputs_embeds`.
        """
        if (input_ids is None) ^ (inputs_embeds is not None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        check_not_empty("input_ids", inputs_embeds, takes_no_rows=True)
        mask = token_mask(input_ids, attention_mask, inputs_embeds, self.config.pad_token_id)
        # Beyond the text all is zero, as it is beyond the batch.
        hidden_states = self.convolutions(inputs_embeds * mask[..., None])
        return BaseModelOutput(last_hidden_state=hidden_states)


class HfNgramCnnForSequenceClassification(HfGptSequenceHeadMixin, HfNgramCnnPreTrainedModel):
    """
    One score or one set of class scores for a text. With `num_labels=1` it is the discriminator
    D(x) = sigmoid(W^T f(x) + b): `logits` are W^T f(x) + b, the loss is binary cross-entropy.
    """

    _auto_class = "AutoModelForSequenceClassification"

    def __init__(self, config: HfNgramCnnConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = HfNgramCnnModel(config)
        self.pooler = HfNgramCnnPooler(config)
        self.highway = nn.ModuleList([HfNgramCnnHighway(config) for _ in range(config.num_highway_layers)])
        self.dropout = nn.Dropout(config.classifier_dropout)
        linear = HfGptSpectralLinear if config.classifier_spectral_norm else nn.Linear
        self.score = linear(config.hidden_size, config.num_labels, bias=config.classifier_bias)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        r"""
        Args:
            labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`, *optional*):
                For one label 1 (real) or 0 (generated), or anything between; class ids for several; see
                [`~loss_hf_gpt.classification_loss`].

        Returns:
            [`~transformers.modeling_outputs.SequenceClassifierOutput`], `logits` of shape `(batch_size, num_labels)`.
        """
        outputs: BaseModelOutput = self.model(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
        )
        logits = self._score(self._pool(outputs.last_hidden_state, input_ids, attention_mask))
        loss = None
        if labels is not None:
            loss = classification_loss(
                logits, labels, self.config.problem_type, num_items_in_batch=kwargs.get("num_items_in_batch")
            )
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)

    def _score(self, pooled: torch.Tensor) -> torch.Tensor:
        for highway in self.highway:
            pooled = highway(pooled)
        return self.score(self.dropout(pooled))


__all__ = ["HfNgramCnnForSequenceClassification", "HfNgramCnnModel", "HfNgramCnnPreTrainedModel"]
