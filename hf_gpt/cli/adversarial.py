"""`hf-gpt adversarial`: real texts in; a generator and its discriminator, trained against each other, out."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from hf_gpt.adversarial.arguments import AdversarialArguments
from hf_gpt.cli.adversarial_discriminator import build_discriminator
from hf_gpt.cli.training_command import read_settings, training_command
from hf_gpt.cli.training_parts import describe_time, sampling_options, shard_and_adapt, write_training_report
from hf_gpt.data.truncation import cut_lines
from hf_gpt.errors import ConfigError
from hf_gpt.files.atomic_files import write_json
from hf_gpt.installation import as_typed
from hf_gpt.training.arguments.adapter import PeftArguments
from hf_gpt.training.arguments.discriminator import DiscriminatorArguments
from hf_gpt.training.arguments.model import ModelArguments
from hf_gpt.training.arguments.sampling import SamplingArguments
from hf_gpt.training.arguments.text import TextArguments
from hf_gpt.training.monitoring.step_times import TIMED_STEPS, Stretch
from hf_gpt.training.monitoring.throughput import format_count
from hf_gpt.training.run import (
    describe_model,
    final_metrics,
    make_callbacks,
    open_run,
    print_lines,
    run_training,
    save_final_model,
    total_steps,
)
from hf_gpt.training.settings import ADVERSARIAL_RECIPES, Settings


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hf_gpt.adversarial.config import AdversarialConfig
    from hf_gpt.adversarial.trainer import AdversarialTrainer


PROG = "hf-gpt adversarial"
DESCRIPTION = """Trains a generator against a discriminator that tells its samples from real texts.

  hf-gpt adversarial --config reinforce                          a built-in recipe, on a built-in corpus
  hf-gpt adversarial --config gad --model_name_or_path runs/pretrain --train_file texts.jsonl
  hf-gpt adversarial --config recipe.yaml --learning_rate 1e-5   defaults < recipe < command line
