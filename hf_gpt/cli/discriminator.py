"""`hf-gpt discriminator`: trains a discriminator on real texts and the generator's own."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gpt.cli.parser import CommandParser
from hf_gpt.errors import UserError
from hf_gpt.files.atomic_files import write_json
from hf_gpt.terminal import INTERRUPTED


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hf_gpt.adversarial.discriminator.train_discriminator import DiscriminatorResult


# With fewer documents than this, texts are windows of them.
_FEW_DOCUMENTS = 200
_WINDOW_PROMPT = 16


def make_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = CommandParser(
        prog="hf-gpt discriminator",
        description="Trains a discriminator that tells real texts from those of a generator, which stays as it is. "
        "hf-gpt generate --discriminator and hf-gpt score use it.",
    )
    parser.add_argument("--model_name_or_path", required=True, help="the generator: folder of a run, or a Hub id")
    parser.add_argument(
        "--train_file", nargs="+", required=True, help="real texts: .txt, .jsonl, .csv, .parquet, or tinyshakespeare"
    )
    parser.add_argument("--text_column", default="text", help="column of a table that holds the text (%(default)s)")
    parser.add_argument(
        "--document_separator", help=r"where a .txt file parts into texts, e.g. '\n'; left out: one file, one text"
    )
    parser.add_argument(
        "--prompt_tokens",
        type=int,
        help="tokens of real text that both kinds begin with: texts are then windows of the documents. 0: whole "
        f"documents without a prompt. Left out: 0, or {_WINDOW_PROMPT} with fewer than {_FEW_DOCUMENTS} documents",
    )
    parser.add_argument("--output_dir", default="runs/discriminator", help="folder of the discriminator (%(default)s)")
    parser.add_argument(
        "--overwrite_output_dir", action="store_true", help="replace a discriminator that is there already"
    )
    parser.add_argument(
        "--discriminator",
        default="from_generator",
        help="from_generator: a copy of its trunk; ngram_cnn: a convolutional network from nothing, quickest on little "
        "data; ngram_cnn-seqgan; or a path or Hub id of a classifier with one label (%(default)s)",
    )
    parser.add_argument(
        "--level",
        choices=["sequence", "prefix"],
        default="sequence",
        help="score whole texts, or every prefix, which stepwise guidance needs (%(default)s)",
    )
    parser.add_argument("--max_new_tokens", type=int, default=64, help="most tokens of a text (%(default)s)")
    parser.add_argument(
        "--overlong",
        choices=["truncate", "drop", "error"],
        default="truncate",
        help="what is done about a longer text: truncate cuts it, drop leaves it out, error stops (%(default)s)",
    )
    parser.add_argument("--max_train_samples", type=int, help="real texts used, sampled by seed; left out: all")
    parser.add_argument("--num_train_epochs", type=int, default=20, help="passes over the texts, at most (%(default)s)")
    parser.add_argument("--per_device_train_batch_size", type=int, default=64, help="texts in a step (%(default)s)")
    parser.add_argument("--learning_rate", type=float, help="left out: 1e-3 for ngram_cnn, 2e-4 for others")
    parser.add_argument(
        "--early_stopping_patience", type=int, default=2, help="epochs without a better held-out loss (%(default)s)"
    )
    parser.add_argument("--rollout_batch_size", type=int, default=256, help="texts generated at once (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of texts, parts, order and new weights (%(default)s)")
    parser.add_argument("--device", help="cpu, cuda, ...; left out: an accelerator if there is one")
    parser.add_argument("--trust_remote_code", action="store_true", help="run model code that comes with checkpoints")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = make_parser().parse_args(argv)
    try:
        return train(args)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped. No discriminator was saved.", file=sys.stderr)
        return INTERRUPTED


def train(args: argparse.Namespace) -> int:
    """Trains and saves the discriminator with the generator's tokenizer, and prints how well it tells texts apart."""
    import datasets
    from transformers import set_seed
    from transformers.utils import logging

    from hf_gpt.adversarial.discriminator.train_discriminator import train_discriminator
    from hf_gpt.data.truncation import Cuts
    from hf_gpt.files.checkpoints import atomic_directory, check_output_dir

    output_dir = Path(args.output_dir)
    check_output_dir(output_dir, overwrite=args.overwrite_output_dir, resume=False)
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
        logging.disable_progress_bar()
    documents = _read_documents(args)
    generator, tokenizer = _load_generator(args)
    set_seed(args.seed)
    discriminator = _make_or_load(args, generator, tokenizer)
    prompt_tokens = args.prompt_tokens
    if prompt_tokens is None:
        prompt_tokens = _WINDOW_PROMPT if len(documents) < _FEW_DOCUMENTS else 0
    rows = _real_texts(args, documents, tokenizer, prompt_tokens)
    cut: dict[str, int] = {}

    def report_cuts(cuts: Cuts) -> None:
        cut.update(cuts.to_dict())
        if cuts:
            print(f"{'cut':<15}{cuts.describe()}", flush=True)

    result = train_discriminator(
        generator,
        discriminator,
        rows,
        processing_class=tokenizer,
        max_new_tokens=args.max_new_tokens,
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
    # Longer texts than these it never saw: who scores with this tokenizer cuts them there.
    tokenizer.model_max_length = max(1, prompt_tokens) + args.max_new_tokens
    with atomic_directory(output_dir) as folder:
        discriminator.save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
        settings = {"settings": vars(args), "results": result.to_dict(), **({"cut": cut} if cut else {})}
        write_json(folder / "discriminator.json", settings)
    _print_result(result, output_dir / "model")
    return 0


def _read_documents(args: argparse.Namespace) -> list[str]:
    from hf_gpt.data.corpus import read_corpus

    texts = read_corpus(args.train_file, text_column=args.text_column, document_separator=args.document_separator)
    print(f"{'corpus':<15}{len(texts):,} document{'' if len(texts) == 1 else 's'}", flush=True)
    return list(texts["text"])


def _load_generator(args: argparse.Namespace) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from hf_gpt.errors import CheckpointError
    from hf_gpt.files.checkpoints import find_existing_model
    from hf_gpt.generation.devices import pick_device

    path = find_existing_model(args.model_name_or_path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=args.trust_remote_code)
        generator = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=args.trust_remote_code)
    except ValueError as error:
        raise CheckpointError(f"--model_name_or_path: no causal language model in {path}: {error}") from error
    return generator.to(pick_device(args.device)).eval(), tokenizer


