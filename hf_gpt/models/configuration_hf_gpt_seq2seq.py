"""Configuration of the HfGpt encoder-decoder: the fields of the decoder, and what the encoder has of its own."""

import copy
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from .configuration_hf_gpt import MOST_LAYERS, HfGptConfig, _require


def _plan_of_both_halves(plan: dict[str, str]) -> dict[str, str]:
    halves = {f"{half}.{name}": style for half in ("encoder", "decoder") for name, style in plan.items()}
    crossing = {
        f"decoder.{name.replace('self_attn', 'cross_attn')}": style
        for name, style in plan.items()
        if ".self_attn." in name
    }
    return halves | crossing


@strict
class HfGptSeq2SeqConfig(HfGptConfig):
    r"""
    Configuration of [`HfGptSeq2SeqModel`] and its heads. The fields of [`HfGptConfig`] describe the decoder and, but
    for its number of layers and their types, the encoder too. A preset such as `"nano"` has that many layers in each
    half.

    Args:
        encoder_layers (`int`, *optional*):
            Number of blocks of the encoder. Left out: `num_hidden_layers`, which is that of the decoder
            (`decoder_layers` is an alias).
        encoder_layer_types (`list[str]`, *optional*):
            As `layer_types`, for the encoder. Left out: all full, or all sliding when `sliding_window` is set. The
            decoder's attention to the encoder is always full.
        share_encoder_decoder_embeddings (`bool`, *optional*, defaults to `True`):
            One embedding matrix for source and target; `tie_word_embeddings` says whether the head is the target's.
        decoder_start_token_id (`int`, *optional*):
            Token that the decoder starts from. Left out: `bos_token_id`, else the end token, else the padding token.

    Example:

    ```python
    >>> from hf_gpt import HfGptSeq2SeqConfig

    >>> config = HfGptSeq2SeqConfig.preset("nano", vocab_size=1024, encoder_layers=2, bos_token_id=1)
    ```
    """

    model_type = "hf_gpt_seq2seq"
    attribute_map = HfGptConfig.attribute_map | {"decoder_layers": "num_hidden_layers"}
    base_model_tp_plan = _plan_of_both_halves({"embed_tokens": "embedding_rowwise", **HfGptConfig.base_model_tp_plan})
    base_model_pp_plan = {}
    base_model_fsdp_plan = {
        f"{half}.{name}": style
        for half in ("encoder", "decoder")
        for name, style in (
            ("embed_tokens", "free_full_weight"),
            ("layers.*", "free_full_weight"),
            ("norm", "keep_full_weight"),
        )
    }
    code_map: ClassVar[dict[str, str]] = {
        "AutoConfig": "configuration_hf_gpt_seq2seq.HfGptSeq2SeqConfig",
        "AutoModel": "modeling_hf_gpt_seq2seq.HfGptSeq2SeqModel",
        "AutoModelForSeq2SeqLM": "modeling_hf_gpt_seq2seq.HfGptForConditionalGeneration",
        "AutoModelForSequenceClassification": "modeling_hf_gpt_seq2seq.HfGptSeq2SeqForSequenceClassification",
    }

    derived_from: ClassVar[dict[str, tuple[str, ...]]] = {
        **HfGptConfig.derived_from,
        "encoder_layers": ("num_hidden_layers",),
        "encoder_layer_types": ("encoder_layers", "sliding_window"),
        "decoder_start_token_id": ("bos_token_id", "eos_token_id", "pad_token_id"),
    }

    is_encoder_decoder: bool = True
    encoder_layers: int | None = None
    encoder_layer_types: list[str] | None = None
    share_encoder_decoder_embeddings: bool = True
    decoder_start_token_id: int | None = None

    def __post_init__(self, **kwargs: Any):
        # The library applies aliases last, after what is derived here.
        self.num_hidden_layers = kwargs.pop("decoder_layers", self.num_hidden_layers)
        super().__post_init__(**kwargs)

    def _derive(self, field: str) -> Any:
        if field == "encoder_layers":
            return self.num_hidden_layers
        if field == "encoder_layer_types":
            return self._alike(self.encoder_layers)
        if field == "decoder_start_token_id":
            end = self.eos_token_id[0] if isinstance(self.eos_token_id, list) else self.eos_token_id
            known = [token for token in (self.bos_token_id, end, self.pad_token_id) if token is not None]
            return known[0] if known else None
        return super()._derive(field)

    def validate_architecture(self):
        """As in the base class, for both halves."""
        super().validate_architecture()
        # One half of a model, as `of_half` gives it, is no encoder-decoder.
        is_causal = self.is_causal or not self.is_encoder_decoder
        _require(is_causal, "is_causal", self.is_causal, "must be True: it is the decoder's; the encoder sees all")
        is_possible = 0 < self.encoder_layers <= MOST_LAYERS
        _require(is_possible, "encoder_layers", self.encoder_layers, f"must be from 1 to {MOST_LAYERS:,}")
        _require(
            len(self.encoder_layer_types) == self.encoder_layers
            and set(self.encoder_layer_types) <= {"full_attention", "sliding_attention"},
            "encoder_layer_types",
            self.encoder_layer_types,
            f"must hold 'full_attention' or 'sliding_attention' for each of encoder_layers={self.encoder_layers}",
        )
        _require(
            "sliding_attention" not in self.encoder_layer_types or self.sliding_window is not None,
            "sliding_window",
            self.sliding_window,
            "must be set when encoder_layer_types has 'sliding_attention'",
        )
        start = self.decoder_start_token_id
        _require(
            start is None or 0 <= start < self.vocab_size,
            "decoder_start_token_id",
            start,
            f"must be at least 0 and below vocab_size={self.vocab_size}",
        )

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> "HfGptSeq2SeqConfig":
        """Itself, which is the decoder's; for `encoder=True` that of the encoder."""
        return self.of_half(is_decoder=False) if encoder and not decoder else self

    def of_half(self, is_decoder: bool) -> "HfGptSeq2SeqConfig":
        """The configuration from which the decoder, or else the encoder, is built: that of one stack of layers."""
        config = copy.deepcopy(self)
        config.base_model_tp_plan = config.base_model_pp_plan = config.base_model_fsdp_plan = {}
        config.is_encoder_decoder = False
        # What is tied is the whole model's affair.
        config.tie_word_embeddings = False
        if not is_decoder:
            config.is_causal = False
            config.use_cache = False
            config.num_hidden_layers = self.encoder_layers
            config.layer_types = self.encoder_layer_types
        return config


# Each checkpoint carries its own code, so that it opens as remote code too.
HfGptSeq2SeqConfig.register_for_auto_class()

__all__ = ["HfGptSeq2SeqConfig"]
