"""From one checkpoint to the same model as another architecture."""

import json
import shutil
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers import GenerationConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from hf_gpt.conversion.families import FAMILIES, config_from_ours
from hf_gpt.conversion.gguf_file import check_file, write_gguf
from hf_gpt.conversion.opening import TERMS, Conversion, Opened, find_source, open_source
from hf_gpt.conversion.tokenizers import carry_tokenizer, has_tokenizer
from hf_gpt.conversion.weights import Reader, plan, write
from hf_gpt.errors import ConversionError
from hf_gpt.files.checkpoints import atomic_directory
from hf_gpt.models.configuration_hf_gpt import HfGptConfig
from hf_gpt.remote_code import write_code


TARGETS = ("hf_gpt", *FAMILIES)


def convert(
    source: str | Path,
    destination: str | Path,
    to: str = "hf_gpt",
    *,
    max_shard_size: int | str = "5GB",
    revision: str | None = None,
    tokenizer: bool = True,
    overwrite: bool = False,
    quantize: str | None = None,
) -> Conversion:
    """Writes a checkpoint as another architecture that computes the same logits, with tokenizer and generation config.

    Weights keep their values and dtypes. Those of one file at a time are in memory. The destination appears once all
    is written.

    Args:
        source: Folder of a checkpoint with safetensors, a `.gguf` file, a `.pt` file of nanoGPT, or a Hub id.
        destination: Folder to write, or a file that ends in `.gguf`.
        to: `"hf_gpt"`, `"gpt2"`, `"llama"`, `"arcee"`, `"mistral"`, `"qwen2"` or `"qwen3"`. For a GGUF file
            `"hf_gpt"` means the first of the others that the model can be.
        max_shard_size: Most bytes of a file of weights, or text such as `"5GB"`.
        revision: Branch, tag or commit of a Hub id.
        tokenizer: Whether the tokenizer is written too.
        overwrite: Whether a checkpoint or file at the destination may be replaced.
        quantize: How a GGUF file keeps its weights, such as `"q8_0"`; by default as they are.

    Raises:
        ConversionError: the source is damaged or of another kind, the target cannot express it, or the destination is
            taken.
    """
    if to not in TARGETS:
        raise ConversionError(f"--to {to}: choose one of {', '.join(TARGETS)}.")
    destination = Path(destination).expanduser()
    path = find_source(source, revision)
    as_gguf = destination.suffix.lower() == ".gguf"
    if as_gguf:
        check_file(destination, path, overwrite)
    elif quantize is not None:
        raise ConversionError(f"--quantize {quantize} is for GGUF files: let the destination end in .gguf.")
    else:
        _check_destination(destination, path, overwrite)
    with open_source(path, tokenizer) as opened:
        if as_gguf:
            return write_gguf(opened, destination, to, quantize=quantize, tokenizer=tokenizer)
        return _write_folder(opened, destination, to, max_shard_size, tokenizer)


def _write_folder(opened: Opened, destination: Path, to: str, max_shard_size: int | str, tokenizer: bool) -> Conversion:
    target, more_notes = (opened.config, []) if to == "hf_gpt" else config_from_ours(opened.config, to)
    result = Conversion(opened.source_type, to, notes=[*opened.notes, *more_notes])
    target.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[to]]
    target.dtype = opened.dtype
    reader = Reader(opened.weights, opened.source_type, opened.config)
    planned = plan(reader, target, to)
    if target.dtype is None and len(dtypes := {weight.dtype for weight in planned.values()}) == 1:
        target.dtype = dtypes.pop()
    with atomic_directory(destination) as staging:
        _write_config(target, staging)
        if to == "hf_gpt":
            write_code(HfGptConfig, staging)
        if opened.folder is not None:
            _carry_generation_config(opened.folder, staging)
            _carry_terms(opened.folder, staging)
        if tokenizer and opened.folder is not None and has_tokenizer(opened.folder):
            carry_tokenizer(opened.folder, staging, to)
        elif tokenizer:
            result.notes.append("the source has no tokenizer: none was written")
        result.files = write(reader, planned, staging, max_shard_size)
        for file in result.files:
            # Safetensors keeps its files from everybody but the owner, whatever the umask says.
            (staging / file).chmod((staging / "config.json").stat().st_mode)
    result.num_parameters = sum(weight.num_elements for weight in planned.values())
    return result


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
    for pattern in TERMS:
        for path in source.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, destination / path.name)
