"""`hf-gpt pretrain`: text in; tokenizer, model, checkpoint, samples and report out."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from hf_gpt.cli.pretrain_data import PretrainingData, prepare_data
from hf_gpt.cli.training_command import training_command
from hf_gpt.cli.training_parts import describe_time, sampling_options, shard_and_adapt, write_training_report
from hf_gpt.data.arguments import DataArguments
from hf_gpt.data.truncation import cut_lines
from hf_gpt.errors import UserError
from hf_gpt.installation import as_typed
from hf_gpt.option_values import check_at_least
from hf_gpt.training.arguments.adapter import PeftArguments
from hf_gpt.training.arguments.model import ModelArguments
from hf_gpt.training.arguments.sampling import SamplingArguments
from hf_gpt.training.monitoring.throughput import format_count
from hf_gpt.training.run import (
    describe_model,
    describe_steps,
    final_metrics,
    make_callbacks,
    open_run,
    print_lines,
    run_training,
    save_final_model,
    total_steps,
)
from hf_gpt.training.settings import Settings


if TYPE_CHECKING:
    from hf_gpt.training.monitoring.reload_check import ReloadResult
    from hf_gpt.training.trainer import HfGptTrainer
    from hf_gpt.training.training_arguments import HfGptTrainingArguments


PROG = "hf-gpt pretrain"
DESCRIPTION = """Trains a language model from scratch, or goes on with one, on any text.

  hf-gpt pretrain --config demo                                  a built-in recipe
  hf-gpt pretrain --train_file book.txt --preset mini --max_steps 500
  hf-gpt pretrain --config recipe.yaml --learning_rate 1e-3      defaults < recipe < command line