def _make_or_load(
    args: argparse.Namespace, generator: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
) -> "PreTrainedModel":
    from hf_gpt.adversarial.discriminator.factory import make_discriminator
    from hf_gpt.errors import CheckpointError
    from hf_gpt.files.checkpoints import find_existing_model
    from hf_gpt.generation.guidance.guided_generate import load_discriminator
    from hf_gpt.generation.scoring.shared_tokens import check_shared_tokens

    if not Path(args.discriminator).exists() and "/" not in args.discriminator:
        return make_discriminator(args.discriminator, generator)
    try:
        path = find_existing_model(args.discriminator)
        discriminator = load_discriminator(path, trust_remote_code=args.trust_remote_code).to(generator.device)
        check_shared_tokens(generator, discriminator, tokenizer)
    except ValueError as error:
        raise CheckpointError(f"--discriminator: {error}") from error
    return discriminator


def _real_texts(
    args: argparse.Namespace, documents: list[str], tokenizer: "PreTrainedTokenizerBase", prompt_tokens: int
) -> list[Any]:
    """The documents or pieces of them, at most `--max_train_samples`, sampled by the seed."""
    import torch

    from hf_gpt.adversarial.discriminator.train_discriminator import text_windows

    rows = text_windows(documents, tokenizer, prompt_tokens, args.max_new_tokens) if prompt_tokens else documents
    if args.max_train_samples is not None and args.max_train_samples < len(rows):
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(args.seed))
        rows = [rows[position] for position in order[: args.max_train_samples].tolist()]
    print(f"{'texts':<15}{len(rows):,} real ones, and as many to generate", flush=True)
    return rows


def _print_result(result: "DiscriminatorResult", path: Path) -> None:
    print(
        f"{'discriminator':<15}{path}: AUC {result.auc:.3f} ({result.auc_low:.2f} to "
        f"{result.auc_high:.2f}) and accuracy {result.accuracy:.1%} on "
        f"{2 * result.num_test_texts:,} held-out texts, after {result.epochs} epochs over {2 * result.num_texts:,}"
    )
    if result.shortcut_auc > 0.6:
        print(
            f"warning: length and special tokens alone reach an AUC of {result.shortcut_auc:.3f}: real and generated "
            "texts differ in form. Check --max_new_tokens and how the generator's texts end.",
            file=sys.stderr,
        )
    if result.auc_low <= 0.5:
        print(
            "warning: on held-out texts the discriminator is no better than chance (95 % "
            f"interval of its AUC {result.auc_low:.2f} to {result.auc_high:.2f}): it cannot guide. Give more texts.",
            file=sys.stderr,
        )
    elif result.auc < 0.55:
        print(
            "warning: the discriminator hardly tells them apart, so it cannot guide. Give more texts.", file=sys.stderr
        )
