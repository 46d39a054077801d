"""A model as a GGUF file, for llama.cpp, Ollama and LM Studio."""

import sys
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import GenerationConfig, PreTrainedConfig

from hf_gpt.conversion.families import config_from_ours
from hf_gpt.conversion.gguf_layout import LAYOUTS, load_gguf, to_gguf, weight_names
from hf_gpt.conversion.gguf_tokenizer import GgufTokenizer, describe_tokenizer
from hf_gpt.conversion.modelfile import write_modelfile
from hf_gpt.conversion.opening import Conversion, Opened
from hf_gpt.conversion.tokenizers import has_tokenizer, load
from hf_gpt.conversion.weights import Planned, Reader, build, plan, shapes_of_missing
from hf_gpt.errors import ConversionError
from hf_gpt.files.atomic_files import replaces_file
from hf_gpt.models.configuration_hf_gpt import HfGptConfig


# Those that the package gguf can write; llama.cpp's llama-quantize makes the others of an f16 file.
QUANTIZATIONS = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
_OF_DTYPE = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
# Tokens are looked up in it, so errors there are those of every text.
_EMBEDDINGS = ("token_embd.weight", "output.weight")
_LARGEST_IN_F16 = torch.finfo(torch.float16).max
_IN_EIGHT_BITS = ("q5_1", "q5_0", "q4_1", "q4_0")


def check_file(destination: Path, source: Path, overwrite: bool) -> None:
    """Refuses to write a file where something else would be lost.

    Raises:
        ConversionError: the destination is the source, a folder, or a file that may not be replaced.
    """
    load_gguf()
    if destination.resolve() == source.resolve():
        raise ConversionError(f"{destination} is the source itself. Choose another name.")
    if destination.is_dir():
        raise ConversionError(f"{destination} is a folder. Name a file.")
    for path in (destination, destination.with_suffix(".Modelfile")):
        if path.exists() and not overwrite:
            raise ConversionError(f"{path} exists. Choose another name, or replace it with --overwrite.")


def write_gguf(opened: Opened, destination: Path, to: str, *, quantize: str | None, tokenizer: bool) -> Conversion:
    """Writes a model as a GGUF file, and beside it a Modelfile of Ollama. The file appears once all is written.

    One weight at a time is in memory. Norms, biases and learned positions stay in float32. With fewer than eight bits
    the embeddings are kept in `q8_0`.

    Args:
        opened: The model.
        destination: The file.
        to: A family, or `"hf_gpt"` for the first that the model can be.
        quantize: One of `QUANTIZATIONS`, or None for that of the weights' dtype.
        tokenizer: Whether the tokenizer is written too.

    Raises:
        ConversionError: llama.cpp has no architecture that computes the same, or no pattern that cuts texts as the
            tokenizer does, or the values do not fit the quantization.
    """
    if quantize is not None and quantize not in QUANTIZATIONS:
        raise ConversionError(
            f"--quantize {quantize}: choose one of {', '.join(QUANTIZATIONS)}. llama.cpp's llama-quantize makes its "
            "other kinds of an f16 file."
        )
    model_type, target, notes = _choose_family(opened.config, to)
    result = Conversion(opened.source_type, model_type, notes=[*opened.notes, *notes])
    reader = Reader(opened.weights, opened.source_type, opened.config)
    planned = plan(reader, target, model_type)
    quantize = quantize or _OF_DTYPE.get(reader.dtype("model.embed_tokens.weight"), "f32")
    described = _describe(opened, tokenizer, result.notes)
    gguf = load_gguf()
    with replaces_file(destination) as draft:
        writer = gguf.GGUFWriter(draft, LAYOUTS[model_type].name)
        writer.add_name(destination.stem)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_file_type(_file_type(gguf, quantize))
        _add_settings(writer, opened.config, model_type)
        _add_tokenizer(writer, described, opened.config)
        _write_weights(writer, reader, planned, model_type, opened.config, quantize)
    if described is not None:
        how = _generation_config(opened.folder)
        result.notes += write_modelfile(destination, load(opened.folder), described, opened.config, how)
    result.files = [destination.name]
    result.num_parameters = sum(weight.num_elements for weight in planned.values())
    return result


def _choose_family(config: HfGptConfig, to: str) -> tuple[str, PreTrainedConfig, list[str]]:
    candidates = [name for name in LAYOUTS if name != "mistral"] if to == "hf_gpt" else [to]
    if config.attention_bias and not config.attention_out_bias and to == "hf_gpt":
        # Biases of the queries, keys and values alone are what Qwen2 has.
        candidates.sort(key=lambda name: name != "qwen2")
    reasons = []
    for name in candidates:
        try:
            _check_layout(config, name)
            return name, *config_from_ours(config, name)
        except ConversionError as error:
            reasons.append(str(error).rstrip("."))
    if len(reasons) == 1:
        raise ConversionError(f"{reasons[0]}.")
    raise ConversionError(
        f"no architecture of llama.cpp computes what this model does. {'. '.join(reasons)}. A model trained without "
        "norms of queries and keys (hf-gpt pretrain --config_overrides use_qk_norm=false) can be written."
    )


