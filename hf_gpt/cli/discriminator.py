"""`hf-gpt discriminator`: trains a discriminator of real texts and a generator's samples."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal

from hf_gpt.cli.command import REQUIRED, DeviceOptions, TextOptions, command, describe_texts, option
from hf_gpt.files.atomic_files import write_json
from hf_gpt.installation import as_typed
from hf_gpt.terminal import hide_bars
from hf_gpt.training.run import print_lines


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hf_gpt.adversarial.discriminator.train_discriminator import DiscriminatorResult


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(TextOptions, DeviceOptions):
    """The options of the command."""

    model_name_or_path: str = option(REQUIRED, "the generator: folder of a run, or a Hub id")
    train_file: list[str] = option(REQUIRED, "real texts: .txt, .jsonl, .csv, .parquet, or tinyshakespeare")
    prompt_tokens: int | None = option(
        None,
        "tokens of real text that both kinds start with; texts are then windows of the documents. 0: whole documents. "
        "Left out: 0, or 16 with fewer than 200 documents",
    )
    output_dir: str = option("runs/discriminator", "folder to write")
    overwrite_output_dir: bool = option(False, "replace a discriminator in the folder")
    discriminator: str = option(
        "from_generator",
        "from_generator: a copy of its trunk; ngram_cnn: a new convolutional network, quickest on little data; "
        "ngram_cnn-seqgan; or a path or Hub id of a classifier with one label, or of an encoder such as BERT, which "
        "reads the texts by its own tokenizer",
    )
    objective: Literal["classification", "residual"] = option(
        "classification",
        "classification: tell real texts from samples. residual: the same training, and both together are saved as one "
        "language model, a residual energy-based model, with its gain in held-out likelihood",
    )
    num_samples: int = option(4096, "with --objective residual: samples of the generator that log Z is estimated by")
    level: Literal["sequence", "prefix"] = option(
        "sequence", "score whole texts, or every prefix of them, which stepwise guidance needs"
    )
    max_new_tokens: int = option(64, "most tokens of a text")
    overlong: Literal["truncate", "drop", "error"] = option(
        "truncate", "what is done about a longer text: truncate cuts it, drop leaves it out, error stops"
    )
    max_train_samples: int | None = option(None, "real texts used, a random sample; left out: all")
    num_train_epochs: int = option(20, "passes over the texts, at most")
    per_device_train_batch_size: int = option(64, "texts in a step")
    learning_rate: float | None = option(None, "left out: 1e-3 for ngram_cnn, 2e-4 for others")
    early_stopping_patience: int = option(2, "epochs without a better held-out loss")
    rollout_batch_size: int = option(256, "texts sampled at once")
    seed: int = option(0, "of samples, splits, order and new weights")


def train(args: TrainingOptions) -> None:
    """Trains and saves the discriminator with the generator's tokenizer, and prints how well it tells texts apart."""
    from hf_gpt.adversarial.discriminator.held_out_auc import FILE
    from hf_gpt.adversarial.discriminator.train_discriminator import train_discriminator
    from hf_gpt.data.corpus import read_corpus
    from hf_gpt.data.truncation import Cuts
    from hf_gpt.data.windows import describe_windows, window_prompt
    from hf_gpt.files.checkpoints import atomic_directory, check_output_dir

    output_dir = Path(args.output_dir)
    check_output_dir(output_dir, overwrite=args.overwrite_output_dir, resume=False)
    hide_bars()
    texts = read_corpus(args.train_file, text_column=args.text_column, document_separator=args.document_separator)
    print_lines(print, [describe_texts(len(texts), args)])
    generator, tokenizer, discriminator = load_models(args)
    prompt_tokens = args.prompt_tokens
    if prompt_tokens is None:
        prompt_tokens = window_prompt(len(texts))
    rows = choose_rows(list(texts["text"]), tokenizer, prompt_tokens, args)
    windows = f", {describe_windows(prompt_tokens, args.max_new_tokens)}" if prompt_tokens else ""
    print_lines(print, [("texts", f"{len(rows):,} real ones{windows}, and as many samples")])
    cut: dict[str, int] = {}

    def report_cuts(cuts: Cuts) -> None:
        cut.update(cuts.to_dict())
        if cuts:
            print_lines(print, [("cut", cuts.describe())])

    result = train_discriminator(
        generator,
        discriminator,
        rows,
        processing_class=tokenizer,
        max_new_tokens=args.max_new_tokens,
        objective=args.objective,
        num_samples=args.num_samples,
        level=args.level,
        epochs=args.num_train_epochs,
        batch_size=args.per_device_train_batch_size,
        learning_rate=args.learning_rate,
        patience=args.early_stopping_patience,
        rollout_batch_size=args.rollout_batch_size,
        seed=args.seed,
        overlong=args.overlong,
        report_cuts=report_cuts,
    )
    with atomic_directory(output_dir) as folder:
        save(folder / "model", generator, tokenizer, discriminator, result, prompt_tokens, args)
        found = {"settings": asdict(args), "results": result.to_dict(), **({"cut": cut} if cut else {})}
        write_json(folder / FILE, found)
    print_result(result, output_dir / "model")
    models = quote(str(args.model_name_or_path)), quote(str(output_dir))
    following = f"{models[1]}" if args.objective == "residual" else f"{models[0]} --discriminator {models[1]}"
    print_lines(print, [("next", as_typed(f"hf-gpt generate {following}"))])


