"""
What each model family is in terms of `HfGptConfig`, once for both directions.

A family is described by the fields that it shares with `HfGptConfig` and by the values that all of its models have. The
way in copies the first and sets the second; the way out copies the first and refuses a model for which the second do
not hold. Sources: the configuration and modelling files of each family in Transformers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig

from hf_gpt.errors import ConversionError
from hf_gpt.models.configuration_hf_gpt import HfGptConfig


_SHARED = {
    name: name
    for name in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "hidden_act",
        "max_position_embeddings",
        "attention_dropout",
        "initializer_range",
        "tie_word_embeddings",
        "use_cache",
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",
    )
}
_LLAMA_FIELDS = {
    **_SHARED,
    "num_key_value_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "rope_parameters": "rope_parameters",
    "norm_eps": "rms_norm_eps",
}
_LANGUAGE_MODEL = {"is_causal": True, "final_logit_softcapping": None, "logit_scale": 1.0}
_LLAMA_IMPLIED = {
    **_LANGUAGE_MODEL,
    "position_embedding_type": "rope",
    "norm_type": "rmsnorm",
    "is_gated_act": True,
    "use_qk_norm": False,
}


@dataclass(frozen=True)
class Family:
    """A model family of Transformers.

    Attributes:
        model_type: Its name there.
        fields: Fields of `HfGptConfig` that it has too, with their names in its configuration.
        implied: Fields of `HfGptConfig` and the value that every model of the family has.
        sliding: Which layers may have a sliding window: none, all or none of them, or any.
        dropouts: Its fields that are our `hidden_dropout`.
        unsupported: Its fields and the only value that `HfGptConfig` can express.
        output_projection_init: How it begins the projections that write to the residual stream.
    """

    model_type: str
    fields: Mapping[str, str]
    implied: Mapping[str, Any]
    sliding: Literal["none", "uniform", "by_layer"] = "none"
    dropouts: tuple[str, ...] = ()
    unsupported: Mapping[str, Any] = field(default_factory=dict)
    output_projection_init: str = "normal"


FAMILIES = {
    family.model_type: family
    for family in (
        Family(
            "gpt2",
            fields={
                **_SHARED,
                "hidden_size": "n_embd",
                "intermediate_size": "n_inner",
                "num_hidden_layers": "n_layer",
                "num_attention_heads": "n_head",
                "hidden_act": "activation_function",
                "max_position_embeddings": "n_positions",
                "attention_dropout": "attn_pdrop",
                "norm_eps": "layer_norm_epsilon",
            },
            implied={
                **_LANGUAGE_MODEL,
                "position_embedding_type": "learned",
                "norm_type": "layernorm",
                "norm_bias": True,
                "is_gated_act": False,
                "use_qk_norm": False,
                "attention_bias": True,
                "attention_out_bias": True,
                "mlp_bias": True,
            },
            dropouts=("resid_pdrop", "embd_pdrop"),
            unsupported={
                "scale_attn_weights": True,
                "scale_attn_by_inverse_layer_idx": False,
                "add_cross_attention": False,
            },
            output_projection_init="scaled",
        ),
        Family(
            "llama",
            fields={**_LLAMA_FIELDS, "attention_bias": "attention_bias", "mlp_bias": "mlp_bias"},
            implied=_LLAMA_IMPLIED,
        ),
        Family(
            "arcee",
            fields={**_LLAMA_FIELDS, "attention_bias": "attention_bias", "mlp_bias": "mlp_bias"},
            implied={**_LLAMA_IMPLIED, "is_gated_act": False},
        ),
        Family(
            "mistral",
            fields=_LLAMA_FIELDS,
            implied={**_LLAMA_IMPLIED, "attention_bias": False, "attention_out_bias": False, "mlp_bias": False},
            sliding="uniform",
        ),
        Family(
            "qwen2",
            fields=_LLAMA_FIELDS,
            implied={**_LLAMA_IMPLIED, "attention_bias": True, "attention_out_bias": False, "mlp_bias": False},
            sliding="by_layer",
        ),
        Family(
            "qwen3",
            fields={**_LLAMA_FIELDS, "attention_bias": "attention_bias"},
            implied={**_LLAMA_IMPLIED, "use_qk_norm": True, "mlp_bias": False},
            sliding="by_layer",
        ),
    )
}

_BIASES = ("attention_bias", "attention_out_bias", "mlp_bias", "norm_bias")
_IN_WORDS = {
    ("position_embedding_type", "rope"): "rotary position embeddings",
    ("position_embedding_type", "learned"): "learned position embeddings",
    ("position_embedding_type", "none"): "a model without position embeddings",
    ("norm_type", "layernorm"): "LayerNorm",
    ("norm_type", "rmsnorm"): "RMSNorm",
    ("is_gated_act", True): "a gated MLP",
    ("is_gated_act", False): "an MLP without a gate",
    ("use_qk_norm", True): "RMSNorm of queries and keys",
    ("use_qk_norm", False): "attention without norms of queries and keys",
    ("is_causal", False): "attention to later tokens",
    ("attention_bias", True): "a bias of the query, key and value projections",
    ("attention_out_bias", True): "a bias of the output projection of attention",
    ("mlp_bias", True): "biases in the MLP",
}


def find_family(model_type: str) -> Family:
    """The family of that name.

    Raises:
        ConversionError: there is none.
    """
    if model_type not in FAMILIES:
        raise ConversionError(
            f"model type {model_type!r} cannot be converted. Choose one of: {', '.join([*FAMILIES, 'hf_gpt'])}."
        )
    return FAMILIES[model_type]


def config_to_ours(config: PreTrainedConfig) -> tuple[HfGptConfig, list[str]]:
    """The `HfGptConfig` that computes what `config` describes, and notes on what was left out.

    Raises:
        ConversionError: it has a setting that `HfGptConfig` cannot express.
    """
    family = find_family(config.model_type)
    notes: list[str] = []
    for name, only in family.unsupported.items():
        if getattr(config, name, only) != only:
            raise ConversionError(f"{name}={getattr(config, name)!r} of {family.model_type} has no counterpart here.")
    values = {ours: getattr(config, theirs, None) for ours, theirs in family.fields.items()} | dict(family.implied)
    if family.model_type == "gpt2":
        values["intermediate_size"] = values["intermediate_size"] or 4 * config.n_embd
    values |= _windows_to_ours(config, family)
    dropouts = {name: getattr(config, name) for name in family.dropouts}
    if dropouts:
        values["hidden_dropout"] = next(iter(dropouts.values()))
        if len(set(dropouts.values())) > 1:
            notes.append(f"hidden_dropout is {values['hidden_dropout']} for all of {dropouts}")
    values["attention_dropout"] = values["attention_dropout"] or 0.0
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        kept = _ids_in_vocabulary(values[name], config.vocab_size)
        if kept != values[name]:
            notes.append(f"{name}={values[name]} is outside the vocabulary of {config.vocab_size} and was left out")
        values[name] = kept
    values["output_projection_init"] = family.output_projection_init
    return _build(HfGptConfig, values, "hf_gpt"), notes


def config_from_ours(config: HfGptConfig, model_type: str) -> tuple[PreTrainedConfig, list[str]]:
    """The configuration of another family that computes what `config` describes, and notes on what was left out.

    Raises:
        ConversionError: the family cannot express it; the message names every setting in the way.
    """
    family = find_family(model_type)
    refused = [_refusal(config, name, value, family) for name, value in family.implied.items()]
    refused.append(_window_refusal(config, family))
    if "num_key_value_heads" not in family.fields and config.num_key_value_heads != config.num_attention_heads:
        refused.append(f"fewer key/value than query heads (num_key_value_heads={config.num_key_value_heads})")
    if "head_dim" not in family.fields and config.head_dim * config.num_attention_heads != config.hidden_size:
        refused.append(f"heads that do not part hidden_size={config.hidden_size} (head_dim={config.head_dim})")
    if refused := [reason for reason in refused if reason]:
        verb = "has" if len(refused) == 1 else "have"
        raise ConversionError(f"{'; '.join(refused)} {verb} no counterpart in {model_type}.")

    values = {theirs: getattr(config, ours) for ours, theirs in family.fields.items()}
    if "attention_bias" in family.fields:
        values["attention_bias"] = config.attention_bias or config.attention_out_bias
    values |= _windows_from_ours(config, family)
    values |= dict.fromkeys(family.dropouts, config.hidden_dropout)
    notes = []
    if config.hidden_dropout and not family.dropouts:
        notes.append(f"hidden_dropout={config.hidden_dropout}, which acts in training alone, has no place there")
    target = _build(type(AutoConfig.for_model(model_type)), values, model_type)
    return target, notes


def _refusal(config: HfGptConfig, name: str, wanted: Any, family: Family) -> str | None:
    value = getattr(config, name)
    # A bias that is not there is a bias of zeros.
    if value == wanted or (name in _BIASES and not value):
        return None
    words = _IN_WORDS.get((name, value), "")
    setting = f"{name}={value!r}"
    if name == "is_gated_act" and not value:
        act = "the squared ReLU" if config.hidden_act == "relu2" else config.hidden_act
        words, setting = f"{words} ({act})", f"hidden_act={config.hidden_act!r}, {setting}"
    return f"{words} [{setting}]" if words else setting


def _window_refusal(config: HfGptConfig, family: Family) -> str | None:
    kinds = set(config.layer_types)
    if "sliding_attention" not in kinds or family.sliding == "by_layer":
        return None
    if family.sliding == "none":
        return f"a sliding window [sliding_window={config.sliding_window}]"
    return "a sliding window in some layers [layer_types]" if len(kinds) > 1 else None


def _windows_to_ours(config: PreTrainedConfig, family: Family) -> dict[str, Any]:
    window = None if family.sliding == "none" else config.sliding_window
    if family.sliding == "by_layer":
        layer_types = list(config.layer_types)
        return {"sliding_window": window if "sliding_attention" in layer_types else None, "layer_types": layer_types}
    return {"sliding_window": window, "layer_types": None}


def _windows_from_ours(config: HfGptConfig, family: Family) -> dict[str, Any]:
    slides = "sliding_attention" in config.layer_types
    if family.sliding == "none":
        return {}
    if family.sliding == "uniform":
        return {"sliding_window": config.sliding_window if slides else None}
    if not slides:
        return {}
    return {
        "use_sliding_window": True,
        "sliding_window": config.sliding_window,
        # For older readers, who know nothing but the first layer that slides.
        "max_window_layers": config.layer_types.index("sliding_attention"),
        "layer_types": list(config.layer_types),
    }


def _ids_in_vocabulary(ids: int | list[int] | None, vocab_size: int) -> int | list[int] | None:
    if isinstance(ids, list):
        return [token_id for token_id in ids if 0 <= token_id < vocab_size] or None
    return ids if ids is not None and 0 <= ids < vocab_size else None


def _build(config_class: type[PreTrainedConfig], values: Mapping[str, Any], model_type: str) -> PreTrainedConfig:
    values = {name: dict(value) if name == "rope_parameters" and value else value for name, value in values.items()}
    try:
        return config_class(**values)
    except (ValueError, TypeError, KeyError, StrictDataclassError) as error:
        # A strict configuration wraps what its own check said.
        raise ConversionError(
            f"these settings make no {model_type} configuration: {error.__cause__ or error}"
        ) from error