"""
# Options that the short help shows.
COMMON = (
    "config model_name_or_path train_file discriminator max_new_tokens max_steps "
    "learning_rate gate_auc output_dir dry_run"
)
ARGUMENTS = (ModelArguments, TextArguments, DiscriminatorArguments, PeftArguments, SamplingArguments)

# Texts that the report shows for a run without prompts.
SHOWN_TEXTS = 6


@dataclass(frozen=True)
class AdversarialData:
    """What is trained and judged on.

    Attributes:
        train_rows: Rows with a text, or a prompt and a completion, as text or as token ids.
        validation_rows: The same, held out.
        tokenizer: What turns them into tokens.
        longest: Most tokens of a prompt and a completion together.
        texts: What was read and how it was parted, in words.
    """

    train_rows: list[dict[str, Any]]
    validation_rows: list[dict[str, Any]]
    tokenizer: "PreTrainedTokenizerBase"
    longest: int
    texts: str


def _training_class() -> type:
    from hf_gpt.adversarial.config import AdversarialConfig

    return AdversarialConfig


def adversarial(settings: Settings) -> int:
    """Trains, saves and reports as the settings say; returns the exit status."""
    from hf_gpt.training.adapters import check_adapter_options, merge_adapter
    from hf_gpt.training.model import build_model

    model_args, text_args, discriminator_args, peft_args, sampling_args, training_args = settings.arguments
    check_adapter_options(peft_args, model_args, training_args)
    checkpoint = open_run(settings)
    data = prepare_data(model_args, text_args, training_args, checkpoint)
    model = build_model(model_args, data.tokenizer, data.longest, training_args.seed)
    discriminator = build_discriminator(
        model, discriminator_args, model_args, data.tokenizer, data.longest, training_args
    )

    def start() -> "AdversarialTrainer":
        adapted = shard_and_adapt(model, data.tokenizer, model_args, peft_args, training_args)
        return make_trainer(adapted, discriminator, data, discriminator_args, training_args)

    def finish(trainer: "AdversarialTrainer", output_dir: Path) -> None:
        metrics = final_metrics(trainer)
        if peft_args.merge_adapter:
            trainer.model = merge_adapter(trainer.model)
        options = sampling_options(sampling_args, training_args.max_new_tokens)
        save_final_model(trainer, output_dir / "model", options)
        # In every process: a model in shards generates in all of them together.
        samples = write_samples(trainer, data, sampling_args)
        if training_args.process_index == 0:
            write_metrics(trainer, metrics, output_dir / "metrics.json")
            write_held_out_auc(metrics, output_dir / "model" / "discriminator")
            report = write_run_report(settings, trainer, data, metrics, samples, output_dir / "report.html")
            print_result(metrics, trainer, output_dir / "model", report)

    return run_training(
        settings,
        training_args,
        checkpoint,
        prog=PROG,
        make_trainer=start,
        describe=lambda trainer: describe_run(trainer, data),
        finish=finish,
        stretches=stretches,
    )


def prepare_data(
    model_args: ModelArguments,
    text_args: TextArguments,
    training_args: "AdversarialConfig",
    checkpoint: Path | None,
) -> AdversarialData:
    """Reads and splits the texts, trains or loads the tokenizer, and finds how long a row may be.

    Args:
        model_args: Where a tokenizer may come from.
        text_args: The texts.
        training_args: The seed, and the most tokens of a completion.
        checkpoint: The checkpoint that is resumed from, whose tokenizer is used.
    """
    from hf_gpt.data.corpus import describe_split
    from hf_gpt.data.tokenizer import train_tokenizer
    from hf_gpt.data.windows import describe_windows, text_windows
    from hf_gpt.training.model import load_tokenizer

    train, validation, num_documents = read_rows(text_args, training_args.seed)
    source = checkpoint or text_args.tokenizer_name or model_args.model_name_or_path
    if source is not None:
        tokenizer = load_tokenizer(str(source), model_args)
    else:
        learnt = train[: text_args.max_train_samples]
        tokenizer = train_tokenizer((text for row in learnt for text in row.values()), text_args.tokenizer_vocab_size)
    split, windows = describe_split(text_args.train_file, text_args.document_separator), ""
    prompt_tokens = _prompt_tokens(text_args, num_documents)
    longest = max(1, prompt_tokens)
    if prompt_tokens:
        window = prompt_tokens, training_args.max_new_tokens
        train, validation = (
            text_windows([row["text"] for row in part], tokenizer, *window) for part in (train, validation)
        )
        windows = f" in {describe_windows(*window)}"
    train = train[: text_args.max_train_samples]
    for row in (*train, *validation):
        if "prompt" in row:
            longest = max(longest, 1 + len(tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]))
    if training_args.max_prompt_length is not None:
        longest = min(longest, training_args.max_prompt_length)
    texts = f"{num_documents:,} document{'' if num_documents == 1 else 's'}{split}{windows}"
    return AdversarialData(train, validation, tokenizer, longest + training_args.max_new_tokens, texts)


def _prompt_tokens(text_args: TextArguments, num_documents: int) -> int:
    """Tokens of the prompts of windows; 0 for whole documents and for rows with prompts of their own."""
    from hf_gpt.data.windows import window_prompt

    if text_args.prompt_column is None and text_args.prompt_tokens is None:
        return window_prompt(num_documents)
    if text_args.prompt_column is not None and text_args.prompt_tokens:
        raise ConfigError("--prompt_tokens does not go with --prompt_column: its rows have prompts of their own.")
    return text_args.prompt_tokens or 0


def read_rows(text_args: TextArguments, seed: int) -> tuple[list[dict[str, str]], list[dict[str, str]], int]:
    """Training and held-out rows: `text`, or `prompt` and `completion`; and the number of documents read."""
    from hf_gpt.data.corpus import built_in_corpora, read_corpus, split_corpus
    from hf_gpt.data.examples import FORMATS, read_examples, split_examples, text_of

    if text_args.prompt_column is None:
        form = {"text_column": text_args.text_column, "document_separator": text_args.document_separator}
        corpus = read_corpus(text_args.train_file, **form)
        num_documents = len(corpus)
        if text_args.validation_file:
            held_out = read_corpus(text_args.validation_file, **form)
        else:
            corpus, held_out = split_corpus(corpus, text_args.validation_fraction, seed)
        rows = [[{"text": text.strip("\n")} for text in part["text"]] for part in (corpus, held_out)]
        return *rows, num_documents
    for name in text_args.train_file:
        if name in built_in_corpora() and not Path(name).is_file():
            raise ConfigError(
                f"--prompt_column {text_args.prompt_column} needs --train_file, a table with that column "
                f"({', '.join(FORMATS)}): {name} has none."
            )
    columns = {"prompt_column": text_args.prompt_column, "completion_column": text_args.completion_column}
    train = read_examples(text_args.train_file, columns)
    num_documents = len(train)
    if text_args.validation_file:
        held_out = read_examples(text_args.validation_file, columns)
    else:
        train, held_out = split_examples(train, text_args.validation_fraction, seed)
    names = dict(zip(("prompt", "completion"), columns.values(), strict=True))
    rows = [
        [{name: text_of(row, column) for name, column in names.items()} for row in part] for part in (train, held_out)
    ]
    return *rows, num_documents


def make_trainer(
    model: Any,
    discriminator: Any,
    data: AdversarialData,
    discriminator_args: DiscriminatorArguments,
    training_args: "AdversarialConfig",
) -> "AdversarialTrainer":
    """The trainer with its callbacks."""
    from hf_gpt.adversarial.trainer import AdversarialTrainer

    adapter = None
    if discriminator_args.discriminator_lora_r and discriminator is not None:
        from hf_gpt.training.adapters import adapter_config

        options = PeftArguments(use_peft=True, lora_r=discriminator_args.discriminator_lora_r)
        adapter = adapter_config(discriminator, options, "SEQ_CLS")
    rollout_function = None
    if training_args.vllm_server is not None:
        from hf_gpt.adversarial.data.vllm_rollout import VllmRollout

        rollout_function = VllmRollout.connect(training_args.vllm_server, training_args.device)
    return AdversarialTrainer(
        model=model,
        discriminator=discriminator,
        args=training_args,
        rollout_function=rollout_function,
        train_dataset=data.train_rows,
        eval_dataset=data.validation_rows,
        processing_class=data.tokenizer,
        discriminator_peft_config=adapter,
        callbacks=make_callbacks(training_args),
    )


def describe_run(trainer: "AdversarialTrainer", data: AdversarialData) -> list[tuple[str, str]]:
    """What is about to happen, as pairs of a name and a line."""
    from hf_gpt.adversarial.schedule import WARMUPS

    args, discriminator = trainer.args, trainer.discriminator
    who = (
        "none"
        if discriminator is None
        else f"{type(discriminator).__name__}, {format_count(discriminator.num_parameters())} parameters"
    )
    steps = total_steps(trainer)
    counts = trainer.schedule.warmups(steps)
    parts = [f"{count:,} {what}" for count, what in zip(counts, WARMUPS, strict=True) if count]
    if sum(counts) == steps and args.estimator != "likelihood":
        parts.append("and perhaps no adversarial step")
    return [
        ("texts", f"{data.texts}: {len(data.train_rows):,} to train on, {len(data.validation_rows):,} held out"),
        describe_model(trainer),
        ("discriminator", who),
        (
            "training",
            f"{steps:,} steps of {trainer.get_total_train_batch_size(args)} texts"
            + (f", {', '.join(parts)} among them" if parts else "")
            + f"; {args.estimator}"
            + (f" on {args.discriminator_loss}" if discriminator is not None else ""),
        ),
        ("expect", expectation(trainer)),
        *describe_time(trainer, None),
        *cut_lines(trainer.cuts),
    ]


def expectation(trainer: "AdversarialTrainer") -> str:
    """What such runs have gained in our measurements (docs/results.md), in a sentence."""
    from hf_gpt.generation.scoring.log_ratio import is_language_model

    if trainer.args.estimator == "likelihood":
        return "what the texts teach, up to where the held-out loss rises"
    if trainer.discriminator is None:
        return "what the reward asks for; the monitors watch diversity and held-out loss"
    if is_language_model(trainer.discriminator):
        return "texts nearer to the discriminator's where it is larger; the gain measured here is that of distillation"
    return "no lower held-out loss: with learned classifiers none was measured here. Judge by fresh_auc and eval_loss"


def stretches(trainer: "AdversarialTrainer") -> list[Stretch]:
    """The phases of a run that is to be timed, whose warm-ups become as long as a dry run has steps of them."""
    args, total = trainer.args, total_steps(trainer)
    likelihood, alone, taught = trainer.schedule.warmups(total)
    # As many updates by new samples as in a whole run, beside those that use a batch again.
    cycle = math.lcm(args.generator_steps, args.num_iterations)
    found = [
        Stretch(likelihood, "of maximum likelihood"),
        Stretch(alone, "of the discriminator alone"),
        Stretch(taught, "of distillation"),
        Stretch(total - likelihood - alone - taught, "of both", timed=math.ceil(TIMED_STEPS / cycle) * cycle),
    ]
    tried = [part.tried * (part.steps > 0) for part in found[:-1]]
    args.mle_warmup_steps, args.discriminator_warmup_steps, args.distillation_warmup_steps = tried
    # Nothing may end a phase early or skip an update.
    args.discriminator_warmup_auc, args.gate_auc, args.on_collapse = math.inf, 0.0, "warn"
    return [part for part in found if part.steps]


def write_samples(trainer: "AdversarialTrainer", data: AdversarialData, sampling_args: SamplingArguments) -> list[Any]:
    """Samples for the report: completions of held-out prompts, or unconditional samples."""
    import torch

    from hf_gpt.adversarial.monitoring.diagnostics import unpadded
    from hf_gpt.reporting.report import Sample

    rows = trainer.eval_dataset.rows[:SHOWN_TEXTS]
    if not trainer.eval_dataset.has_prompts:
        rows = [rows[0]] * SHOWN_TEXTS
    settings = {"temperature": sampling_args.sample_temperature, "top_p": sampling_args.sample_top_p}
    # Not those of rollouts.
    others = {"top_k": 0, "min_p": 0.0}
    generator = torch.Generator().manual_seed(trainer.args.seed)
    sampled = trainer.loop.collector.sample(trainer.model, rows, generator=generator, **settings, **others)
    shown = f"temperature {settings['temperature']}, top-p {settings['top_p']}, seed {trainer.args.seed}"
    samples = []
    for row, ids in zip(rows, unpadded(sampled.completions, sampled.completion_mask), strict=True):
        prompt = data.tokenizer.decode(row["prompt_ids"], skip_special_tokens=True)
        samples.append(Sample(prompt, data.tokenizer.decode(ids, skip_special_tokens=True), shown))
    return samples


def write_metrics(trainer: "AdversarialTrainer", metrics: dict[str, float], path: Path) -> None:
    """Writes the metrics, the updates of generator and discriminator, and the warnings that were raised."""
    warnings = [dataclasses.asdict(alert) for alert in trainer.loop.history.monitors.alerts]
    found = {**metrics, "steps": trainer.state.global_step, **trainer.update_counts(), "warnings": warnings}
    write_json(path, found)


def write_held_out_auc(metrics: dict[str, float], folder: Path) -> None:
    """Writes the discriminator's held-out AUC beside its weights, if it was measured."""
    from hf_gpt.adversarial.discriminator.held_out_auc import FILE, HeldOutAuc

    if "eval_discriminator_auc_low" not in metrics or not folder.is_dir():
        return
    auc, low, high, texts = (metrics[f"eval_discriminator_auc{part}"] for part in ("", "_low", "_high", "_texts"))
    write_json(folder / FILE, HeldOutAuc(auc, low, high, int(texts)).to_dict())


