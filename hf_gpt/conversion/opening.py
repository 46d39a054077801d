"""What a conversion starts from: a checkpoint's settings as ours, its weights, and the files beside them."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedConfig

from hf_gpt.conversion.families import config_to_ours
from hf_gpt.conversion.nanogpt import nanogpt_config
from hf_gpt.conversion.sources import SafetensorsSource, Source, read_nanogpt
from hf_gpt.errors import ConversionError
from hf_gpt.files.checkpoints import find_model
from hf_gpt.files.model_paths import check_exists, describe_file, is_gguf
from hf_gpt.models.configuration_hf_gpt import MOST_LAYERS, HfGptConfig


# What must stay with weights that somebody else published.
TERMS = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
_WANTED_FROM_HUB = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", *TERMS]


@dataclass
class Opened:
    """A checkpoint to convert.

    Attributes:
        source_type: Its architecture: a model type, or `"nanogpt"`.
        config: Its settings as ours.
        weights: As they lie there.
        dtype: What its configuration says, if anything.
        notes: What was assumed or left out.
        folder: With its tokenizer and generation config; None where there are none.
    """

    source_type: str
    config: HfGptConfig
    weights: Source
    dtype: torch.dtype | None = None
    notes: list[str] = field(default_factory=list)
    folder: Path | None = None


@dataclass
class Conversion:
    """What was done.

    Attributes:
        source_type: Architecture of the source: a model type, or `"nanogpt"`.
        target_type: Model type of what was written; for a GGUF file that of the layout in it.
        files: Files with weights.
        num_parameters: Number of parameters written.
        notes: What could not be carried over and does not change what the model computes.
    """

    source_type: str
    target_type: str
    files: list[str] = field(default_factory=list)
    num_parameters: int = 0
    notes: list[str] = field(default_factory=list)


def find_source(source: str | Path, revision: str | None) -> Path:
    """Where a checkpoint lies: as given, in a run's folder, or downloaded from the Hub.

    Raises:
        ConversionError: there is none of that name, or it is a file of another kind.
    """
    path = Path(find_model(str(Path(source).expanduser()), allow_file=True))
    if path.is_file() and not is_gguf(path) and (kind := describe_file(path)) is not None:
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


@contextmanager
def open_source(path: Path, tokenizer: bool = True) -> Iterator[Opened]:
    """Opens a folder of a checkpoint, a GGUF file or a `.pt` file of nanoGPT. Weights are read later, one at a time.

    Args:
        path: From `find_source`.
        tokenizer: Whether the tokenizer of a GGUF file is read too.

    Raises:
        ConversionError: it is damaged, or of an architecture that has no counterpart.
    """
    if path.is_file() and is_gguf(path):
        from hf_gpt.conversion.gguf_source import open_gguf

        with tempfile.TemporaryDirectory() as folder:
            yield open_gguf(path, Path(folder), tokenizer)
        return
    if path.is_file():
        weights, settings = read_nanogpt(path)
        config, notes = nanogpt_config(settings)
        yield Opened("nanogpt", config, weights, notes=notes)
        return
    config = _read_config(path)
    weights = SafetensorsSource(path)
    dtype = getattr(config, "dtype", None)
    if isinstance(config, HfGptConfig):
        # A new one without the paths and the code of the old.
        with _refusing(path / "config.json"):
            ours = HfGptConfig.from_dict({**config.to_dict(), "auto_map": None})
        yield Opened("hf_gpt", ours, weights, dtype, folder=path)
        return
    ours, notes = config_to_ours(config)
    yield Opened(config.model_type, ours, weights, dtype, notes, path)


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
