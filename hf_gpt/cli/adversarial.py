"""`hf-gpt adversarial`: real texts in; a generator and its discriminator, trained against each other, out."""

import argparse
import copy
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gpt.adversarial.arguments import AdversarialArguments
from hf_gpt.cli.training_command import make_command_parser, run_command
from hf_gpt.data.truncation import cut_lines
from hf_gpt.errors import ConfigError, UserError
from hf_gpt.files.atomic_files import write_json
from hf_gpt.reporting.truncation import cuts_section
from hf_gpt.training.arguments.adapter import PeftArguments
from hf_gpt.training.arguments.discriminator import DiscriminatorArguments
from hf_gpt.training.arguments.model import ModelArguments
from hf_gpt.training.arguments.sampling import SamplingArguments
from hf_gpt.training.arguments.text import TextArguments
from hf_gpt.training.monitoring.step_times import TIMED_STEPS, Stretch
from hf_gpt.training.monitoring.throughput import format_count, format_duration, peak_memory
from hf_gpt.training.run import (
    describe_model,
    final_metrics,
    make_callbacks,
    open_run,
    run_training,
    save_final_model,
    total_steps,
)
from hf_gpt.training.settings import ADVERSARIAL_RECIPES, Settings, settings_to_yaml


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hf_gpt.adversarial.config import AdversarialConfig
    from hf_gpt.adversarial.trainer import AdversarialTrainer


PROG = "hf-gpt adversarial"
DESCRIPTION = """Trains a generator against a discriminator that tells its texts from real ones.

  hf-gpt adversarial --config default                            a built-in recipe, on a built-in corpus
  hf-gpt adversarial --config gad --model_name_or_path runs/pretrain --corpus texts.jsonl
  hf-gpt adversarial --config recipe.yaml --learning_rate 1e-5   defaults < recipe < command line
"""
ARGUMENTS = (ModelArguments, TextArguments, DiscriminatorArguments, PeftArguments, SamplingArguments)

# Texts that the report shows for a run without prompts.
SHOWN_TEXTS = 6


@dataclass(frozen=True)
class AdversarialData:
    """What is trained and judged on.

    Attributes:
        train_rows: Rows with a text, or a prompt and a completion.
        validation_rows: The same, held out.
        tokenizer: What turns them into tokens.
        longest: Most tokens of a prompt and a completion together.
    """

    train_rows: list[dict[str, str]]
    validation_rows: list[dict[str, str]]
    tokenizer: "PreTrainedTokenizerBase"
    longest: int


def make_parser() -> argparse.ArgumentParser:
    """The parser that prints the help."""
    return make_command_parser(PROG, DESCRIPTION, [*ARGUMENTS, AdversarialArguments])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""

    def make_training_class() -> type:
        from hf_gpt.adversarial.config import AdversarialConfig

        return AdversarialConfig

    return run_command(
        argv,
        make_parser=make_parser,
        dataclass_types=ARGUMENTS,
        run=adversarial,
        trainer_type=AdversarialArguments,
        make_training_class=make_training_class,
        recipes=ADVERSARIAL_RECIPES,
    )


def adversarial(settings: Settings) -> int:
    """Trains, saves and reports as the settings say; returns the exit status."""
    from hf_gpt.training.adapters import add_adapter, check_adapter_options, merge_adapter
    from hf_gpt.training.distributed.sharding import shard_model
    from hf_gpt.training.model import build_model

    model_args, text_args, discriminator_args, peft_args, sampling_args, training_args = settings.arguments
    check_adapter_options(peft_args, model_args, training_args)
    checkpoint = open_run(settings)
    data = prepare_data(model_args, text_args, training_args, checkpoint)
    model = build_model(model_args, data.tokenizer, data.longest, training_args.seed)
    discriminator = build_discriminator(model, discriminator_args, model_args, data, training_args)

    def start() -> "AdversarialTrainer":
        adapted = shard_model(model, training_args)
        if peft_args.use_peft:
            output_dir, is_main = Path(training_args.output_dir), training_args.process_index == 0
            adapted = add_adapter(model, data.tokenizer, peft_args, model_args, "CAUSAL_LM", output_dir, is_main)
        return make_trainer(adapted, discriminator, data, discriminator_args, training_args)

    def finish(trainer: "AdversarialTrainer", output_dir: Path) -> None:
        metrics = final_metrics(trainer)
        if peft_args.merge_adapter:
            trainer.model = merge_adapter(trainer.model)
        save_final_model(trainer, output_dir / "model", generation_options(sampling_args, training_args))
        # In every process: a model in shards generates in all of them together.
        samples = write_samples(trainer, data, sampling_args)
        if training_args.process_index == 0:
            write_metrics(trainer, metrics, output_dir / "metrics.json")
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
    from hf_gpt.data.tokenizer import train_tokenizer
    from hf_gpt.training.model import load_tokenizer

    train, validation = read_rows(text_args, training_args.seed)
    train = train[: text_args.max_train_samples]
    source = checkpoint or text_args.tokenizer_name or model_args.model_name_or_path
    if source is not None:
        tokenizer = load_tokenizer(str(source), model_args)
    else:
        tokenizer = train_tokenizer((text for row in train for text in row.values()), text_args.tokenizer_vocab_size)
    longest = 1
    for row in (*train, *validation):
        if "prompt" in row:
            longest = max(longest, 1 + len(tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]))
    if training_args.max_prompt_length is not None:
        longest = min(longest, training_args.max_prompt_length)
    return AdversarialData(train, validation, tokenizer, longest + training_args.max_new_tokens)