Left out, the size fits the text and the machine, and a text is gone over 3 times, or more often
until there are 300 steps, at most 20 times. A step has 16 rows on each device.
"""
# Options that the short help shows.
COMMON = (
    "config train_file preset model_name_or_path max_length max_steps "
    "per_device_train_batch_size learning_rate output_dir resume_from_checkpoint"
)
ARGUMENTS = (ModelArguments, DataArguments, SamplingArguments, PeftArguments)

# Relative difference of bits per byte before and after saving. Training may score in bfloat16, the check does not.
RELOAD_TOLERANCE = 0.01
# The same where training kept the weights in 4 bits and the check has them whole.
QUANTIZED_TOLERANCE = 0.1


def choose_options(argv: Sequence[str]) -> dict[str, Any]:
    """Options by the size of the text, where the size of a new model is left open; nothing otherwise."""
    from hf_gpt.data.corpus import resolve_file
    from hf_gpt.training.preset_choice import options_for_text

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--train_file", nargs="+", default=list(DataArguments().train_file))
    for name in ("preset", "model_name_or_path", "config_overrides", "model_type", "tokenizer_name", "streaming"):
        parser.add_argument(f"--{name}", nargs="?", const=True)
    found, _ = parser.parse_known_args(argv)
    is_streamed = found.streaming is not None and str(found.streaming).lower() != "false"
    is_named = found.model_name_or_path or found.config_overrides or found.tokenizer_name or is_streamed
    if is_named or found.preset not in (None, "auto") or found.model_type not in (None, "hf_gpt"):
        return {}
    try:
        return options_for_text(sum(resolve_file(name).stat().st_size for name in found.train_file))
    except (ImportError, UserError, OSError):
        # Whoever reads the file says what is wrong with it.
        return {}


def pretrain(settings: Settings) -> int:
    """Trains, saves, checks and reports as the settings say; returns the exit status."""
    from hf_gpt.training.adapters import check_adapter_options, merge_adapter, quantization_config
    from hf_gpt.training.model import build_model

    model_args, data_args, sampling_args, peft_args, training_args = settings.arguments
    check_adapter_options(peft_args, model_args, training_args, packed=True)
    check_at_least(data_args, max_length=2)
    checkpoint = open_run(settings, lambda record: keep_size(settings, record))
    data = prepare_data(model_args, data_args, training_args, checkpoint)
    fit_passes(settings, data)
    fit_size(settings, data)
    model = build_model(
        model_args,
        data.tokenizer,
        data_args.max_length,
        training_args.seed,
        task_fields={} if model_args.overrides else None,
        quantization_config=quantization_config(peft_args, training_args),
    )

    def start() -> "HfGptTrainer":
        adapted = shard_and_adapt(model, data.tokenizer, model_args, peft_args, training_args)
        return make_trainer(adapted, data, training_args)

    def finish(trainer: "HfGptTrainer", output_dir: Path) -> None:
        metrics = final_metrics(trainer)
        if peft_args.merge_adapter:
            trainer.model = merge_adapter(trainer.model)
        options = sampling_options(sampling_args, sampling_args.sample_max_new_tokens)
        save_final_model(trainer, output_dir / "model", options)
        if training_args.process_index == 0:
            reloaded = check_reloaded(settings, output_dir / "model", data)
            report = write_run_report(settings, trainer, data, metrics, reloaded, output_dir / "report.html")
            tolerance = QUANTIZED_TOLERANCE if peft_args.load_in_4bit else RELOAD_TOLERANCE
            print_result(sampling_args.sample_prompts, reloaded, metrics, output_dir / "model", report, tolerance)

    return run_training(
        settings,
        training_args,
        checkpoint,
        prog=PROG,
        make_trainer=start,
        describe=lambda trainer: describe_run(trainer, data, data_args),
        finish=finish,
    )


def has_open_size(model_args: ModelArguments) -> bool:
    """Whether nobody named a size for the new model."""
    is_named = model_args.model_name_or_path or model_args.preset or model_args.overrides
    return model_args.preset == "auto" or (not is_named and model_args.model_type == "hf_gpt")


def keep_size(settings: Settings, record: Mapping[str, Any]) -> None:
    """Sets the preset that a resumed run began with, however many steps it takes now."""
    model_args = settings.arguments[0]
    kept = record.get("command", {}).get("ModelArguments", {}).get("preset")
    if kept and has_open_size(model_args):
        model_args.preset = settings.values["preset"] = kept


def fit_passes(settings: Settings, data: PretrainingData) -> None:
    """Chooses the passes over a text where nobody named passes or steps, by how many steps one pass has."""
    from hf_gpt.training.preset_choice import choose_passes

    data_args, training_args = settings.arguments[1], settings.arguments[-1]
    if data_args.streaming or settings.given & {"num_train_epochs", "max_steps"}:
        return
    rows_of_a_step = training_args.train_batch_size * training_args.gradient_accumulation_steps
    steps = len(data.train_rows) / (rows_of_a_step * training_args.data_parallel_size)
    training_args.num_train_epochs = choose_passes(training_args.num_train_epochs, steps)
    settings.values["num_train_epochs"] = training_args.num_train_epochs


def fit_size(settings: Settings, data: PretrainingData) -> None:
    """Chooses the preset of a new model whose size nobody named, by text and machine, and says so."""
    import torch

    from hf_gpt.training.preset_choice import choose_preset

    model_args, data_args, _, _, training_args = settings.arguments
    if not has_open_size(model_args):
        return
    rows_of_a_step = training_args.train_batch_size * training_args.gradient_accumulation_steps
    seen = training_args.max_steps * rows_of_a_step * training_args.data_parallel_size * data_args.max_length
    if data_args.streaming:
        num_tokens, num_passes = seen, 1.0
    else:
        num_tokens = sum(map(len, data.train_rows["input_ids"]))
        num_passes = training_args.num_train_epochs if training_args.max_steps <= 0 else seen / num_tokens
    is_cpu = training_args.device.type == "cpu"
    cores = torch.get_num_threads() * training_args.world_size if is_cpu else None
    model_args.preset = settings.values["preset"] = choose_preset(num_tokens, num_passes, cores)
    if training_args.process_index == 0:
        where = "an accelerator" if cores is None else f"{cores} CPU core{'' if cores == 1 else 's'}"
        line = f"{model_args.preset}, for {num_tokens:,} tokens on {where}; --preset names another size"
        print_lines(print, [("size", line)])


def make_trainer(model: Any, data: PretrainingData, training_args: "HfGptTrainingArguments") -> "HfGptTrainer":
    """The trainer with its callbacks."""
    from hf_gpt.data.collators import PackedRowsCollator
    from hf_gpt.training.monitoring.callbacks import CutsCallback
    from hf_gpt.training.trainer import HfGptTrainer

    trainer = HfGptTrainer(
        model=model,
        args=training_args,
        train_dataset=data.train_rows,
        eval_dataset=data.validation_rows,
        eval_num_bytes=data.validation_bytes,
        processing_class=data.tokenizer,
        data_collator=PackedRowsCollator(),
        callbacks=[*make_callbacks(training_args), CutsCallback(data.cuts)],
    )
    trainer.validation_content = data.validation_texts
    return trainer


def describe_run(trainer: "HfGptTrainer", data: PretrainingData, data_args: DataArguments) -> list[tuple[str, str]]:
    """What is about to happen, as pairs of a name and a line."""
    steps, rows = total_steps(trainer), trainer.get_total_train_batch_size(trainer.args)
    tokens = steps * rows * data_args.max_length
    epoch_tokens = 0 if data_args.streaming else len(data.train_rows) * data_args.max_length
    return [
        (
            "corpus",
            f"{describe_corpus(data, data_args)} to train on, {format_count(data.validation_bytes)}B to validate on",
        ),
        (
            "tokenizer",
            f"{len(data.tokenizer):,} tokens"
            + ("" if data_args.streaming else f", {data.train_bytes / max(epoch_tokens, 1):.2f} bytes each"),
        ),
        describe_model(trainer),
        (
            "training",
            f"{steps:,} steps of {rows} rows of {data_args.max_length} tokens: {format_count(tokens)} tokens"
            + ("" if data_args.streaming else f", {tokens / max(epoch_tokens, 1):.1f} epochs"),
        ),
        *describe_time(trainer, tokens),
        *cut_lines(data.cuts),
    ]


def describe_corpus(data: PretrainingData, data_args: DataArguments) -> str:
    """What is trained on, and how much of it there is if that is known."""
    from hf_gpt.data.corpus import describe_split

    names = ", ".join(data_args.train_file)
    split = "" if data_args.streaming else describe_split(data_args.train_file, data_args.document_separator)
    size = [] if data.num_documents is None else [count_documents(data.num_documents, data.num_blocks, split)]
    size += [] if data.train_bytes is None else [f"{format_count(data.train_bytes)}B"]
    size += ["streamed"] if data_args.streaming else []
    return f"{names}: {', '.join(size)}"


def count_documents(count: int, num_blocks: int | None = None, split: str = "") -> str:
    """The number in words, how a file was split, and the number of the blocks they were split into, if they were."""
    blocks = "" if num_blocks is None else f" in {num_blocks:,} blocks"
    return f"{count:,} document{'' if count == 1 else 's'}{split}{blocks}"


def check_reloaded(settings: Settings, path: Path, data: PretrainingData) -> "ReloadResult":
    """Scores the saved model and samples from it in a fresh process."""
    from hf_gpt.training.monitoring.reload_check import ReloadResult, in_fresh_process, score_and_continue

    model_args, data_args, sampling_args, _, training_args = settings.arguments
    return ReloadResult(
        **in_fresh_process(
            score_and_continue,
            checkpoint=str(path),
            documents=data.validation_texts,
            max_length=data_args.max_length,
            packing_strategy=data_args.packing_strategy,
            batch_size=training_args.per_device_eval_batch_size,
            prompts=sampling_args.sample_prompts,
            sampling=sampling_options(sampling_args, sampling_args.sample_max_new_tokens),
            sample_batch_size=sampling_args.sample_batch_size,
            seed=training_args.seed,
            trust_remote_code=model_args.trust_remote_code,
        )
    )


def describe_passes(trainer: "HfGptTrainer", data: PretrainingData, data_args: DataArguments) -> str:
    """How often the corpus was gone through; for a stream, what was left out of it."""
    if not data_args.streaming:
        return f"{trainer.state.epoch:.1f} epochs"
    skipped = data.train_rows.documents.state["skipped"]
    return f"streamed, {skipped} malformed rows skipped" if skipped else "streamed"


def write_run_report(
    settings: Settings,
    trainer: "HfGptTrainer",
    data: PretrainingData,
    metrics: dict[str, float],
    reloaded: "ReloadResult",
    path: Path,
) -> Path:
    """Writes the report; headline and samples are the reloaded checkpoint's."""
    from hf_gpt.reporting.report import Metric, Sample

    _, data_args, sampling_args, _, training_args = settings.arguments
    meter = trainer.meter
    sampled_by = (
        f"temperature {sampling_args.sample_temperature}, top-p {sampling_args.sample_top_p}, seed {training_args.seed}"
        if sampling_args.sample_temperature > 0
        else "likeliest token each time"
    )
    trained = f"{describe_passes(trainer, data, data_args)}, {describe_steps(trainer)}"
    headline = [
        Metric("Bits per byte", f"{reloaded.bits_per_byte:.4f}", "validation text, reloaded checkpoint"),
        Metric("Validation loss", f"{metrics['eval_loss']:.4f}", "nats per token"),
        Metric("Parameters", format_count(reloaded.num_parameters), reloaded.model_class),
        Metric("Tokens trained on", format_count(meter.tokens), trained),
        Metric("Speed", f"{format_count(meter.tokens / max(meter.seconds, 1e-9))} tokens/s", "training alone"),
    ]
    summary = (
        f"{reloaded.model_class} with {format_count(reloaded.num_parameters)} parameters, trained on "
        f"{describe_corpus(data, data_args)} ({len(data.tokenizer):,} tokens in the vocabulary). Bits per byte and "
        f"samples come from the saved checkpoint, loaded in a fresh process; before saving, the model scored "
        f"{metrics['eval_bits_per_byte']:.4f} bits per byte."
    )
    return write_training_report(
        path,
        settings,
        trainer,
        title=f"Pretraining on {', '.join(data_args.train_file)}",
        summary=summary,
        metrics=headline,
        samples=[
            Sample(prompt, text, sampled_by)
            for prompt, text in zip(sampling_args.sample_prompts, reloaded.samples, strict=True)
        ],
        cuts=data.cuts,
    )


