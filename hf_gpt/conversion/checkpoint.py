"""From one checkpoint to the same model as another architecture."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from hf_gpt.conversion.families import FAMILIES, config_from_ours, config_to_ours
from hf_gpt.conversion.nanogpt import nanogpt_config
from hf_gpt.conversion.sources import SafetensorsSource, Source, read_nanogpt
from hf_gpt.conversion.tokenizers import carry_tokenizer, has_tokenizer
from hf_gpt.conversion.weights import Reader, plan, write
from hf_gpt.errors import ConversionError
from hf_gpt.files.checkpoints import atomic_directory, find_model
from hf_gpt.files.model_paths import check_exists, describe_file
from hf_gpt.models.configuration_hf_gpt import MOST_LAYERS, HfGptConfig
from hf_gpt.remote_code import write_code


TARGETS = ("hf_gpt", *FAMILIES)
# What must stay with weights that somebody else published.
_TERMS = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
_WANTED_FROM_HUB = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", *_TERMS]


@dataclass
class Conversion:
    """What was done.

    Attributes:
        source_type: Architecture of the source: a model type, or `"nanogpt"`.
        target_type: Model type of what was written.
        files: Files with weights.
        num_parameters: Number of parameters written.
        notes: What could not be carried over and does not change what the model computes.
    """

    source_type: str
    target_type: str
    files: list[str] = field(default_factory=list)
    num_parameters: int = 0
    notes: list[str] = field(default_factory=list)


def convert(
    source: str | Path,
    destination: str | Path,
    to: str = "hf_gpt",
    *,
    max_shard_size: int | str = "5GB",
    revision: str | None = None,
    tokenizer: bool = True,
    overwrite: bool = False,
) -> Conversion:
    """Writes a checkpoint as another architecture that computes the same logits, with tokenizer and generation config.

    Weights keep their values and dtypes. Those of one file at a time are in memory. The destination appears once all
    is written.

    Args:
        source: Folder of a checkpoint with safetensors, a `.pt` file of nanoGPT, or a Hub id.
        destination: Folder to write.
        to: `"hf_gpt"`, `"gpt2"`, `"llama"`, `"mistral"`, `"qwen2"` or `"qwen3"`.
        max_shard_size: Most bytes of a file of weights, or text such as `"5GB"`.
        revision: Branch, tag or commit of a Hub id.
        tokenizer: Whether the tokenizer is written too.
        overwrite: Whether a checkpoint at the destination may be replaced.

    Raises:
        ConversionError: the source is damaged or of another kind, the target cannot express it, or the destination is
            taken.
    """
    if to not in TARGETS:
        raise ConversionError(f"--to {to}: choose one of {', '.join(TARGETS)}.")
    destination = Path(destination).expanduser()
    path = _find_source(source, revision)
    _check_destination(destination, path, overwrite)
    source_type, ours, weights, original, notes = _open_source(path)
    target, more_notes = (ours, []) if to == "hf_gpt" else config_from_ours(ours, to)
    result = Conversion(source_type, to, notes=[*notes, *more_notes])
    target.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[to]]
    target.dtype = getattr(original, "dtype", None)
    reader = Reader(weights, source_type, ours)
    planned = plan(reader, target, to)
    if target.dtype is None and len(dtypes := {weight.dtype for weight in planned.values()}) == 1:
        target.dtype = dtypes.pop()
    with atomic_directory(destination) as staging:
        _write_config(target, staging)
        if to == "hf_gpt":
            write_code(HfGptConfig, staging)
        if path.is_dir():
            _carry_generation_config(path, staging)
            _carry_terms(path, staging)
        if tokenizer and path.is_dir() and has_tokenizer(path):
            carry_tokenizer(path, staging, to)
        elif tokenizer:
            result.notes.append("the source has no tokenizer: none was written")
        result.files = write(reader, planned, staging, max_shard_size)
        for file in result.files:
            # Safetensors keeps its files from everybody but the owner, whatever the umask says.
            (staging / file).chmod((staging / "config.json").stat().st_mode)
    result.num_parameters = sum(weight.num_elements for weight in planned.values())
    return result


def _find_source(source: str | Path, revision: str | None) -> Path:
    path = Path(find_model(str(Path(source).expanduser()), allow_file=True))
    if path.is_file() and (kind := describe_file(path)) is not None:
        raise ConversionError(f"{path} is {kind}.")
    if path.exists():
        return path
    check_exists(str(source))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=_WANTED_FROM_HUB))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        # The client's messages have lines of advice that do not fit a path that was misspelt.
        reason = str(error).partition("\n")[0]
        raise ConversionError(f"{source} is no folder and cannot be had from the Hub: {reason}") from error


def _check_destination(destination: Path, source: Path, overwrite: bool) -> None:
    resolved, origin = destination.resolve(), source.resolve()
    if resolved == origin or resolved in origin.parents:
        raise ConversionError(f"{destination} holds the source itself. Choose another folder.")
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return
    if not destination.is_dir():
        raise ConversionError(f"{destination} is a file. Name a folder.")
    if not overwrite:
        raise ConversionError(f"{destination} is not empty. Choose another folder, or replace it with --overwrite.")
    if not (destination / "config.json").is_file():
        raise ConversionError(f"{destination} holds no checkpoint, so it is not replaced. Choose another folder.")


def _open_source(path: Path) -> tuple[str, HfGptConfig, Source, Any, list[str]]:
    if path.is_file():
        weights, settings = read_nanogpt(path)
        config, notes = nanogpt_config(settings)
        return "nanogpt", config, weights, None, notes
    config = _read_config(path)
    weights = SafetensorsSource(path)
    if isinstance(config, HfGptConfig):
        # A new one without the paths and the code of the old.
        with _refusing(path / "config.json"):
            ours = HfGptConfig.from_dict({**config.to_dict(), "auto_map": None})
        return "hf_gpt", ours, weights, config, []
    ours, notes = config_to_ours(config)
    return config.model_type, ours, weights, config, notes


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """A damaged configuration raises errors of many kinds."""
    try:
        yield
    except Exception as error:
        raise ConversionError(f"{path} cannot be read: {error.__cause__ or error}") from error


def _check_size(path: Path) -> None:
    # The library's configurations make a list of all layers before they look at their number.
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name in ("num_hidden_layers", "n_layer"):
        number = content.get(name) if isinstance(content, dict) else None
        if isinstance(number, int | float) and number > MOST_LAYERS:
            raise ValueError(f"{name}={number} is more than {MOST_LAYERS:,}")


def _read_config(path: Path) -> PreTrainedConfig:
    with _refusing(path / "config.json"):
        _check_size(path / "config.json")
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    if getattr(config, "quantization_config", None) is not None:
        raise ConversionError(f"{path} is quantized (quantization_config). Dequantize and save it first.")
    return config


def _write_config(config: PreTrainedConfig, folder: Path) -> None:
    try:
        config.save_pretrained(folder)
    except StrictDataclassError as error:
        raise ConversionError(f"these settings make no configuration to save: {error.__cause__ or error}") from error
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    # For readers that do not know `rope_parameters`, or want GPT-2's length twice: llama.cpp, mistral.rs, vLLM of old.
    if config.model_type == "gpt2":
        content["n_ctx"] = content["n_positions"]
    elif config.model_type in FAMILIES:
        rope = dict(config.rope_parameters)
        content["rope_theta"] = rope.pop("rope_theta")
        if rope["rope_type"] != "default":
            content["rope_scaling"] = {**rope, "rope_theta": content["rope_theta"]}
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _carry_generation_config(source: Path, destination: Path) -> None:
    if not (source / "generation_config.json").is_file():
        return
    try:
        GenerationConfig.from_pretrained(source)
    except (OSError, ValueError, TypeError) as error:
        raise ConversionError(f"{source / 'generation_config.json'} cannot be read: {error}") from error
    shutil.copyfile(source / "generation_config.json", destination / "generation_config.json")


def _carry_terms(source: Path, destination: Path) -> None:
    for pattern in _TERMS:
        for path in source.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, destination / path.name)
