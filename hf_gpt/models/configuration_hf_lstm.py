"""Configuration of the LSTM generator and discriminator: encoder, decoder back to the embedding's width, tied head."""

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from .configuration_hf_gpt import (
    HfGptDerivedFieldsMixin,
    _forget_given,
    _require,
    _require_known_tokens,
    complete_auto_map,
    refuse_other_model_type,
    warn_of_misspelt_fields,
)


@strict
class HfLstmConfig(HfGptDerivedFieldsMixin, PreTrainedConfig):
    r"""
    Configuration of [`HfLstmModel`] and its heads. Every field is keyword-only, typed and checked, as in
    [`HfGptConfig`].

    Args:
        vocab_size (`int`, *optional*, defaults to 50304):
            Number of token embeddings.
        hidden_size (`int`, *optional*, defaults to 256):
            Width of the embeddings and of what the model returns.
        intermediate_size (`int`, *optional*):
            Width of the encoder's LSTMs. Left out: `hidden_size`.
        num_hidden_layers (`int`, *optional*, defaults to 2):
            Number of LSTM layers in all (`num_layers` is an alias).
        num_decoder_layers (`int`, *optional*, defaults to 1):
            How many of them, the last ones, are the decoder, of width `hidden_size`. With 0 the model is the plain LSTM
            language model, for which `intermediate_size` must be `hidden_size`.
        is_causal (`bool`, *optional*, defaults to `True`):
            `False` has the encoder read in both directions, half of `intermediate_size` each: for the classification
            and token heads only.
        hidden_dropout (`float`, *optional*, defaults to 0.0):
            Dropout on the embeddings and on what each layer returns, not on what it carries from token to token
            (https://arxiv.org/abs/1409.2329).
        lstm_init (`str`, *optional*, defaults to `"uniform"`):
            How the LSTMs begin: `"uniform"` within `1 / sqrt(width)` with biases of 0 and of 1 at the forget gate
            (https://proceedings.mlr.press/v37/jozefowicz15.html), or `"normal"`, weights and biases alike, with a
            standard deviation of `initializer_range`.
        initializer_range (`float`, *optional*, defaults to 1.0):
            Standard deviation of the embeddings, as of PyTorch's, and of the language-model head. The gates of an LSTM
            see no more than an embedding's size lets through: with a tenth of it the model learns a text by heart
            several times more slowly. Other linear layers begin with it too, but with `1 / sqrt(in_features)` at most
            unless `lstm_init` is `"normal"`.
        tie_word_embeddings (`bool`, *optional*, defaults to `True`):
            One matrix for the embedding and the language-model head.
        final_logit_softcapping, logit_scale, chunked_loss:
            As in [`HfGptConfig`].
        classifier_pooling, classifier_hidden_size, classifier_hidden_act, classifier_spectral_norm, classifier_bias, \
classifier_dropout:
            As in [`HfGptConfig`].
        use_cache (`bool`, *optional*, defaults to `True`):
            Whether a forward pass returns its state.
        pad_token_id (`int`, *optional*):
            Padding token.
        bos_token_id (`int`, *optional*):
            Token that begins a text.
        eos_token_id (`int` or `list[int]`, *optional*):
            Token or tokens that end a text.
        auto_map (`dict[str, str]`, *optional*):
            Which file of a checkpoint holds the class of each Auto class. Filled in; leave it out.

    Example:

    ```python
    >>> from hf_gpt import HfLstmConfig

    >>> config = HfLstmConfig(vocab_size=1024, hidden_size=128, intermediate_size=256)
    >>> # SeqGAN's generator (https://arxiv.org/abs/1609.05473) or, with these random weights, its oracle
    >>> oracle = HfLstmConfig(
    ...     vocab_size=5000, hidden_size=32, num_layers=1, num_decoder_layers=0, tie_word_embeddings=False,
    ...     lstm_init="normal", initializer_range=1.0, bos_token_id=0,
    ... )
    ```
    """

    model_type = "hf_lstm"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {"num_layers": "num_hidden_layers"}
    base_model_fsdp_plan = {"embed_tokens": "free_full_weight", "layers.*": "keep_full_weight"}
    code_map: ClassVar[dict[str, str]] = {
        "AutoConfig": "configuration_hf_lstm.HfLstmConfig",
        "AutoModel": "modeling_hf_lstm.HfLstmModel",
        "AutoModelForCausalLM": "modeling_hf_lstm.HfLstmForCausalLM",
        "AutoModelForSequenceClassification": "modeling_hf_lstm.HfLstmForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_hf_lstm.HfLstmForTokenClassification",
    }

    derived_from: ClassVar[dict[str, tuple[str, ...]]] = {"intermediate_size": ("hidden_size",)}

    vocab_size: int = 50304
    hidden_size: int = 256
    intermediate_size: int | None = None
    num_hidden_layers: int = 2
    num_decoder_layers: int = 1
    is_causal: bool = True
    hidden_dropout: float | int = 0.0
    lstm_init: Literal["uniform", "normal"] = "uniform"
    initializer_range: float = 1.0
    tie_word_embeddings: bool = True
    final_logit_softcapping: float | int | None = None
    logit_scale: float | int | None = 1.0
    chunked_loss: Literal["auto", "always", "never"] = "auto"
    classifier_pooling: Literal["last", "mean", "attention"] = "last"
    classifier_hidden_size: int | None = None
    classifier_hidden_act: str = "gelu"
    classifier_spectral_norm: bool = False
    classifier_bias: bool = True
    classifier_dropout: float | int = 0.0
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    auto_map: dict | None = None

    @property
    def layer_types(self) -> list[str]:
        """Which cache each layer has: its state."""
        return ["lstm"] * self.num_hidden_layers

    def __post_init__(self, **kwargs: Any):
        if self.logit_scale is None:
            self.logit_scale = 1.0
        self._derive_missing()
        self.auto_map = complete_auto_map(self.code_map, self.auto_map)
        warn_of_misspelt_fields(self, kwargs)
        super().__post_init__(**kwargs)

    def _derive(self, field: str) -> int:
        return self.hidden_size

    def validate_layer_type(self):
        """Overrides the library's check, which knows the types of its own models alone."""

    def validate_architecture(self):
        """Raises `ValueError`, which names the field and the remedy, for settings that cannot work together."""
        for field in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"):
            _require(getattr(self, field) > 0, field, getattr(self, field), "must be at least 1")
        for field in ("hidden_dropout", "classifier_dropout"):
            _require(0 <= getattr(self, field) < 1, field, getattr(self, field), "must be at least 0 and below 1")
        for field in ("classifier_hidden_size", "final_logit_softcapping", "logit_scale"):
            value = getattr(self, field)
            _require(value is None or value > 0, field, value, "must be above 0; leave it out to do without")
        _require(self.initializer_range >= 0, "initializer_range", self.initializer_range, "must not be negative")
        act = self.classifier_hidden_act
        _require(act in ACT2FN, "classifier_hidden_act", act, f"must be one of {', '.join(sorted(ACT2FN))}")
        _require(
            0 <= self.num_decoder_layers < self.num_hidden_layers,
            "num_decoder_layers",
            self.num_decoder_layers,
            f"must be at least 0 and below num_hidden_layers={self.num_hidden_layers}, for the encoder needs a layer",
        )
        _require(
            self.num_decoder_layers > 0 or self.intermediate_size == self.hidden_size,
            "intermediate_size",
            self.intermediate_size,
            f"must be hidden_size={self.hidden_size} where no decoder leads back to it; or set num_decoder_layers",
        )
        _require(
            self.is_causal or self.intermediate_size % 2 == 0,
            "intermediate_size",
            self.intermediate_size,
            "must be even with is_causal=False: half of it reads in each direction",
        )
        _require_known_tokens(self)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "HfLstmConfig":
        """
        As in the base class.

        Raises:
            ValueError: the dictionary is the configuration of another architecture.
        """
        refuse_other_model_type(cls, config_dict)
        return _forget_given(super().from_dict(cls._without_followers(config_dict, kwargs), **kwargs))


# Each checkpoint carries its own code, so that it opens as remote code too.
HfLstmConfig.register_for_auto_class()

__all__ = ["HfLstmConfig"]
