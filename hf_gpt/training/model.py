"""The model and the tokenizer that a training command starts from."""

import inspect
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from hf_gpt.errors import CheckpointError, ConfigError, did_you_mean
from hf_gpt.files.checkpoints import find_model
from hf_gpt.files.model_paths import check_exists
from hf_gpt.generation.embeddings import vocabulary_size
from hf_gpt.option_ranges import MOST_TOKENS
from hf_gpt.reporting.environment import total_memory
from hf_gpt.training.arguments.model import ModelArguments
from hf_gpt.training.monitoring.cost_model import count_elements


_MODEL_TYPES_WITH_PRESETS = ("hf_gpt", "hf_gpt_seq2seq")
_NAMES_OF_HEADS = {
    "AutoModelForCausalLM": "causal language model",
    "AutoModelForSeq2SeqLM": "encoder-decoder",
}


def load_tokenizer(name_or_path: str, model_args: ModelArguments, auto_class: str = "AutoTokenizer") -> Any:
    """A tokenizer from a folder or the Hub; with `auto_class="AutoProcessor"` a processor, if there is one.

    Raises `CheckpointError` where there is none.
    """
    check_exists(name_or_path)
    try:
        return getattr(transformers, auto_class).from_pretrained(
            find_model(name_or_path),
            revision=model_args.model_revision,
            trust_remote_code=model_args.trust_remote_code,
        )
    except Exception as error:
        # Readers of libraries stumble over a file of a wrong form wherever they are.
        raise CheckpointError(f"no tokenizer can be loaded from {name_or_path}: {error}") from error


def build_model(
    model_args: ModelArguments,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    seed: int,
    *,
    auto_class: str = "AutoModelForCausalLM",
    task_fields: Mapping[str, Any] | None = None,
    quantization_config: Any = None,
) -> PreTrainedModel:
    """A model: loaded if `model_name_or_path` says so, else new with random weights by `seed`.

    Args:
        model_args: Which model.
        tokenizer: Sizes the embeddings.
        max_length: Longest row in tokens.
        seed: Of new weights, those of a new head on a loaded model too.
        auto_class: Name of the Auto class that makes it.
        task_fields: Config fields that a task decides. Given, they and `config_overrides` hold for a loaded model too.
        quantization_config: How the weights of a loaded model are kept; None keeps them as they are.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        ConfigError: the settings of a new model cannot work, or the rows are longer than a loaded model can read.
    """
    options: dict[str, Any] = {"trust_remote_code": model_args.trust_remote_code, "dtype": model_args.dtype}
    if model_args.attn_implementation is not None:
        options["attn_implementation"] = model_args.attn_implementation
    if model_args.model_name_or_path is not None:
        torch.manual_seed(seed)
        if quantization_config is not None:
            options["quantization_config"] = quantization_config
        model = _load_model(model_args, options, auto_class, task_fields)
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and max_length > limit:
            raise ConfigError(f"--max_length {max_length} is more than the {limit} tokens that the model can read.")
        if len(tokenizer) > vocabulary_size(model):
            model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=model_args.pad_vocab_to_multiple_of)
        return model
    if auto_class == "AutoModelForSeq2SeqLM" and model_args.model_type == "hf_gpt":
        model_args = replace(model_args, model_type="hf_gpt_seq2seq")
    config = build_config(model_args, tokenizer, max_length, task_fields)
    _check_memory(config)
    if options["dtype"] == "auto":
        options["dtype"] = "float32"
    options["dtype"] = getattr(torch, options["dtype"])
    torch.manual_seed(seed)
    try:
        return getattr(transformers, auto_class).from_config(config, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"no {model_args.model_type} model can be made of these settings: {error}") from error


def extend_end_tokens(model: PreTrainedModel, token_ids: Iterable[int]) -> None:
    """Lets `generate` stop at these tokens too, beside those at which the model stops already."""
    config = getattr(model, "generation_config", None)
    known = end_tokens(model)
    more = [token for token in sorted(token_ids) if token not in known]
    if config is not None and more:
        config.eos_token_id = [*known, *more]


def end_tokens(model: PreTrainedModel) -> list[int]:
    """The tokens at which `generate` stops by the model's own defaults."""
    found = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return [] if found is None else list(found) if isinstance(found, (list, tuple)) else [found]


