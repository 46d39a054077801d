"""Configuration of the HfGpt family: one decoder whose switches cover GPT-2, Llama/Mistral, Qwen3 and our default."""

from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.utils import logging


logger = logging.get_logger(__name__)

# More than any model has. The types of the layers that a damaged file asks for would fill the memory.
MOST_LAYERS = 10_000

# What differs from the defaults. The names from 124m on are parameter counts with the default vocabulary of 50,304.
PRESETS: dict[str, dict[str, Any]] = {
    "nano": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4},
    "micro": {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 6},
    "mini": {"hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 4},
    "small": {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8},
    "124m": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "350m": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
    "774m": {"hidden_size": 1280, "num_hidden_layers": 36, "num_attention_heads": 20},
    "1b": {"hidden_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 16},
    "1.5b": {"hidden_size": 1600, "num_hidden_layers": 48, "num_attention_heads": 25},
    "3b": {"hidden_size": 3072, "num_hidden_layers": 25, "num_attention_heads": 24},
    "7b": {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "tie_word_embeddings": False,
    },
}


class HfGptDerivedFieldsMixin:
    """
    For a configuration some of whose fields follow from others where they are left out: they go on following when those
    others are set later. A field that holds another value than the one that follows was given, and stays.
    """

    # Each field to those that it follows from, in an order in which they can be worked out.
    derived_from: ClassVar[dict[str, tuple[str, ...]]] = {}

    def _derive(self, field: str) -> Any:
        raise NotImplementedError

    def _follows(self, field: str) -> bool:
        return field not in self.__dict__.get("_given_fields", ()) and getattr(self, field) == self._derive(field)

    def _derive_missing(self) -> None:
        """Works out what was left out; remembers what was given as it would have followed, which looks alike."""
        given = []
        for field in self.derived_from:
            if getattr(self, field) is None:
                setattr(self, field, self._derive(field))
            elif getattr(self, field) == self._derive(field):
                given.append(field)
        if given:
            self.__dict__["_given_fields"] = tuple(given)
        self.__dict__["_is_made"] = True

    def __setattr__(self, name: str, value: Any) -> None:
        name = self.attribute_map.get(name, name)
        is_made = "_is_made" in self.__dict__
        affected = [field for field, sources in self.derived_from.items() if name in sources] if is_made else []
        followers = [field for field in affected if self._follows(field)]
        super().__setattr__(name, value)
        for field in followers:
            setattr(self, field, self._derive(field))

    def to_dict(self) -> dict[str, Any]:
        """As in the base class, without what is remembered of fields that were given."""
        output = super().to_dict()
        for name in ("_given_fields", "_is_made"):
            output.pop(name, None)
        return output

    @classmethod
    def _without_followers(cls, config_dict: dict[str, Any], changed: Iterable[str]) -> dict[str, Any]:
        """A file's fields without those that follow from others which are to be changed."""
        changed = {cls.attribute_map.get(name, name) for name in changed}
        if not changed & {source for sources in cls.derived_from.values() for source in sources}:
            return config_dict
        left_out = {*cls.derived_from, "model_type"}
        try:
            derived = cls(**{name: value for name, value in config_dict.items() if name not in left_out})
        except (StrictDataclassError, ValueError):
            # It takes what is given there to make a configuration of it.
            return config_dict
        follow = {name for name in cls.derived_from if config_dict.get(name) == getattr(derived, name)}
        return {name: value for name, value in config_dict.items() if name not in follow - changed}


@strict
class HfGptConfig(HfGptDerivedFieldsMixin, PreTrainedConfig):
    r"""
    Configuration of [`HfGptModel`] and its heads. Every field is keyword-only, typed and checked: a wrong type raises
    `StrictDataclassFieldValidationError`, a combination that cannot work `StrictDataclassClassValidationError`.

    Args:
        vocab_size (`int`, *optional*, defaults to 50304):
            Number of token embeddings.
        hidden_size (`int`, *optional*, defaults to 768):
            Width of the residual stream.
        intermediate_size (`int`, *optional*):
            Inner width of the MLP. Left out: `4 * hidden_size`, or with `is_gated_act` the multiple of 64 nearest above
            `8/3 * hidden_size`, so that both have the same number of parameters.
        num_hidden_layers (`int`, *optional*, defaults to 12):
            Number of blocks.
        num_attention_heads (`int`, *optional*, defaults to 12):
            Number of query heads.
        num_key_value_heads (`int`, *optional*):
            Number of key/value heads (grouped-query attention, https://arxiv.org/abs/2305.13245). Left out: one for
            each query head.
        head_dim (`int`, *optional*):
            Width of a head. Left out: `hidden_size / num_attention_heads`.
        hidden_act (`str`, *optional*, defaults to `"relu2"`):
            Activation of the MLP, a key of `transformers.activations.ACT2FN`; `relu2` is the squared ReLU of Primer
            (https://arxiv.org/abs/2109.08668).
        is_gated_act (`bool`, *optional*, defaults to `False`):
            Gated MLP, `down(act(gate(x)) * up(x))` (https://arxiv.org/abs/2002.05202); with `hidden_act="silu"` SwiGLU.
        max_position_embeddings (`int`, *optional*, defaults to 1024):
            Longest sequence in tokens: a hard limit with learned positions, the training length with RoPE.
        position_embedding_type (`str`, *optional*, defaults to `"rope"`):
            `"rope"` (https://arxiv.org/abs/2104.09864), `"learned"` (GPT-2) or `"none"`.
        rope_parameters (`dict`, *optional*):
            `rope_theta`, and `rope_type` with its own keys for a scaling: `linear`, `dynamic`, `yarn`, `longrope` or
            `llama3`. Older `rope_theta` / `rope_scaling` arguments are folded in.
        layer_types (`list[str]`, *optional*):
            For each layer `"full_attention"` or `"sliding_attention"`. Left out: all full, or all sliding when
            `sliding_window` is set.
        sliding_window (`int`, *optional*):
            Tokens that a sliding layer sees, the current one included.
        norm_type (`str`, *optional*, defaults to `"rmsnorm"`):
            `"rmsnorm"` (https://arxiv.org/abs/1910.07467) or `"layernorm"`.
        norm_eps (`float`, *optional*, defaults to 1e-6):
            Added to the variance in every norm. `rms_norm_eps`, `layer_norm_eps` and `layer_norm_epsilon` are aliases.
        norm_bias (`bool`, *optional*, defaults to `True`):
            Bias of the LayerNorms; an RMSNorm has none.
        use_qk_norm (`bool`, *optional*, defaults to `True`):
            RMSNorm over each head of queries and keys, before RoPE (https://arxiv.org/abs/2302.05442).
        attention_bias (`bool`, *optional*, defaults to `False`):
            Bias of the query, key and value projections.
        attention_out_bias (`bool`, *optional*):
            Bias of the output projection of attention. Left out: as `attention_bias`.
        mlp_bias (`bool`, *optional*, defaults to `False`):
            Bias of the MLP's projections.
        attention_dropout (`float`, *optional*, defaults to 0.0):
            Dropout on attention probabilities.
        hidden_dropout (`float`, *optional*, defaults to 0.0):
            Dropout on the embeddings and on what each block adds to the residual stream.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the weights of linear layers and embeddings.
        output_projection_init (`str`, *optional*, defaults to `"scaled"`):
            How the two projections of a block that write to the residual stream begin: `"zeros"` (each block starts as
            the identity), `"scaled"` (`initializer_range / sqrt(2 * num_hidden_layers)`, GPT-2) or `"normal"`.
        tie_word_embeddings (`bool`, *optional*, defaults to `True`):
            One matrix for the embedding and the language-model head.
        final_logit_softcapping (`float`, *optional*):
            Cap `c` of the logits, `c * tanh(logits / c)` (Gemma 2, https://arxiv.org/abs/2408.00118).
        logit_scale (`float`, *optional*, defaults to 1.0):
            Factor on the logits, before the cap. A number in any case: vLLM multiplies by it.
        is_causal (`bool`, *optional*, defaults to `True`):
            `False` lets every token see the whole sequence: for the classification, token and span heads only.
        chunked_loss (`str`, *optional*, defaults to `"auto"`):
            Whether the language-model loss is computed in chunks of rows, so that the full logits never exist and none
            are returned: `"always"` in training, `"auto"` where the forward pass is asked by `skip_logits="auto"` (as
            `hf-gpt` asks in training) and they would be large, `"never"` unless asked by `skip_logits=True`.
        classifier_pooling (`str`, *optional*, defaults to `"last"`):
            f(x) of the sequence head: the hidden state of the `"last"` token, the `"mean"` over tokens, or a learned
            `"attention"` over them.
        classifier_hidden_size (`int`, *optional*):
            Width of a hidden layer between f(x) and the score. Left out: none.
        classifier_hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Its activation.
        classifier_spectral_norm (`bool`, *optional*, defaults to `False`):
            Spectral normalisation of the head's layers, which bounds their Lipschitz constant by 1
            (https://arxiv.org/abs/1802.05957).
        classifier_bias (`bool`, *optional*, defaults to `True`):
            Bias `b` of D(x) = sigmoid(W^T f(x) + b).
        classifier_dropout (`float`, *optional*, defaults to 0.0):
            Dropout on f(x).
        use_cache (`bool`, *optional*, defaults to `True`):
            Whether a forward pass returns its keys and values.
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
    >>> from hf_gpt import HfGptConfig

    >>> config = HfGptConfig.preset("nano", vocab_size=1024)
    >>> llama = HfGptConfig(hidden_act="silu", is_gated_act=True, use_qk_norm=False, num_key_value_heads=4)
    >>> gpt2 = HfGptConfig(
    ...     position_embedding_type="learned", norm_type="layernorm", hidden_act="gelu_new", use_qk_norm=False,
    ...     attention_bias=True, mlp_bias=True, norm_eps=1e-5,
    ... )
    ```
    """

    model_type = "hf_gpt"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {
        "rms_norm_eps": "norm_eps",
        "layer_norm_eps": "norm_eps",
        "layer_norm_epsilon": "norm_eps",
    }
    base_model_tp_plan = {
        "layers.*.self_attn.q_proj": "colwise",
        "layers.*.self_attn.k_proj": "colwise",
        "layers.*.self_attn.v_proj": "colwise",
        "layers.*.self_attn.q_norm": "replicated_with_grad_allreduce",
        "layers.*.self_attn.k_norm": "replicated_with_grad_allreduce",
        "layers.*.self_attn.o_proj": "rowwise",
        "layers.*.mlp.gate_proj": "colwise",
        "layers.*.mlp.up_proj": "colwise",
        "layers.*.mlp.down_proj": "rowwise",
    }
    base_model_pp_plan = {
        "embed_tokens": (["input_ids"], ["inputs_embeds"]),
        "layers": (["hidden_states", "attention_mask"], ["hidden_states"]),
        "norm": (["hidden_states"], ["hidden_states"]),
    }
    # Written into every checkpoint, so that each Auto class finds its class with trust_remote_code=True: the library by
    # itself records only the class that was saved.
    code_map: ClassVar[dict[str, str]] = {
        "AutoConfig": "configuration_hf_gpt.HfGptConfig",
        "AutoModel": "modeling_hf_gpt.HfGptModel",
        "AutoModelForCausalLM": "modeling_hf_gpt.HfGptForCausalLM",
        "AutoModelForSequenceClassification": "modeling_hf_gpt.HfGptForSequenceClassification",
        "AutoModelForTokenClassification": "modeling_hf_gpt.HfGptForTokenClassification",
        "AutoModelForQuestionAnswering": "modeling_hf_gpt.HfGptForQuestionAnswering",
    }

    derived_from: ClassVar[dict[str, tuple[str, ...]]] = {
        "intermediate_size": ("hidden_size", "is_gated_act"),
        "num_key_value_heads": ("num_attention_heads",),
        "head_dim": ("hidden_size", "num_attention_heads"),
        "attention_out_bias": ("attention_bias",),
        "layer_types": ("num_hidden_layers", "sliding_window"),
        "base_model_tp_plan": ("is_gated_act", "use_qk_norm"),
    }

    vocab_size: int = 50304
    hidden_size: int = 768
    intermediate_size: int | None = None
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "relu2"
    is_gated_act: bool = False
    max_position_embeddings: int = 1024
    position_embedding_type: Literal["rope", "learned", "none"] = "rope"
    rope_parameters: dict | None = None
    layer_types: list[str] | None = None
    sliding_window: int | None = None
    norm_type: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    norm_eps: float = 1e-6
    norm_bias: bool = True
    use_qk_norm: bool = True
    attention_bias: bool = False
    attention_out_bias: bool | None = None
    mlp_bias: bool = False
    attention_dropout: float | int = 0.0
    hidden_dropout: float | int = 0.0
    initializer_range: float = 0.02
    output_projection_init: Literal["zeros", "scaled", "normal"] = "scaled"
    tie_word_embeddings: bool = True
    final_logit_softcapping: float | int | None = None
    logit_scale: float | int | None = 1.0
    is_causal: bool = True
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

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "HfGptConfig":
        """
        A configuration of a named size.

        Args:
            name (`str`):
                A key of `PRESETS`: `"nano"`, `"micro"`, `"mini"`, `"small"`, `"124m"`, `"350m"`, `"774m"`, `"1b"`,
                `"1.5b"`, `"3b"` or `"7b"`.
            overrides:
                Fields that differ from the preset.

        Raises:
            ValueError: no preset has that name.
        """
        if name not in PRESETS:
            raise ValueError(f"There is no preset {name!r}. Choose one of: {', '.join(PRESETS)}.")
        return cls(**{**PRESETS[name], **overrides})

    def __post_init__(self, **kwargs: Any):
        if self.logit_scale is None:
            self.logit_scale = 1.0
        self.base_model_tp_plan = None
        self._derive_missing()
        self.auto_map = complete_auto_map(self.code_map, self.auto_map)
        warn_of_misspelt_fields(self, kwargs)
        super().__post_init__(**kwargs)

    def _derive(self, field: str) -> Any:
        if field == "intermediate_size":
            return -(-8 * self.hidden_size // 3 // 64) * 64 if self.is_gated_act else 4 * self.hidden_size
        if field == "num_key_value_heads":
            return self.num_attention_heads
        if field == "head_dim":
            return max(1, self.hidden_size // max(1, self.num_attention_heads))
        if field == "attention_out_bias":
            return self.attention_bias
        if field == "layer_types":
            return self._alike(self.num_hidden_layers)
        absent = [] if self.is_gated_act else ["gate_proj"]
        absent += [] if self.use_qk_norm else ["q_norm", "k_norm"]
        plan = type(self).base_model_tp_plan
        # Some versions of the library add entries of their own.
        added = {name: style for name, style in (self.base_model_tp_plan or {}).items() if name not in plan}
        return {name: style for name, style in plan.items() if name.split(".")[-1] not in absent} | added

    def _alike(self, num_layers: int) -> list[str]:
        layer_type = "full_attention" if self.sliding_window is None else "sliding_attention"
        return [layer_type] * min(num_layers, MOST_LAYERS)

    def validate_architecture(self):
        """Raises `ValueError`, which names the field and the remedy, for settings that cannot work together."""
        self._validate_ranges()
        self._validate_heads_and_layers()
        _require_known_tokens(self)
        if self.position_embedding_type == "rope":
            self._validate_rope()

    def _validate_ranges(self):
        at_least_one = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        for field in (*at_least_one, "num_key_value_heads", "head_dim", "max_position_embeddings"):
            _require(getattr(self, field) > 0, field, getattr(self, field), "must be at least 1")
        layers = self.num_hidden_layers
        _require(layers <= MOST_LAYERS, "num_hidden_layers", layers, f"must be {MOST_LAYERS:,} at most")
        for field in ("attention_dropout", "hidden_dropout", "classifier_dropout"):
            _require(0 <= getattr(self, field) < 1, field, getattr(self, field), "must be at least 0 and below 1")
        for field in ("norm_eps", "initializer_range"):
            _require(getattr(self, field) >= 0, field, getattr(self, field), "must not be negative")
        for field in ("hidden_act", "classifier_hidden_act"):
            value = getattr(self, field)
            _require(value in ACT2FN, field, value, f"must be one of {', '.join(sorted(ACT2FN))}")
        for field in ("sliding_window", "classifier_hidden_size", "final_logit_softcapping", "logit_scale"):
            value = getattr(self, field)
            _require(value is None or value > 0, field, value, "must be above 0; leave it out to do without")

    def _validate_heads_and_layers(self):
        heads, kinds = self.num_attention_heads, self.layer_types
        fits = self.hidden_size % heads == 0 or self.head_dim != self.hidden_size // heads
        remedy = f"must divide hidden_size={self.hidden_size}; or set head_dim yourself"
        _require(fits, "num_attention_heads", heads, remedy)
        groups = self.num_key_value_heads
        _require(heads % groups == 0, "num_key_value_heads", groups, f"must divide num_attention_heads={heads}")
        remedy = (
            f"has {len(kinds)} entries and must have num_hidden_layers={self.num_hidden_layers}; leave it out to have "
            "all layers alike"
        )
        _require(len(kinds) == self.num_hidden_layers, "layer_types", kinds, remedy)
        remedy = "must hold 'full_attention' or 'sliding_attention' for each layer"
        for kind in kinds:
            _require(kind in ("full_attention", "sliding_attention"), "layer_types", kind, remedy)
        has_window = "sliding_attention" not in kinds or self.sliding_window is not None
        remedy = "must be set when layer_types has 'sliding_attention'"
        _require(has_window, "sliding_window", self.sliding_window, remedy)

    def _validate_rope(self):
        _require(self.head_dim % 2 == 0, "head_dim", self.head_dim, "must be even with RoPE, which turns pairs")
        parameters = self.rope_parameters
        kind, kinds = parameters["rope_type"], ["default", *sorted(ROPE_INIT_FUNCTIONS)]
        _require(kind in kinds, "rope_type", kind, f"must be one of {', '.join(kinds)}")
        is_one_set = not any(isinstance(value, dict) for value in parameters.values())
        remedy = "must be one set for all layers, not one for each layer type"
        _require(is_one_set, "rope_parameters", parameters, remedy)
        partial = parameters.get("partial_rotary_factor", 1.0)
        _require(partial == 1.0, "partial_rotary_factor", partial, "must be 1.0: RoPE turns the whole head here")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "HfGptConfig":
        """
        As in the base class.

        Raises:
            ValueError: the dictionary is the configuration of another architecture.
        """
        refuse_other_model_type(cls, config_dict)
        return _forget_given(super().from_dict(cls._without_followers(config_dict, kwargs), **kwargs))

    def to_dict(self) -> dict[str, Any]:
        """As in the base class; RoPE's parameters are left out where no RoPE reads them."""
        output = super().to_dict()
        if self.position_embedding_type != "rope":
            output.pop("rope_parameters", None)
        return output


def _forget_given(made: Any) -> Any:
    """What `from_dict` returns. A file holds every field: what follows from others there counts as derived."""
    (made[0] if isinstance(made, tuple) else made).__dict__.pop("_given_fields", None)
    return made


def complete_auto_map(code_map: dict[str, str], auto_map: dict[str, str] | None) -> dict[str, str]:
    """The `auto_map` of a configuration: each class of `code_map`, unless `auto_map` names another."""
    # A checkpoint loaded from the Hub has its repository before each entry ("repo--file.Class"); saved again, the code
    # lies beside the weights.
    own_map = {key: value.split("--")[-1] for key, value in (auto_map or {}).items()}
    return {**code_map, **own_map}


def warn_of_misspelt_fields(config: PreTrainedConfig, unknown: dict[str, Any]) -> None:
    """Says which field an unknown argument may have meant: the library keeps it as an attribute that nothing reads."""
    names = [field.name for field in fields(config)]
    for name in unknown:
        if name not in config.attribute_map and (near := get_close_matches(name, names, n=1, cutoff=0.85)):
            logger.warning(f"{name} is no field of {type(config).__name__} and has no effect: did you mean {near[0]}?")


def refuse_other_model_type(config_class: type[PreTrainedConfig], config_dict: dict[str, Any]) -> None:
    """Raises `ValueError` for a dictionary that is the configuration of another architecture."""
    model_type = config_dict.get("model_type", config_class.model_type)
    if model_type != config_class.model_type:
        raise ValueError(
            f"This is a checkpoint of model type {model_type!r}, not {config_class.model_type!r}: load it with "
            "AutoModel, AutoModelForCausalLM or another Auto class."
        )


def _require(condition: bool, field: str, value: Any, remedy: str) -> None:
    if not condition:
        raise ValueError(f"{field}={value!r} {remedy}.")


def _require_known_tokens(config: PreTrainedConfig) -> None:
    for field in ("pad_token_id", "bos_token_id", "eos_token_id"):
        ids = getattr(config, field)
        for token_id in ids if isinstance(ids, list) else [ids]:
            remedy = f"must be at least 0 and below vocab_size={config.vocab_size}"
            _require(token_id is None or 0 <= token_id < config.vocab_size, field, token_id, remedy)


# Each checkpoint carries its own code, so that it opens as remote code too.
HfGptConfig.register_for_auto_class()

__all__ = ["MOST_LAYERS", "PRESETS", "HfGptConfig"]
