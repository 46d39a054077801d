"""`hf-gpt generate`: continues a prompt with a trained model and prints the text as it comes."""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_gpt.cli.command import REQUIRED, LoadingOptions, command, option
from hf_gpt.cli.guided_generate import GuidanceOptions, guided_options, print_texts
from hf_gpt.data.row_files import broken_text, has_broken_text
from hf_gpt.data.text_files import decode_text, fold_line_ends


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


# Bytes of weights up to which `fast_generate` is used, which keeps a second copy of them.
MOST_BYTES = 4 * 2**30


@dataclass(frozen=True, kw_only=True)
class WritingOptions(LoadingOptions):
    """A model, and how it is sampled from."""

    model: str = option(REQUIRED, "folder of a run or checkpoint, or a Hub id", positional=True)
    max_new_tokens: int | None = option(None, "most tokens added")
    temperature: float | None = option(None, "0 takes the likeliest token each time")
    top_k: int | None = option(None, "sample from this many of the likeliest tokens")
    top_p: float | None = option(None, "sample from the likeliest tokens of this total probability")
    repetition_penalty: float | None = option(None, "above 1 makes words that were used less likely")
    seed: int | None = option(None, "the same seed gives the same text")


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(GuidanceOptions, WritingOptions):
    """The options of the command."""

    prompt: str | None = option(
        None, "text to continue; left out: standard input, or an unconditional sample", positional=True, nargs="?"
    )


def read_prompt(given: str | None) -> str:
    """The prompt that was given, or left out that of standard input; nothing where nobody pipes.

    Raises:
        ValueError: it is not UTF-8.
    """
    if given is None and sys.stdin.isatty():
        return ""
    if given is None:
        piped = getattr(sys.stdin, "buffer", None)
        given = fold_line_ends(sys.stdin.read()) if piped is None else decode_text(piped.read(), "standard input")
    if has_broken_text(given):
        raise ValueError(f"the prompt is {broken_text(given)}. Give it as UTF-8.")
    return given


def generate(args: GenerateOptions) -> int:
    """Loads the model and streams the prompt and its continuation to standard output."""
    import torch
    from transformers import TextStreamer

    prompt = read_prompt(args.prompt)
    model, tokenizer = load(args)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"].long()
    if ids.shape[1] == 0:
        begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        ids = torch.tensor([[begin]])
    ids = ids.to(model.device)
    options = {"attention_mask": torch.ones_like(ids), "num_return_sequences": args.num_return_sequences}
    options |= generation_options(args)
    guided = guided_options(args, tokenizer, model.device, model)
    options |= guided
    if not guided and args.num_return_sequences == 1:
        streamer = TextStreamer(tokenizer, skip_special_tokens=True)
        if is_fast(model):
            from hf_gpt.generation.decoding.fast_generate import fast_generate

            options["custom_generate"] = fast_generate
        model.generate(input_ids=ids, streamer=streamer, **options)
    else:
        print_texts(tokenizer, model.generate(input_ids=ids, **options))
    return 0


def is_fast(model: "PreTrainedModel") -> bool:
    """Whether `fast_generate` is worth its memory for one text: on a CPU, sampled or greedy."""
    from hf_gpt.generation.decoding.plain_decoder import can_decode

    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return (
        model.device.type == "cpu"
        and size <= MOST_BYTES
        and can_decode(model)
        and model.generation_config.get_generation_mode() in ("greedy_search", "sample")
    )


def load(args: WritingOptions) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The model, ready to generate on its device, and its tokenizer; sets the seed."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    from hf_gpt.files.checkpoints import explains_model_errors, find_existing_model
    from hf_gpt.generation.devices import pick_device
    from hf_gpt.terminal import hide_bars

    hide_bars()
    device = pick_device(args.device)
    path = find_existing_model(args.model)
    options = {"revision": args.revision, "trust_remote_code": args.trust_remote_code}
    with explains_model_errors(path):
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=args.dtype, **options)
    model.to(device).eval()
    if args.seed is not None:
        set_seed(args.seed)
    return model, tokenizer


def generation_options(args: WritingOptions) -> dict[str, object]:
    """The options that were given, as `generate` takes them."""
    names = ("max_new_tokens", "top_k", "top_p", "repetition_penalty")
    options = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.temperature == 0:
        return {**options, "do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if args.temperature is not None:
        options["temperature"] = args.temperature
    if any(getattr(args, name) is not None for name in ("temperature", "top_k", "top_p", "seed")):
        options["do_sample"] = True
    return options


make_parser, main = command(
    "hf-gpt generate",
    "Continues a prompt with any causal language model and prints the text as it comes. What is not set here is taken "
    "from the model's generation config.",
    GenerateOptions,
    generate,
    examples=[
        'runs/book "Once upon a time"',
        'runs/residual "Once upon a time" --num_candidates 32',
        "runs/book --discriminator runs/discriminator --guidance best_of_n",
    ],
    common="max_new_tokens temperature top_k top_p seed discriminator guidance num_candidates",
    expected=(OSError, ValueError),
    stopped="",
    paths=("model", "discriminator"),
)