def write_run_report(
    settings: Settings,
    trainer: "AdversarialTrainer",
    data: AdversarialData,
    metrics: dict[str, float],
    samples: list[Any],
    path: Path,
) -> Path:
    """Writes the report: metrics, curves of generator and discriminator, warnings and samples."""
    from hf_gpt.adversarial.monitoring.evaluation import headline_metrics
    from hf_gpt.reporting.report import Metric

    schedule, steps = trainer.schedule, trainer.state.global_step
    phases = f"{schedule.adversarial_steps:,} against the discriminator, {schedule.skipped_steps:,} skipped by the gate"
    named = _warning_names(trainer)
    opponent = "itself" if trainer.discriminator is None else type(trainer.discriminator).__name__
    return write_training_report(
        path,
        settings,
        trainer,
        title="Adversarial training",
        summary=(
            f"{type(trainer.model).__name__} against {opponent}, on {len(data.train_rows):,} texts. "
            f"{trainer.describe_updates()} " + (f"Warnings: {', '.join(named)}." if named else "No warning was raised.")
        ),
        metrics=[
            *headline_metrics(metrics),
            Metric("Generator updates", f"{schedule.generator_updates:,}", f"of {steps:,} steps"),
            Metric("Steps", f"{steps:,}", phases),
        ],
        samples=samples,
        cuts=trainer.cuts,
        time_note=f"{format_count(trainer.meter.tokens)} tokens, generator and discriminator together",
    )


