"""`hf-gpt pretrain`: text in; tokenizer, model, checkpoint, samples and report out."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gpt.cli.training_command import make_command_parser, run_command
from hf_gpt.data.arguments import DataArguments
from hf_gpt.data.truncation import cut_lines
from hf_gpt.option_values import check_at_least
from hf_gpt.reporting.truncation import cuts_section
from hf_gpt.training.arguments.adapter import PeftArguments
from hf_gpt.training.arguments.model import ModelArguments
from hf_gpt.training.arguments.sampling import SamplingArguments
from hf_gpt.training.monitoring.throughput import format_count, format_duration, peak_memory
from hf_gpt.training.run import (
    describe_model,
    describe_steps,
    final_metrics,
    make_callbacks,
    open_run,
    run_training,
    save_final_model,
    total_steps,
)
from hf_gpt.training.settings import Settings, settings_to_yaml


if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

    from hf_gpt.data.streaming import RowStream
    from hf_gpt.data.truncation import Cuts
    from hf_gpt.training.monitoring.reload_check import ReloadResult
    from hf_gpt.training.trainer import HfGptTrainer
    from hf_gpt.training.training_arguments import HfGptTrainingArguments


PROG = "hf-gpt pretrain"
DESCRIPTION = """Trains a language model from scratch, or goes on with one, on any text.

  hf-gpt pretrain --config demo                                  a built-in recipe
  hf-gpt pretrain --corpus book.txt --preset mini --max_steps 500
  hf-gpt pretrain --config recipe.yaml --learning_rate 1e-3      defaults < recipe < command line