def print_result(
    prompts: Sequence[str],
    reloaded: "ReloadResult",
    metrics: dict[str, float],
    model_path: Path,
    report: Path,
    tolerance: float = RELOAD_TOLERANCE,
) -> None:
    """Prints samples, score and where things are; warns where the score differs by more than a share after saving."""
    for prompt, text in zip(prompts, reloaded.samples, strict=True):
        print(f"\n----- prompt {prompt!r} -----\n{prompt}{text}")
    score = f"{reloaded.bits_per_byte:.4f} on the validation text, by the checkpoint reloaded in a fresh process"
    print(f"\nbits per byte  {score} ({metrics['eval_bits_per_byte']:.4f} before saving)")
    if abs(reloaded.bits_per_byte - metrics["eval_bits_per_byte"]) > tolerance * reloaded.bits_per_byte:
        print("warning: the two differ by more than rounding: the checkpoint is not what was trained.", file=sys.stderr)
    following = as_typed(f'hf-gpt generate {quote(str(model_path))} "Once upon a time"')
    print_lines(print, [("checkpoint", str(model_path)), ("report", str(report)), ("next", following)])


make_parser, main = training_command(
    PROG,
    DESCRIPTION,
    COMMON,
    ARGUMENTS,
    pretrain,
    is_shown=lambda recipe: "task" not in recipe,
    choose_options=choose_options,
)