def print_result(metrics: dict[str, float], trainer: "AdversarialTrainer", model_path: Path, report: Path) -> None:
    """Prints the metrics, the warnings and where things are."""
    from hf_gpt.training.monitoring.callbacks import metric_texts

    measured = [(name.replace("_", " "), text) for name, text in metric_texts(metrics, with_sizes=True).items()]
    lines = [("held-out loss", f"{metrics['eval_loss']:.4f} nats per token"), *measured]
    lines += [("warning", name) for name in _warning_names(trainer)]
    lines.append(("generator", str(model_path)))
    if trainer.discriminator is not None:
        lines.append(("discriminator", str(model_path / "discriminator")))
    print(f"\n{trainer.describe_updates()}")
    following = as_typed(f"hf-gpt generate {quote(str(model_path))}")
    if trainer.discriminator is not None and not trainer.args.has_language_model:
        following += f" --discriminator {quote(str(model_path / 'discriminator'))} --guidance resample"
    print_lines(print, [*lines, ("report", str(report)), ("next", following)])


def _warning_names(trainer: "AdversarialTrainer") -> list[str]:
    return sorted({alert.name for alert in trainer.loop.history.monitors.alerts})


_READING = {
    "recipes": ADVERSARIAL_RECIPES,
    "trainer_type": AdversarialArguments,
    "make_training_class": _training_class,
}


def read(argv: Sequence[str]) -> Settings:
    """The settings of a command line, as `main` reads them.

    Raises:
        UserError: an option or recipe that does not exist, or a value that cannot be.
    """
    return read_settings(argv, ARGUMENTS, **_READING)


make_parser, main = training_command(PROG, DESCRIPTION, COMMON, ARGUMENTS, adversarial, **_READING)