def read_rows(text_args: TextArguments, seed: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Training and held-out rows: `text`, or `prompt` and `completion`."""
    from hf_gpt.data.corpus import built_in_corpora, read_corpus, split_corpus
    from hf_gpt.data.examples import FORMATS, read_examples, split_examples, text_of

    if text_args.prompt_column is None:
        form = {"text_column": text_args.text_column, "document_separator": text_args.document_separator}
        corpus = read_corpus(text_args.corpus, **form)
        if text_args.validation_file:
            held_out = read_corpus(text_args.validation_file, **form)
        else:
            corpus, held_out = split_corpus(corpus, text_args.validation_fraction, seed)
        return tuple([{"text": text.strip("\n")} for text in part["text"]] for part in (corpus, held_out))
    for name in text_args.corpus:
        if name in built_in_corpora() and not Path(name).is_file():
            raise ConfigError(
                f"--prompt_column {text_args.prompt_column} needs --corpus, a table with that column "
                f"({', '.join(FORMATS)}): {name} has none."
            )
    columns = {"prompt_column": text_args.prompt_column, "completion_column": text_args.completion_column}
    train = read_examples(text_args.corpus, columns)
    if text_args.validation_file:
        held_out = read_examples(text_args.validation_file, columns)
    else:
        train, held_out = split_examples(train, text_args.validation_fraction, seed)
    names = zip(("prompt", "completion"), columns.values(), strict=True)
    names = dict(names)
    return tuple(
        [{name: text_of(row, column) for name, column in names.items()} for row in part] for part in (train, held_out)
    )


def build_discriminator(
    model: "PreTrainedModel",
    discriminator_args: DiscriminatorArguments,
    model_args: ModelArguments,
    data: AdversarialData,
    training_args: "AdversarialConfig",
) -> "PreTrainedModel | None":
    """The discriminator that the options name.

    Raises:
        ConfigError: there is none of that kind, or a checkpoint that cannot be one.
    """
    import torch

    from hf_gpt.adversarial.discriminator.factory import make_discriminator
    from hf_gpt.adversarial.discriminator.shared_trunk import shared_discriminator
    from hf_gpt.generation.embeddings import vocabulary_size
    from hf_gpt.training.model import build_model

    kind, is_language_model = discriminator_args.discriminator, training_args.has_language_model
    if kind == "none" or not training_args.needs_discriminator:
        return None
    torch.manual_seed(training_args.seed + 1)
    trunk = discriminator_args.discriminator_trunk
    if trunk != "own" and (kind != "from_generator" or is_language_model):
        raise ConfigError(f"--discriminator_trunk {trunk} is for a classifier with --discriminator from_generator.")
    if kind == "from_generator":
        if is_language_model:
            return copy.deepcopy(model)
        if trunk != "own":
            return shared_discriminator(model, trunk, **discriminator_args.overrides)
        return make_discriminator(kind, model, **discriminator_args.overrides)
    head = "AutoModelForCausalLM" if is_language_model else "AutoModelForSequenceClassification"
    shape = {"vocab_size": vocabulary_size(model)} if is_language_model else {"num_labels": 1}
    if kind == "language_model" and not is_language_model:
        raise ConfigError(
            "--discriminator language_model has no label: set --discriminator_loss density or mediator, or choose "
            "from_generator or ngram_cnn."
        )
    is_cnn = kind.partition("-")[0] == "ngram_cnn"
    chosen = ModelArguments(
        model_name_or_path=None if is_cnn or kind == "language_model" else kind,
        preset=discriminator_args.discriminator_preset if kind == "language_model" else None,
        trust_remote_code=model_args.trust_remote_code,
        config_overrides=discriminator_args.discriminator_overrides,
    )
    if not is_cnn:
        try:
            if chosen.model_name_or_path is not None:
                check_saved_tokens(chosen, data.tokenizer)
            return build_model(
                chosen, data.tokenizer, data.longest, training_args.seed + 1, auto_class=head, task_fields=shape
            )
        except UserError as error:
            if kind == "language_model":
                raise
            # The loader names the generator's option.
            what = str(error).removeprefix("--model_name_or_path: ")
            raise ConfigError(
                f"--discriminator {kind}: {what} Built in: from_generator, ngram_cnn, ngram_cnn-seqgan, "
                "language_model, none."
            ) from error
    from hf_gpt.models.configuration_hf_ngram_cnn import HfNgramCnnConfig
    from hf_gpt.training.model import check_fields

    check_fields(HfNgramCnnConfig, discriminator_args.overrides)
    ids = {"pad_token_id": data.tokenizer.pad_token_id, "eos_token_id": data.tokenizer.eos_token_id}
    return make_discriminator(kind, model, **{**ids, **discriminator_args.overrides})


def check_saved_tokens(chosen: ModelArguments, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Refuses a saved discriminator that reads other tokens than the generator's, before it is loaded or resized.

    Raises:
        ConfigError: it has another tokenizer, or fewer embeddings than the generator's has tokens.
    """
    from transformers import AutoConfig, AutoTokenizer

    from hf_gpt.files.checkpoints import find_model
    from hf_gpt.generation.scoring.shared_tokens import TokensError, check_shared_tokens

    path = find_model(chosen.model_name_or_path)
    source = {"revision": chosen.model_revision, "trust_remote_code": chosen.trust_remote_code}
    try:
        own = AutoTokenizer.from_pretrained(path, **source)
    except (OSError, ValueError, KeyError):
        own = None
    try:
        if own is not None:
            check_shared_tokens(None, None, tokenizer, own)
        size = AutoConfig.from_pretrained(path, **source).get_text_config().vocab_size
    except TokensError as error:
        raise ConfigError(str(error)) from error
    except (OSError, ValueError, AttributeError):
        # Whoever loads it says what is wrong with it.
        return
    if size < len(tokenizer):
        raise ConfigError(
            f"it reads {size:,} tokens, and the generator's tokenizer has {len(tokenizer):,}: it has another "
            "tokenizer. Train one with the generator's own (hf-gpt discriminator)."
        )


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
    if sum(counts) == steps:
        parts.append("and perhaps none of the adversarial loop")
    total = len(data.train_rows) + len(data.validation_rows)
    return [
        ("texts", f"{total:,} documents: {len(data.train_rows):,} to train on, {len(data.validation_rows):,} held out"),
        describe_model(trainer),
        ("discriminator", who),
        (
            "training",
            f"{steps:,} steps of {trainer.get_total_train_batch_size(args)} texts"
            + (f", {', '.join(parts)} among them" if parts else "")
            + f"; {args.estimator} on {args.discriminator_loss if discriminator is not None else 'self-play'}",
        ),
        *cut_lines(trainer.cuts),
    ]


def stretches(trainer: "AdversarialTrainer") -> list[Stretch]:
    """The phases of a run that is to be timed, whose warm-ups become as long as a dry run has steps of them."""
    args, total = trainer.args, total_steps(trainer)
    likelihood, alone, taught = trainer.schedule.warmups(total)
    # Whole rounds, and updates by new texts as often as by those of the update before.
    cycle = math.lcm(args.generator_steps, args.num_iterations)
    found = [
        Stretch(likelihood, "of likelihood"),
        Stretch(alone, "of the discriminator alone"),
        Stretch(taught, "of distillation"),
        Stretch(total - likelihood - alone - taught, "of both", timed=math.ceil(TIMED_STEPS / cycle) * cycle),
    ]
    tried = [part.tried * (part.steps > 0) for part in found[:-1]]
    args.mle_warmup_steps, args.discriminator_warmup_steps, args.distillation_warmup_steps = tried
    # What would end a phase early or leave an update out.
    args.discriminator_warmup_auc, args.gate_auc, args.on_collapse = math.inf, 0.0, "warn"
    return [part for part in found if part.steps]


def generation_options(sampling_args: SamplingArguments, training_args: "AdversarialConfig") -> dict[str, Any]:
    """Defaults of `generate` that the saved model has."""
    options: dict[str, Any] = {"max_new_tokens": training_args.max_new_tokens, "do_sample": False}
    if sampling_args.sample_temperature > 0:
        options.update(do_sample=True, temperature=sampling_args.sample_temperature, top_p=sampling_args.sample_top_p)
        # Nothing but what was asked for: `generate` would keep the 50 likeliest.
        options["top_k"] = 0
    return options


def write_samples(trainer: "AdversarialTrainer", data: AdversarialData, sampling_args: SamplingArguments) -> list[Any]:
    """Texts for the report: completions of held-out prompts, or texts without a prompt."""
    import torch

    from hf_gpt.reporting.report import Sample

    rows = trainer.eval_dataset.rows[:SHOWN_TEXTS]
    if not trainer.eval_dataset.has_prompts:
        rows = [rows[0]] * SHOWN_TEXTS
    settings = {"temperature": sampling_args.sample_temperature, "top_p": sampling_args.sample_top_p}
    # Those of rollouts are no part of it.
    others = {"top_k": 0, "min_p": 0.0}
    generator = torch.Generator().manual_seed(trainer.args.seed)
    sampled = trainer.loop.collector.sample(trainer.model, rows, generator=generator, **settings, **others)
    shown = f"temperature {settings['temperature']}, top-p {settings['top_p']}, seed {trainer.args.seed}"
    samples = []
    for row, ids, mask in zip(rows, sampled.completions.tolist(), sampled.completion_mask.tolist(), strict=True):
        kept = [token for token, keep in zip(ids, mask, strict=True) if keep]
        prompt = data.tokenizer.decode(row["prompt_ids"], skip_special_tokens=True)
        samples.append(Sample(prompt, data.tokenizer.decode(kept, skip_special_tokens=True), shown))
    return samples


def write_metrics(trainer: "AdversarialTrainer", metrics: dict[str, float], path: Path) -> None:
    """Writes the metrics, the updates of generator and discriminator, and the warnings."""
    warnings = [dataclasses.asdict(warning) for warning in trainer.loop.history.monitors.alerts]
    found = {**metrics, "steps": trainer.state.global_step, **trainer.update_counts(), "warnings": warnings}
    write_json(path, found)


def write_run_report(
    settings: Settings,
    trainer: "AdversarialTrainer",
    data: AdversarialData,
    metrics: dict[str, float],
    samples: list[Any],
    path: Path,
) -> Path:
    """Writes the report: headline metrics, the curves of generator and discriminator, warnings and samples."""
    import yaml
    from transformers import TrainingArguments

    from hf_gpt.adversarial.monitoring.evaluation import headline_metrics
    from hf_gpt.reporting.environment import describe_environment
    from hf_gpt.reporting.report import Metric, write_report

    meter, schedule = trainer.meter, trainer.schedule
    headline = headline_metrics(metrics)
    played = f"{schedule.adversarial_steps:,} against the discriminator, {schedule.skipped_steps:,} skipped by the gate"
    updated = f"of {trainer.state.global_step:,} steps"
    headline += [
        Metric("Generator's updates", f"{schedule.generator_updates:,}", updated),
        Metric("Steps", f"{trainer.state.global_step:,}", played),
        Metric("Training time", format_duration(meter.seconds), f"{format_count(meter.tokens)} tokens of both models"),
        Metric("Peak memory", f"{format_count(peak_memory())}B", "of the training process"),
    ]
    warnings = trainer.loop.history.monitors.alerts
    named = sorted({warning.name for warning in warnings})
    opponent = "itself" if trainer.discriminator is None else type(trainer.discriminator).__name__
    summary = (
        f"{type(trainer.model).__name__} against {opponent}, on "
        f"{len(data.train_rows):,} texts. {trainer.describe_updates()} "
        + (f"Warnings: {', '.join(named)}." if named else "No warning was raised.")
    )
    return write_report(
        path,
        title="Adversarial training",
        summary=summary,
        metrics=headline,
        log_history=trainer.state.log_history,
        samples=samples,
        sections=[part for part in [cuts_section(trainer.cuts)] if part is not None],
        settings=yaml.safe_load(settings_to_yaml(settings, TrainingArguments)),
        environment=describe_environment(),
    )


def print_result(metrics: dict[str, float], trainer: "AdversarialTrainer", model_path: Path, report: Path) -> None:
    """Prints the metrics, the warnings and the paths."""
    from hf_gpt.training.monitoring.callbacks import metric_texts

    print(f"\n{'held-out loss':<22}{metrics['eval_loss']:.4f}")
    for name, text in metric_texts(metrics, with_sizes=True).items():
        print(f"{name.replace('_', ' '):<22}{text}")
    print(trainer.describe_updates())
    for name in sorted({warning.name for warning in trainer.loop.history.monitors.alerts}):
        print(f"warning               {name}")
    print(f"generator             {model_path}")
    if trainer.discriminator is not None:
        print(f"discriminator         {model_path / 'discriminator'}")
    print(f"report                {report}")
