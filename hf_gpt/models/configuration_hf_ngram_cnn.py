"""Configuration of the n-gram CNN: a discriminator that reads a text through convolutions of several widths."""

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from .configuration_hf_gpt import _require, complete_auto_map


# What differs from the defaults. `seqgan`: the discriminator of https://arxiv.org/abs/1609.05473, with the widths and
# numbers of filters of its public code.
PRESETS: dict[str, dict[str, Any]] = {
    "small": {},
    "seqgan": {
        "embedding_size": 64,
        "kernel_sizes": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20],
        "num_filters": [100, 200, 200, 200, 200, 100, 100, 100, 100, 100, 160, 160],
        "num_highway_layers": 1,
        "classifier_dropout": 0.25,
    },
}


@strict
class HfNgramCnnConfig(PreTrainedConfig):
    r"""
    Configuration of [`HfNgramCnnModel`] and its head. Every field is keyword-only, typed and checked.

    Args:
        vocab_size (`int`, *optional*, defaults to 50304):
            Number of token embeddings.
        embedding_size (`int`, *optional*, defaults to 64):
            Width of the token embeddings.
        kernel_sizes (`list[int]`, *optional*, defaults to `[1, 2, 3, 4, 5]`):
            Widths of the convolutions in tokens.
        num_filters (`list[int]`, *optional*):
            Number of filters of each width. Left out: 64 of each, or `hidden_size` shared out evenly.
        hidden_size (`int`, *optional*):
            Number of filters in all, which is the width of what the model returns at each token. Left out: their sum.
        num_hidden_layers (`int`, *optional*, defaults to 1):
            One: the convolutions stand side by side.
        hidden_act (`str`, *optional*, defaults to `"relu"`):
            Activation of the filters.
        is_causal (`bool`, *optional*, defaults to `True`):
            Whether the window of a token ends there, so that every prefix of a text can be scored in one pass, or has
            it in its middle.
        num_highway_layers (`int`, *optional*, defaults to 0):
            Highway layers (https://arxiv.org/abs/1505.00387) between the pooled features and the score.
        highway_bias (`float`, *optional*, defaults to -2.0):
            Where the bias of a highway layer's gate begins: below 0 the layer starts close to the identity.
        classifier_pooling (`str`, *optional*, defaults to `"max"`):
            f(x): each filter's largest value over the text (`"max"`) or its `"mean"`.
        classifier_dropout (`float`, *optional*, defaults to 0.1):
            Dropout on f(x).
        classifier_spectral_norm (`bool`, *optional*, defaults to `False`):
            Spectral normalisation of the score's weight.
        classifier_bias (`bool`, *optional*, defaults to `True`):
            Bias `b` of D(x) = sigmoid(W^T f(x) + b).
        initializer_range (`float`, *optional*, defaults to 0.1):
            Standard deviation of the weights at the start.
        pad_token_id (`int`, *optional*):
            Padding token, which tells padding where no attention mask does.
        bos_token_id (`int`, *optional*):
            Token that begins a text.
        eos_token_id (`int` or `list[int]`, *optional*):
            Token or tokens that end a text.
        auto_map (`dict[str, str]`, *optional*):
            Which file of a checkpoint holds the class of each Auto class. Filled in; leave it out.

    Example:

    ```python
    >>> from hf_gpt import HfNgramCnnConfig

    >>> config = HfNgramCnnConfig.preset("seqgan", vocab_size=5000, num_labels=1)
    ```
    """

    model_type = "hf_ngram_cnn"
    base_model_fsdp_plan = {"embed_tokens": "free_full_weight", "convolutions": "keep_full_weight"}
    code_map: ClassVar[dict[str, str]] = {
        "AutoConfig": "configuration_hf_ngram_cnn.HfNgramCnnConfig",
        "AutoModel": "modeling_hf_ngram_cnn.HfNgramCnnModel",
        "AutoModelForSequenceClassification": "modeling_hf_ngram_cnn.HfNgramCnnForSequenceClassification",
    }

    vocab_size: int = 50304
    embedding_size: int = 64
    kernel_sizes: list[int] | None = None
    num_filters: list[int] | None = None
    hidden_size: int | None = None
    num_hidden_layers: int = 1
    hidden_act: str = "relu"
    is_causal: bool = True
    num_highway_layers: int = 0
    highway_bias: float | int = -2.0
    classifier_pooling: Literal["max", "mean"] = "max"
    classifier_dropout: float | int = 0.1
    classifier_spectral_norm: bool = False
    classifier_bias: bool = True
    initializer_range: float = 0.1
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    auto_map: dict | None = None

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "HfNgramCnnConfig":
        """
        A configuration of a named size.

        Args:
            name (`str`):
                `"small"` (widths 1 to 5, 64 filters each) or `"seqgan"` (twelve widths from 1 to 20, 1720 filters, a
                highway layer).
            overrides:
                Fields that differ from the preset.

        Raises:
            ValueError: no preset has that name.
        """
        if name not in PRESETS:
            raise ValueError(f"There is no preset {name!r}. Choose one of: {', '.join(PRESETS)}.")
        return cls(**{**PRESETS[name], **overrides})

    def __post_init__(self, **kwargs: Any):
        if self.kernel_sizes is None:
            self.kernel_sizes = [1, 2, 3, 4, 5]
        if self.num_filters is None:
            widths = max(1, len(self.kernel_sizes))
            share, rest = divmod(self.hidden_size, widths) if self.hidden_size else (64, 0)
            self.num_filters = [share + (index < rest) for index in range(widths)]
        if self.hidden_size is None:
            self.hidden_size = sum(self.num_filters)
        self.auto_map = complete_auto_map(self.code_map, self.auto_map)
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Raises `ValueError`, which names the field and the remedy, for settings that cannot work together."""
        for field in ("vocab_size", "embedding_size", "hidden_size"):
            _require(getattr(self, field) > 0, field, getattr(self, field), "must be at least 1")
        for field in ("kernel_sizes", "num_filters"):
            sizes = getattr(self, field)
            _require(sizes and min(sizes) > 0, field, sizes, "must hold numbers of at least 1")
        _require(
            len(self.num_filters) == len(self.kernel_sizes),
            "num_filters",
            self.num_filters,
            f"must have an entry for each of kernel_sizes={self.kernel_sizes}",
        )
        _require(
            self.hidden_size == sum(self.num_filters),
            "hidden_size",
            self.hidden_size,
            f"must be the sum of num_filters={self.num_filters}; leave one of the two out",
        )
        _require(self.num_hidden_layers == 1, "num_hidden_layers", self.num_hidden_layers, "must be 1")
        _require(self.num_highway_layers >= 0, "num_highway_layers", self.num_highway_layers, "must not be negative")
        _require(self.initializer_range >= 0, "initializer_range", self.initializer_range, "must not be negative")
        _require(
            0 <= self.classifier_dropout < 1,
            "classifier_dropout",
            self.classifier_dropout,
            "must be at least 0 and below 1",
        )
        _require(
            self.hidden_act in ACT2FN, "hidden_act", self.hidden_act, f"must be one of {', '.join(sorted(ACT2FN))}"
        )


# Each checkpoint carries its own code, so that it opens as remote code too.
HfNgramCnnConfig.register_for_auto_class()

__all__ = ["HfNgramCnnConfig"]