"""
ARGUMENTS = (ModelArguments, DataArguments, SamplingArguments, PeftArguments)

# Relative difference of bits per byte before and after saving. Training may score in bfloat16, the check does not.
RELOAD_TOLERANCE = 0.01
# The same where training kept the weights in 4 bits and the check has them whole.
QUANTIZED_TOLERANCE = 0.1


@dataclass(frozen=True)
class PretrainingData:
    """What is trained and validated on.

    Attributes:
        train_rows: Packed rows, a whole number of batches of them, or an endless stream of them.
        validation_rows: The same for validation.
        validation_texts: The validation documents.
        train_bytes: UTF-8 bytes of the training documents; of a stream the size of its files, None if not known.
        validation_bytes: The same for validation.
        num_documents: Documents of the corpus, before a part is held out; None for a stream, which is not counted.
        num_blocks: Blocks that documents too few to hold one out were split into; None where they were not.
        tokenizer: What turned the text into tokens.
        cuts: What was parted or left out of the training and of the validation text.
    """

    train_rows: "datasets.Dataset | RowStream"
    validation_rows: "datasets.Dataset"
    validation_texts: list[str]
    train_bytes: int | None
    validation_bytes: int
    num_documents: int | None
    num_blocks: int | None
    tokenizer: "PreTrainedTokenizerBase"
    cuts: "dict[str, Cuts]"


def make_parser() -> argparse.ArgumentParser:
    """The parser that prints the help."""
    return make_command_parser(PROG, DESCRIPTION, ARGUMENTS)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return run_command(argv, make_parser=make_parser, dataclass_types=ARGUMENTS, run=pretrain)


def pretrain(settings: Settings) -> int:
    """Trains, saves, checks and reports as the settings say; returns the exit status."""
    from hf_gpt.training.adapters import add_adapter, check_adapter_options, merge_adapter, quantization_config
    from hf_gpt.training.distributed.sharding import shard_model
    from hf_gpt.training.model import build_model

    model_args, data_args, sampling_args, peft_args, training_args = settings.arguments
    check_adapter_options(peft_args, model_args, training_args, packed=True)
    check_at_least(data_args, max_length=2)
    check_at_least(sampling_args, sample_max_new_tokens=1, sample_batch_size=1)
    checkpoint = open_run(settings)
    data = prepare_data(model_args, data_args, training_args, checkpoint)
    model = build_model(
        model_args,
        data.tokenizer,
        data_args.max_length,
        training_args.seed,
        task_fields={} if model_args.overrides else None,
        quantization_config=quantization_config(peft_args, training_args),
    )

    def start() -> "HfGptTrainer":
        adapted = shard_model(model, training_args)
        if peft_args.use_peft:
            output_dir, is_main = Path(training_args.output_dir), training_args.process_index == 0
            adapted = add_adapter(model, data.tokenizer, peft_args, model_args, "CAUSAL_LM", output_dir, is_main)
        return make_trainer(adapted, data, training_args)

    def finish(trainer: "HfGptTrainer", output_dir: Path) -> None:
        metrics = final_metrics(trainer)
        if peft_args.merge_adapter:
            trainer.model = merge_adapter(trainer.model)
        save_final_model(trainer, output_dir / "model", sampling_options(sampling_args))
        if training_args.process_index == 0:
            reloaded = check_reloaded(output_dir / "model", data, model_args, data_args, sampling_args, training_args)
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


def prepare_data(
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: "HfGptTrainingArguments",
    checkpoint: Path | None,
) -> PretrainingData:
    """Reads and splits the corpus, trains or loads the tokenizer, and packs.

    Args:
        model_args: Where a tokenizer may come from.
        data_args: The corpus.
        training_args: Batch sizes and seed.
        checkpoint: The checkpoint that is resumed from, whose tokenizer is used.
    """
    from hf_gpt.data.corpus import count_bytes
    from hf_gpt.data.packed_dataset import (
        complete_batches,
        count_parted,
        filler_token_id,
        keep_fitting,
        tokenize_and_pack,
    )
    from hf_gpt.data.truncation import Cuts, check_usable

    texts = _read_texts(data_args, training_args)
    tokenizer = _load_or_train_tokenizer(model_args, data_args, checkpoint, texts)
    pack_options = {"max_length": data_args.max_length, "strategy": data_args.packing_strategy}
    overlong, max_length = data_args.overlong, data_args.max_length
    unit = "documents" if texts.num_blocks is None else "blocks"
    cuts = {name: Cuts(unit, "max_length", max_length) for name in ("training", "validation")}
    filler, processes = filler_token_id(tokenizer), training_args.data_parallel_size
    if texts.stream is None:
        training = keep_fitting(texts.training, tokenizer, max_length, overlong, cuts["training"])
        check_usable(len(training), cuts["training"], "to train on")
        train_rows = tokenize_and_pack(training, tokenizer, desc="packing the training text", **pack_options)
        count_parted(train_rows, tokenizer, cuts["training"])
        # Whole steps: a run that goes on with other batches, of as many rows in a step, has the same rows in its epoch.
        rows_of_a_step = training_args.train_batch_size * training_args.gradient_accumulation_steps * processes
        train_rows = complete_batches(train_rows, rows_of_a_step, filler)
        train_bytes = count_bytes(training)
    else:
        train_rows, train_bytes = _streamed_rows(texts.stream, tokenizer, training_args.seed, overlong, pack_options)
        cuts["training"] = train_rows.cuts
    validation = keep_fitting(texts.validation, tokenizer, max_length, overlong, cuts["validation"])
    check_usable(len(validation), cuts["validation"], "to validate on")
    validation_rows = tokenize_and_pack(validation, tokenizer, desc="packing the validation text", **pack_options)
    count_parted(validation_rows, tokenizer, cuts["validation"])
    return PretrainingData(
        train_rows=train_rows,
        validation_rows=complete_batches(validation_rows, training_args.eval_batch_size * processes, filler),
        validation_texts=list(validation["text"]),
        train_bytes=train_bytes,
        validation_bytes=count_bytes(validation),
        num_documents=texts.num_documents,
        num_blocks=texts.num_blocks,
        tokenizer=tokenizer,
        cuts=cuts,
    )


@dataclass
class _Texts:
    """Text to train and to validate on; `stream` in place of `training` with --streaming."""

    validation: Any
    training: Any = None
    stream: Any = None
    num_documents: int | None = None
    num_blocks: int | None = None


def _read_texts(data_args: DataArguments, training_args: "HfGptTrainingArguments") -> _Texts:
    from hf_gpt.data.corpus import is_split_by_blocks, read_corpus, split_corpus
    from hf_gpt.data.streaming import check_streaming, open_documents
    from hf_gpt.errors import ConfigError

    form = {"text_column": data_args.text_column, "document_separator": data_args.document_separator}
    if data_args.streaming:
        check_streaming(data_args, training_args)
        return _Texts(stream=open_documents(data_args), validation=read_corpus(data_args.validation_file, **form))
    if data_args.corpus_weights:
        raise ConfigError("--corpus_weights needs --streaming.")
    texts = read_corpus(data_args.corpus, **form)
    if data_args.validation_file:
        validation = read_corpus(data_args.validation_file, **form)
        return _Texts(validation, texts, num_documents=len(texts))
    by_blocks = is_split_by_blocks(texts, data_args.validation_fraction)
    training, validation = split_corpus(texts, data_args.validation_fraction, training_args.seed)
    num_blocks = len(training) + len(validation) if by_blocks else None
    return _Texts(validation, training, num_documents=len(texts), num_blocks=num_blocks)


def _load_or_train_tokenizer(
    model_args: ModelArguments, data_args: DataArguments, checkpoint: Path | None, texts: _Texts
) -> Any:
    from hf_gpt.data.streaming import TOKENIZER_CHARACTERS, one_pass
    from hf_gpt.data.tokenizer import train_tokenizer
    from hf_gpt.training.model import load_tokenizer

    source = checkpoint or data_args.tokenizer_name or model_args.model_name_or_path
    if source is not None:
        return load_tokenizer(str(source), model_args)
    return train_tokenizer(
        (text for text in texts.training["text"])
        if texts.stream is None
        else one_pass(texts.stream, TOKENIZER_CHARACTERS),
        data_args.tokenizer_vocab_size,
        model_max_length=data_args.max_length,
    )


def _streamed_rows(
    stream: Any, tokenizer: Any, seed: int, overlong: str, pack_options: dict[str, Any]
) -> tuple[Any, Any]:
    """Rows that are read while training, and the bytes of their sources if they are known."""
    from hf_gpt.data.streaming import RowStream

    sizes = [source.num_bytes for source in stream.sources]
    rows = RowStream(stream, tokenizer, shuffle_seed=seed, overlong=overlong, **pack_options)
    return rows, None if None in sizes else sum(sizes)


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
        *cut_lines(data.cuts),
    ]


def describe_corpus(data: PretrainingData, data_args: DataArguments) -> str:
    """What is trained on, and how much of it there is if that is known."""
    names = ", ".join(data_args.corpus)
    size = [] if data.num_documents is None else [count_documents(data.num_documents, data.num_blocks)]
    size += [] if data.train_bytes is None else [f"{format_count(data.train_bytes)}B"]
    streamed = ", streamed" if data_args.streaming else ""
    return f"{names}{': ' if size else ''}{', '.join(size)}{streamed}"


def count_documents(count: int, num_blocks: int | None = None) -> str:
    """The number in words, with that of the blocks they were split into, if they were."""
    blocks = "" if num_blocks is None else f" in {num_blocks:,} blocks"
    return f"{count:,} document{'' if count == 1 else 's'}{blocks}"


def sampling_options(sampling_args: SamplingArguments) -> dict[str, Any]:
    """The options as `generate` takes them."""
    options: dict[str, Any] = {"max_new_tokens": sampling_args.sample_max_new_tokens, "do_sample": False}
    if sampling_args.sample_temperature > 0:
        options.update(do_sample=True, temperature=sampling_args.sample_temperature, top_p=sampling_args.sample_top_p)
        # Nothing but what was asked for: `generate` would keep the 50 likeliest.
        options["top_k"] = 0
    return options


def check_reloaded(
    path: Path,
    data: PretrainingData,
    model_args: ModelArguments,
    data_args: DataArguments,
    sampling_args: SamplingArguments,
    training_args: "HfGptTrainingArguments",
) -> "ReloadResult":
    """Scores the saved model and generates the samples in a fresh process."""
    from hf_gpt.training.monitoring.reload_check import ReloadRequest, check_in_fresh_process

    return check_in_fresh_process(
        ReloadRequest(
            checkpoint=str(path),
            documents=data.validation_texts,
            max_length=data_args.max_length,
            packing_strategy=data_args.packing_strategy,
            batch_size=training_args.per_device_eval_batch_size,
            prompts=sampling_args.sample_prompts,
            sampling=sampling_options(sampling_args),
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
    import yaml
    from transformers import TrainingArguments

    from hf_gpt.reporting.environment import describe_environment
    from hf_gpt.reporting.report import Metric, Sample, write_report

    _, data_args, sampling_args, _, training_args = settings.arguments
    meter = trainer.meter
    samples = (
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
        Metric("Training time", format_duration(meter.seconds), describe_steps(trainer)),
        Metric("Peak memory", f"{format_count(peak_memory())}B", "of the training process"),
    ]
    summary = (
        f"{reloaded.model_class} with {format_count(reloaded.num_parameters)} parameters, trained on "
        f"{describe_corpus(data, data_args)} ({len(data.tokenizer):,} tokens in the vocabulary). Bits per byte and "
        f"samples come from the saved checkpoint, loaded in a fresh process; before saving, the model scored "
        f"{metrics['eval_bits_per_byte']:.4f} bits per byte."
    )
    return write_report(
        path,
        title=f"Pretraining on {', '.join(data_args.corpus)}",
        summary=summary,
        metrics=headline,
        log_history=trainer.state.log_history,
        samples=[
            Sample(prompt, text, samples)
            for prompt, text in zip(sampling_args.sample_prompts, reloaded.samples, strict=True)
        ],
        sections=[part for part in [cuts_section(data.cuts)] if part is not None],
        settings=yaml.safe_load(settings_to_yaml(settings, TrainingArguments)),
        environment=describe_environment(),
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
    print(
        f"\nbits per byte  {reloaded.bits_per_byte:.4f} on the validation text, by the checkpoint reloaded in a fresh "
        f"process ({metrics['eval_bits_per_byte']:.4f} before saving)"
    )
    if abs(reloaded.bits_per_byte - metrics["eval_bits_per_byte"]) > tolerance * reloaded.bits_per_byte:
        print("warning: the two differ by more than rounding: the checkpoint is not what was trained.", file=sys.stderr)
    print(f"checkpoint     {model_path}")
    print(f"report         {report}")