def save(
    folder: Path,
    generator: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    discriminator: "PreTrainedModel",
    result: "DiscriminatorResult",
    prompt_tokens: int,
    args: TrainingOptions,
) -> None:
    """Writes the discriminator with its tokenizer, or the residual model that it makes of the generator."""
    from hf_gpt.generation.guidance.residual_model import ResidualLanguageModel
    from hf_gpt.generation.scoring.texts import TextDiscriminator

    if args.objective == "residual":
        form = {"prompt_tokens": prompt_tokens, "max_new_tokens": args.max_new_tokens}
        metrics = {**form, "results": result.to_dict()}
        ResidualLanguageModel(generator, discriminator, tokenizer, metrics).save_pretrained(folder)
        return
    # One with a tokenizer of its own saves that.
    discriminator.save_pretrained(folder)
    if not isinstance(discriminator, TextDiscriminator):
        # It never saw longer texts: who scores with this tokenizer cuts them there.
        tokenizer.model_max_length = max(1, prompt_tokens) + args.max_new_tokens
        tokenizer.save_pretrained(folder)


def load_models(
    args: TrainingOptions,
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase, PreTrainedModel]":
    """The generator, its tokenizer, and a new or saved discriminator, on one device; sets the seed.

    Raises:
        CheckpointError: a checkpoint that cannot be one of the two.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    from hf_gpt.adversarial.discriminator.factory import make_discriminator
    from hf_gpt.errors import CheckpointError, ConfigError
    from hf_gpt.files.checkpoints import explains_model_errors, find_existing_model
    from hf_gpt.generation.devices import pick_device

    device = pick_device(args.device)
    options = {"trust_remote_code": args.trust_remote_code}
    path = find_existing_model(args.model_name_or_path)
    try:
        with explains_model_errors(path):
            tokenizer = AutoTokenizer.from_pretrained(path, **options)
            generator = AutoModelForCausalLM.from_pretrained(path, **options)
    except ValueError as error:
        raise CheckpointError(f"--model_name_or_path: no causal language model in {path}: {error}") from error
    generator.to(device).eval()
    set_seed(args.seed)
    try:
        discriminator = make_discriminator(args.discriminator, generator, processing_class=tokenizer, **options)
    except ConfigError as error:
        raise CheckpointError(f"--discriminator: {error}") from error
    return generator, tokenizer, discriminator


def choose_rows(
    texts: list[str], tokenizer: "PreTrainedTokenizerBase", prompt_tokens: int, args: TrainingOptions
) -> list[Any]:
    """The real texts to train on: whole ones, or windows of them, at most as many as were asked for."""
    import torch

    from hf_gpt.data.windows import text_windows

    rows: list[Any] = texts
    if prompt_tokens:
        rows = text_windows(texts, tokenizer, prompt_tokens, args.max_new_tokens)
    if args.max_train_samples is None or args.max_train_samples >= len(rows):
        return rows
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(args.seed))
    return [rows[position] for position in order[: args.max_train_samples].tolist()]


def print_result(result: "DiscriminatorResult", path: Path) -> None:
    """Prints how well a discriminator tells texts apart, and warns where that is too little to guide by."""
    from hf_gpt.adversarial.discriminator.held_out_auc import LEAST_AUC

    interval = f"{result.auc_low:.2f} to {result.auc_high:.2f}"
    quality = f"AUC {result.auc:.3f} ({interval}) and accuracy {result.accuracy:.1%}"
    trained = f"after {result.epochs} epochs over {2 * result.num_texts:,}"
    texts = f"{2 * result.num_test_texts:,} held-out texts"
    print_lines(print, [("discriminator", f"{path}: {quality} on {texts}, {trained}")])
    if result.residual is not None:
        print_lines(print, [("likelihood", describe_gain(result.residual))])
    if result.shortcut_auc > 0.6:
        print(
            f"warning: length and special tokens alone reach an AUC of {result.shortcut_auc:.3f}: real and generated "
            "texts differ in form. Check --max_new_tokens and how the generator's texts end.",
            file=sys.stderr,
        )
    if result.auc_low <= 0.5:
        print(
            "warning: on held-out texts the discriminator is no better than chance (95 % interval of its AUC: "
            f"{interval}). It cannot guide. Give more texts.",
            file=sys.stderr,
        )
    elif result.auc < LEAST_AUC:
        print("warning: the discriminator hardly tells them apart: it cannot guide. Give more texts.", file=sys.stderr)


def describe_gain(found: dict[str, Any]) -> str:
    """What a discriminator adds to the likelihood of unseen texts, in words."""
    verdict = "the discriminator lowers it" if found["gain_low"] > 0 else "no gain is shown"
    if found["gain_high"] < 0:
        verdict = "the discriminator raises it"
    return (
        f"perplexity {found['base_perplexity']:.2f} of the generator, {found['perplexity']:.2f} with the "
        f"discriminator: {verdict}. Gain {found['gain']:+.3f} nats a text (95 % interval {found['gain_low']:+.3f} to "
        f"{found['gain_high']:+.3f}), {found['texts']:,} texts, log Z by {found['samples']:,} samples"
    )


make_parser, main = command(
    "hf-gpt discriminator",
    "Trains a discriminator that tells real texts from a generator's samples. The generator stays as it is. hf-gpt "
    "generate --discriminator and hf-gpt score use the discriminator.",
    TrainingOptions,
    train,
    examples=[
        "--model_name_or_path runs/book --train_file book.txt",
        "--model_name_or_path runs/book --train_file texts.jsonl --discriminator ngram_cnn --level prefix",
        "--model_name_or_path runs/book --train_file book.txt --objective residual --output_dir runs/residual",
    ],
    common="discriminator objective level max_new_tokens max_train_samples num_train_epochs learning_rate output_dir "
    "seed",
    stopped="Stopped. No discriminator was saved.",
)
