"""`hf-gpt convert`: a checkpoint as another architecture that computes the same."""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Literal

from hf_gpt.cli.command import REQUIRED, command, option
from hf_gpt.cli.next_step import print_next, use_of_model


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """The options of the command."""

    source: str = option(
        REQUIRED,
        "folder of a GPT-2, Llama, Arcee, Mistral, Qwen2, Qwen3 or HfGpt checkpoint, a .gguf file, a ckpt.pt of "
        "nanoGPT, or a Hub id",
        positional=True,
    )
    destination: str = option(REQUIRED, "folder to write, or a file that ends in .gguf", positional=True)
    to: Literal["hf_gpt", "gpt2", "llama", "arcee", "mistral", "qwen2", "qwen3"] = option(
        "hf_gpt", "architecture to write (a .gguf file has the first of the others that fits)"
    )
    quantize: str | None = option(
        None,
        "how a .gguf file keeps weights: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1 or q4_0 (default: as they are)",
    )
    max_shard_size: str = option("5GB", "most bytes of a file of weights")
    revision: str | None = option(None, "branch, tag or commit of a Hub id")
    no_tokenizer: bool = option(False, "write the model alone")
    overwrite: bool = option(False, "replace a checkpoint or file at the destination")


def _convert(args: ConvertOptions) -> None:
    from hf_gpt.conversion.checkpoint import convert

    result = convert(
        args.source,
        args.destination,
        args.to,
        max_shard_size=args.max_shard_size,
        revision=args.revision,
        tokenizer=not args.no_tokenizer,
        overwrite=args.overwrite,
        quantize=args.quantize,
    )
    files = f"{len(result.files)} files" if len(result.files) > 1 else result.files[0]
    kinds = f"{result.source_type} -> {result.target_type}"
    print(f"{args.destination}: {kinds}, {result.num_parameters:,} parameters in {files}")
    for note in result.notes:
        print(f"note: {note}")
    print_next(_next(args.destination))


def _next(destination: str) -> str | None:
    modelfile = Path(destination).with_suffix(".Modelfile")
    if Path(destination).suffix.lower() != ".gguf":
        return use_of_model(destination)
    return f"ollama create {quote(modelfile.stem)} -f {quote(str(modelfile))}" if modelfile.is_file() else None


make_parser, main = command(
    "hf-gpt convert",
    "Writes a checkpoint as another architecture that gives the same logits, with its tokenizer and generation config. "
    "Weights keep their values and dtypes. What the target cannot express is refused by name.",
    ConvertOptions,
    _convert,
    examples=[
        "openai-community/gpt2 runs/gpt2",
        "runs/book/model runs/llama --to llama",
        "model.gguf runs/model",
        "runs/model model-q8_0.gguf --quantize q8_0",
    ],
    stopped="Stopped. Nothing was written.",
)