def choose_architecture(model_args: ModelArguments, architecture: str) -> str:
    """`architecture`, or for `"auto"` what the model that is named is: `"decoder"` or `"encoder_decoder"`."""
    if architecture != "auto":
        return architecture
    return "encoder_decoder" if _config_of(model_args).is_encoder_decoder else "decoder"


def build_config(
    model_args: ModelArguments,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    task_fields: Mapping[str, Any] | None = None,
) -> PreTrainedConfig:
    """The config of a new model: the preset or architecture, sized to tokenizer and rows, then `config_overrides`.

    `task_fields` are what a task decides. Raises `ConfigError` for what is unknown or cannot work together.
    """
    multiple = max(1, model_args.pad_vocab_to_multiple_of)
    fitted = {
        "vocab_size": -(-len(tokenizer) // multiple) * multiple,
        "max_position_embeddings": max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **(task_fields or {}),
    }
    overrides = model_args.overrides
    try:
        if model_args.preset is not None and model_args.model_type not in _MODEL_TYPES_WITH_PRESETS:
            raise ConfigError(f"--preset belongs to hf_gpt models, but --model_type is {model_args.model_type}.")
        if model_args.preset == "auto":
            raise ConfigError("--preset auto chooses the size for hf-gpt pretrain alone. Name one, such as small.")
        config_class = _config_class(model_args.model_type)
        check_fields(config_class, overrides)
        _check_numbers(overrides)
        if model_args.preset is not None:
            return config_class.preset(model_args.preset, **{**fitted, **overrides})
        config = config_class(**{**fitted, **overrides})
        if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
            config.decoder_start_token_id = config.pad_token_id if config.bos_token_id is None else config.bos_token_id
        return config
    except ConfigError:
        raise
    except (ValueError, TypeError, StrictDataclassError) as error:
        # A strict config wraps what its own check said.
        raise ConfigError(
            f"these settings make no {model_args.model_type} config: {error.__cause__ or error}"
        ) from error


def _check_numbers(overrides: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for sizes that would fill the memory while a config or model is made of them."""
    for name, value in overrides.items():
        # Rates of RoPE are no sizes.
        if type(value) in (int, float) and abs(value) > MOST_TOKENS and "theta" not in name:
            raise ConfigError(f"--config_overrides: {name} is {value:,}; it can be at most {MOST_TOKENS:,}.")


# A sharded model may be larger than what one machine holds.
_TIMES_THE_MEMORY = 8


def _check_memory(config: PreTrainedConfig) -> None:
    """Raises `ConfigError` for a new model that is far larger than the machine's memory, before it is allocated."""
    sizes = [getattr(config, name, None) for name in ("vocab_size", "hidden_size", "num_hidden_layers")]
    memory = total_memory()
    if memory is None or not all(isinstance(size, int) for size in sizes):
        return
    vocabulary, width, layers = sizes
    # Embeddings, and attention of each layer, in float32.
    least = 4 * (vocabulary * width + layers * 4 * width**2)
    if least > _TIMES_THE_MEMORY * memory:
        raise ConfigError(
            f"a model of {vocabulary:,} tokens, width {width:,} and {layers:,} layers takes more than "
            f"{least / 2**30:,.0f} GiB, and this machine has {memory / 2**30:,.0f}. Choose a smaller one."
        )


def count_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """Number of parameters, and of those that are not token embeddings (which cost no computation)."""
    total = count_elements(model.parameters())
    return total, total - count_elements(model.get_input_embeddings().parameters())


def _load_model(
    model_args: ModelArguments, options: dict[str, Any], auto_class: str, task_fields: Mapping[str, Any] | None
) -> PreTrainedModel:
    path = find_model(model_args.model_name_or_path)
    options = {**options, "revision": model_args.model_revision}
    try:
        if task_fields is not None:
            source = {name: options[name] for name in ("revision", "trust_remote_code")}
            config_class = type(AutoConfig.from_pretrained(path, **source))
            if auto_class == "AutoModelForSeq2SeqLM" and config_class.model_type == "hf_gpt":
                from hf_gpt.models.configuration_hf_gpt_seq2seq import HfGptSeq2SeqConfig
                from hf_gpt.models.modeling_hf_gpt_seq2seq import HfGptForConditionalGeneration

                check_fields(HfGptSeq2SeqConfig, model_args.overrides)
                return HfGptForConditionalGeneration.from_decoder(
                    path, config_overrides={**model_args.overrides, **task_fields}, **options
                )
            check_fields(config_class, model_args.overrides)
            options["config"] = AutoConfig.from_pretrained(path, **source, **model_args.overrides, **task_fields)
        return getattr(transformers, auto_class).from_pretrained(path, **options)
    except ConfigError:
        raise
    except Exception as error:
        kind = "folder" if Path(path).is_dir() else "Hub id"
        wanted = _NAMES_OF_HEADS.get(auto_class, auto_class)
        raise CheckpointError(f"--model_name_or_path: no {wanted} in the {kind} {path}: {error}") from error


def _config_of(model_args: ModelArguments) -> PreTrainedConfig:
    """The config of the model that is named, or of its architecture as it is by default."""
    if model_args.model_name_or_path is None:
        return _config_class(model_args.model_type)()
    path = find_model(model_args.model_name_or_path)
    source = {"revision": model_args.model_revision, "trust_remote_code": model_args.trust_remote_code}
    try:
        return AutoConfig.from_pretrained(path, **source)
    except Exception as error:
        # Readers of libraries stumble over a config of a wrong form wherever they are.
        raise CheckpointError(f"--model_name_or_path: no model in {path}: {error}") from error


def _config_class(model_type: str) -> type[PreTrainedConfig]:
    try:
        return type(AutoConfig.for_model(model_type))
    except ValueError:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        hint = did_you_mean(model_type, ["hf_gpt", *CONFIG_MAPPING_NAMES])
        raise ConfigError(f"--model_type: unknown architecture {model_type!r}{hint}") from None


def check_fields(config_class: type[PreTrainedConfig], overrides: dict[str, Any]) -> None:
    """Raises `ConfigError` for the first key of `overrides` that is no field of the config, naming the nearest."""
    # A config takes any keyword and keeps what it does not know, so a misspelt field would pass in silence.
    valid = known_fields(config_class)
    for field in overrides:
        if field not in valid:
            hint = did_you_mean(field, sorted(name for name in valid if not name.startswith("_")))
            raise ConfigError(f"--config_overrides: {config_class.__name__} has no field {field!r}{hint}")


def known_fields(config_class: type[PreTrainedConfig]) -> set[str]:
    """Names that may be given to a config."""
    return {*inspect.signature(config_class).parameters, *vars(config_class()), *config_class.attribute_map}


# Dropout of what a loaded model has learned; that of a new head on top of it is another matter.
_TRUNK_DROPOUTS = ("hidden_dropout", "attention_dropout")


def leave_out_of_recipe(
    model_args: ModelArguments, recipe: Mapping[str, Any], own_overrides: Collection[str] = ()
) -> list[str]:
    """Takes what a built-in recipe says of our models, or of new ones, out of the options of another model; names it.

    A loaded model keeps its own dropout: a deep one that was trained without begins far from what it has learned. What
    the command line says (`own_overrides`) stays: dropout holds, and a field of another architecture is refused by its
    name.

    Raises:
        CheckpointError: there is no model at the place that is named.
        ConfigError: an unknown architecture, or a new model of a size that nobody named.
    """
    config_class = type(_config_of(model_args))
    known, proposed = known_fields(config_class), recipe.get("config_overrides") or {}
    overrides = model_args.overrides
    is_loaded = model_args.model_name_or_path is not None
    foreign = [
        name
        for name in overrides
        if name in proposed
        and name not in own_overrides
        and (name not in known or (is_loaded and name in _TRUNK_DROPOUTS))
    ]
    if foreign:
        kept = {name: value for name, value in overrides.items() if name not in foreign}
        model_args.config_overrides = json.dumps(kept) if kept else None
    if config_class.model_type in _MODEL_TYPES_WITH_PRESETS or model_args.preset != recipe.get("preset"):
        return foreign
    model_args.preset = None
    if model_args.model_name_or_path is not None or not proposed.keys() >= model_args.overrides.keys():
        return foreign
    if not config_class.model_type.startswith("hf_"):
        raise ConfigError(
            f"--model_type {config_class.model_type} has no presets: name the size of the model by --config_overrides."
        )
    return [*foreign, "preset"]