def _check_layout(config: HfGptConfig, model_type: str) -> None:
    layout = LAYOUTS[model_type]
    in_the_way = []
    if config.hidden_act not in layout.activations:
        in_the_way.append(f"hidden_act={config.hidden_act!r}")
    if "sliding_attention" in config.layer_types:
        in_the_way.append(f"a sliding window [sliding_window={config.sliding_window}]")
    kind = (config.rope_parameters or {}).get("rope_type", "default")
    if config.position_embedding_type == "rope" and kind not in ("default", "linear"):
        in_the_way.append(f"positions scaled by rope_type={kind!r}")
    if in_the_way:
        verb = "has" if len(in_the_way) == 1 else "have"
        raise ConversionError(f"{'; '.join(in_the_way)} {verb} no counterpart in llama.cpp's {layout.name}.")


def _describe(opened: Opened, wanted: bool, notes: list[str]) -> GgufTokenizer | None:
    if not wanted:
        return None
    if opened.folder is None or not has_tokenizer(opened.folder):
        notes.append("the source has no tokenizer: ids go in and come out")
        return None
    described = describe_tokenizer(load(opened.folder), opened.config.vocab_size)
    notes += described.notes
    return described


def _file_type(gguf: Any, quantize: str) -> Any:
    name = "ALL_F32" if quantize == "f32" else f"MOSTLY_{quantize.upper()}"
    return gguf.LlamaFileType[name]


def _add_settings(writer: Any, config: HfGptConfig, model_type: str) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    if model_type == "gpt2":
        writer.add_layer_norm_eps(config.norm_eps)
        return
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if config.rope_parameters.get("rope_type") == "linear":
        writer.add_rope_scaling_type(load_gguf().RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])


def _add_tokenizer(writer: Any, described: GgufTokenizer | None, config: HfGptConfig) -> None:
    if described is None:
        writer.add_tokenizer_model("none")
        return
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(described.pattern)
    writer.add_token_list(described.tokens)
    writer.add_token_types(described.types)
    writer.add_token_merges(described.merges)
    # llama.cpp takes token 11 for what ends a text unless it is told.
    eos = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
    special = {"bos": config.bos_token_id, "eos": eos, **described.special}
    for name, number in special.items():
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(described.adds_bos)
    writer.add_add_eos_token(described.adds_eos)
    if described.chat_template:
        writer.add_chat_template(described.chat_template)


def _write_weights(
    writer: Any, reader: Reader, planned: dict[str, Planned], model_type: str, config: HfGptConfig, quantize: str
) -> None:
    gguf = load_gguf()
    their_names = {weight.name: name for name, weight in weight_names(model_type, config.num_hidden_layers).items()}
    kinds = {}
    for name, weight in planned.items():
        theirs = their_names[name]
        shape = weight.shape[::-1] if weight.theirs.is_conv1d else weight.shape
        kind = gguf.GGMLQuantizationType[_kind(theirs, shape, quantize).upper()]
        size = gguf.quants.quant_shape_to_byte_shape(shape, kind) if kind.name not in ("F32", "F16") else shape
        num_bytes = torch.Size(size).numel() * {"F32": 4, "F16": 2}.get(kind.name, 1)
        writer.add_tensor_info(theirs, shape, None, num_bytes, raw_dtype=kind)
        kinds[name] = kind
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    missing = shapes_of_missing(reader, planned)
    try:
        for name in tqdm(planned, desc="writing", unit=" weights", leave=False, disable=not sys.stderr.isatty()):
            tensor = build(reader, planned[name], missing)
            values = to_gguf(tensor, their_names[name], model_type, config).float().numpy()
            if kinds[name].name == "F16" and abs(values).max() > _LARGEST_IN_F16:
                raise ConversionError(f"{name} holds values that f16 cannot. Choose --quantize bf16 or f32.")
            writer.write_tensor_data(gguf.quants.quantize(values, kinds[name]))
    finally:
        writer.close()


def _kind(name: str, shape: tuple[int, ...], quantize: str) -> str:
    if len(shape) == 1 or name == "position_embd.weight":
        return "f32"
    if quantize in _IN_EIGHT_BITS and name in _EMBEDDINGS:
        quantize = "q8_0"
    # Blocks are of 32 values.
    return "f16" if quantize.startswith("q") and shape[-1] % 32 else quantize


def _generation_config(folder: Path) -> GenerationConfig | None:
    is_there = (folder / "generation_config.json").is_file()
    return GenerationConfig.from_pretrained(folder) if is_there else None
