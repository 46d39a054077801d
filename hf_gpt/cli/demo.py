"""`hf-gpt demo`: generator and discriminator in one run, on a text that ships with the package.

A GPT is trained by maximum likelihood (MLE). A discriminator learns to tell its samples from real texts, and guides
generation. Then both are trained against each other, beside a model that gets the same compute of MLE. One table and
one report say how far the samples of each are from real text.
"""

import argparse
import copy
import textwrap
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from hf_gpt.cli.command import exit_status
from hf_gpt.cli.parser import CommandParser
from hf_gpt.files.atomic_files import write_json
from hf_gpt.installation import as_typed, install_hint


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hf_gpt.cli.comparison import Contestant


PROG = "hf-gpt demo"
RECIPE, CORPUS = "demo", "tinyshakespeare"

# Tokens of a prompt and of a completion; texts are pieces of the corpus.
PROMPT_TOKENS, NEW_TOKENS = 16, 32
# The discriminator learns from as many texts as there are: with 1,024 it is hardly above chance on unseen ones.
DISCRIMINATOR_TEXTS, DISCRIMINATOR_EPOCHS, JUDGED_TEXTS = 7000, 3, 1400
BATCH_SIZE = 32


def make_parser() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = CommandParser(prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/demo"), help="folder of everything it writes")
    parser.add_argument("--pretrain_steps", type=int, help="steps of MLE training; left out: the recipe's")
    parser.add_argument("--seconds", type=float, default=25, help="compute of adversarial training, in CPU seconds")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = make_parser().parse_args(argv)
    return exit_status(lambda: demo(args), stopped=f"Stopped. What was finished is in {args.output_dir}.")


def demo(args: argparse.Namespace) -> int:
    """Trains, compares and reports; returns the exit status."""
    heading("1. A GPT by maximum likelihood (MLE)")
    status = run_pretrain(args)
    if status:
        return status

    from transformers import AutoModelForCausalLM, AutoTokenizer

    from hf_gpt.cli.comparison import (
        Contestant,
        judge,
        likelihood_verdict,
        print_table,
        results_table,
        verdict,
        write_comparison,
    )

    folder = args.output_dir / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    train_rows, judged_rows = read_rows(tokenizer, args.seed)

    heading("2. A discriminator: real text, or a sample of the model?")
    began = time.process_time()
    discriminator, result = train_on_texts(model, tokenizer, train_rows, args)
    discriminator_seconds = time.process_time() - began
    print(
        f"AUC on unseen texts  {result.auc:.2f} (95 % interval {result.auc_low:.2f} to {result.auc_high:.2f}, "
        f"{result.num_test_texts:,} texts of each kind). 0.5 is chance.\n"
        f"training             {result.epochs} epochs on {result.num_texts:,} texts of each kind"
    )

    heading("3. Adversarial training, beside more MLE for the same compute")
    plain = Contestant("MLE", model)
    guided = Contestant("MLE + discriminator", model, discriminator_seconds, discriminator)
    # Both get the same compute in all: adversarial training has spent a part on its discriminator already.
    more = Contestant("more MLE", copy.deepcopy(model))
    train_pair(more, None, args.seconds + discriminator_seconds, tokenizer, train_rows, judged_rows, args)
    adversarial = Contestant("adversarial", copy.deepcopy(model), discriminator_seconds)
    log = train_pair(adversarial, copy.deepcopy(discriminator), args.seconds, tokenizer, train_rows, judged_rows, args)

    heading("4. How far from real text?")
    contestants = [plain, guided, more, adversarial]
    control = judge(contestants, judged_rows, train_rows, tokenizer, NEW_TOKENS, args.seed)
    print(f"{len(judged_rows):,} real texts that no model has seen, and as many of each row.\n")
    print_table(*results_table(contestants, control, result))
    conclusions = likelihood_verdict(contestants[1:], plain), verdict(contestants[1:], more)
    for conclusion in conclusions:
        print("\n" + textwrap.fill(conclusion, 116))
    report = write_comparison(
        args.output_dir, contestants, control, result, log, judged_rows, tokenizer, vars(args), " ".join(conclusions)
    )
    print_results(args, report)
    return 0


def run_pretrain(args: argparse.Namespace) -> int:
    """The first part: `hf-gpt pretrain` with the recipe of the demo; returns its exit status."""
    from hf_gpt.cli import pretrain

    steps = [] if args.pretrain_steps is None else ["--max_steps", str(args.pretrain_steps)]
    return pretrain.main(["--config", RECIPE, "--output_dir", str(args.output_dir), "--seed", str(args.seed), *steps])


def print_results(args: argparse.Namespace, report: Path) -> None:
    """Prints where everything is, and what to do with it."""
    from hf_gpt.training.run import print_lines

    folder = args.output_dir / "model"
    models = quote(str(folder)), quote(str(args.output_dir / "discriminator"))
    adversarial = quote(str(adversarial_folder(args)))
    # The app needs more than the demo. Each line can be typed as it stands.
    found = find_spec("gradio")
    needed = [] if found is not None and found.origin is not None else [("", install_hint("app"))]
    lines = [
        ("models", f"{folder}, {adversarial_folder(args)}"),
        ("report", str(report)),
        ("next", as_typed(f'hf-gpt generate {models[0]} "ROMEO:" --discriminator {models[1]}')),
        *needed,
        ("", as_typed(f"hf-gpt app {models[0]} {adversarial} --discriminator {models[1]}")),
    ]
    print()
    print_lines(print, lines)


def heading(text: str) -> None:
    """Prints the title of a part."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def read_rows(
    tokenizer: "PreTrainedTokenizerBase", seed: int
) -> tuple[list[dict[str, list[int]]], list[dict[str, list[int]]]]:
    """Pieces of the text that the model was trained on, and of the text that it was not, in random order."""
    import random

    from hf_gpt.data.corpus import read_corpus, split_corpus
    from hf_gpt.data.windows import text_windows

    parts = []
    for corpus in split_corpus(read_corpus([CORPUS]), validation_fraction(), seed):
        rows = text_windows(corpus["text"], tokenizer, PROMPT_TOKENS, NEW_TOKENS)
        # Only whole pieces: a shorter one would be known by its length.
        rows = [row for row in rows if len(row["completion_ids"]) == NEW_TOKENS]
        random.Random(seed).shuffle(rows)
        parts.append(rows)
    return parts[0], parts[1][:JUDGED_TEXTS]


def validation_fraction() -> float:
    """The share of the corpus that the first part held out."""
    import yaml

    from hf_gpt.training.settings import RECIPES

    return yaml.safe_load((RECIPES / f"{RECIPE}.yaml").read_text(encoding="utf-8"))["validation_fraction"]


def train_on_texts(model, tokenizer, rows, args: argparse.Namespace) -> tuple["PreTrainedModel", Any]:
    """A discriminator of the model, trained and saved."""
    from transformers import set_seed

    from hf_gpt.adversarial.discriminator.factory import make_discriminator
    from hf_gpt.adversarial.discriminator.held_out_auc import FILE
    from hf_gpt.adversarial.discriminator.train_discriminator import train_discriminator

    set_seed(args.seed)
    discriminator = make_discriminator("ngram_cnn", model)
    result = train_discriminator(
        model,
        discriminator,
        rows[:DISCRIMINATOR_TEXTS],
        processing_class=tokenizer,
        max_new_tokens=NEW_TOKENS,
        epochs=DISCRIMINATOR_EPOCHS,
        seed=args.seed,
    )
    folder = args.output_dir / "discriminator"
    discriminator.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # As hf-gpt discriminator does: who judges by it has to know how far it can be trusted.
    write_json(folder / FILE, {"results": result.to_dict()})
    return discriminator, result


def adversarial_folder(args: argparse.Namespace) -> Path:
    """Where the adversarially trained generator is, with its discriminator in a folder inside."""
    return args.output_dir / "adversarial"


def train_pair(
    contestant: "Contestant",
    discriminator,
    seconds: float,
    tokenizer,
    train_rows,
    judged_rows,
    args: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Trains a contestant for some CPU seconds, against a discriminator or, without one, by MLE.

    Returns:
        The trainer's log.
    """
    from hf_gpt.adversarial.config import AdversarialConfig
    from hf_gpt.adversarial.trainer import AdversarialTrainer
    from hf_gpt.training.monitoring.callbacks import ProgressCallback

    folder = adversarial_folder(args) if discriminator is not None else args.output_dir / "more_likelihood"
    config = AdversarialConfig(
        output_dir=str(folder),
        seed=args.seed,
        # Time ends it.
        max_steps=100_000,
        estimator="likelihood" if discriminator is None else "reinforce",
        discriminator_warmup_steps=0,
        per_device_train_batch_size=BATCH_SIZE,
        max_new_tokens=NEW_TOKENS,
        learning_rate=3e-4,
        lr_scheduler_type="constant",
        warmup_steps=0,
        discriminator_learning_rate=1e-3,
        save_strategy="no",
        logging_steps=5,
        disable_tqdm=True,
        report_to="none",
    )
    trainer = AdversarialTrainer(
        model=contestant.model,
        discriminator=discriminator,
        args=config,
        train_dataset=train_rows,
        eval_dataset=judged_rows,
        processing_class=tokenizer,
        callbacks=[compute_time_limit(seconds)],
    )
    # Time ends the training: the steps and time that the callback foretells would mislead.
    trainer.remove_callback(ProgressCallback)
    print(f"{contestant.name}: {seconds:.0f} CPU seconds ...", flush=True)
    began = time.process_time()
    trainer.train()
    spent = time.process_time() - began
    contestant.seconds += spent
    trainer.save_model(str(folder))
    steps = trainer.state.global_step
    print(f"{contestant.name}: {steps} steps in {spent:.0f} s. {trainer.describe_updates()}")
    if discriminator is not None:
        contestant.updates = trainer.schedule.generator_updates, steps
    return trainer.state.log_history


def compute_time_limit(seconds: float) -> Any:
    """A callback that stops after so many CPU seconds of the process."""
    from transformers import TrainerCallback

    class ComputeTimeLimit(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.began = time.process_time()

        def on_step_end(self, args, state, control, **kwargs):
            if time.process_time() - self.began > seconds:
                control.should_training_stop = True

    return ComputeTimeLimit()
