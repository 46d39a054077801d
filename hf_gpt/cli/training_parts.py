"""What the training commands share between their data and their end: adapter, samples, report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gpt.reporting.truncation import cuts_section
from hf_gpt.training.arguments.sampling import SamplingArguments
from hf_gpt.training.monitoring.throughput import format_count, format_duration, peak_memory
from hf_gpt.training.run import describe_steps
from hf_gpt.training.settings import Settings, settings_to_yaml


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hf_gpt.data.truncation import Cuts
    from hf_gpt.reporting.report import Metric, Sample, Section
    from hf_gpt.training.arguments.adapter import PeftArguments
    from hf_gpt.training.arguments.model import ModelArguments
    from hf_gpt.training.trainer import HfGptTrainer
    from hf_gpt.training.training_arguments import HfGptTrainingArguments


def shard_and_adapt(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    model_args: "ModelArguments",
    peft_args: "PeftArguments",
    training_args: "HfGptTrainingArguments",
    *,
    peft_type: str = "CAUSAL_LM",
    new_rows: Sequence[int] = (),
) -> Any:
    """The model that is trained: in shards and with an adapter, where the options ask for them.

    Args:
        model: As it was built.
        tokenizer: Saved beside the base of an adapter.
        model_args: Where the model comes from.
        peft_args: The adapter, if there is one.
        training_args: Processes and output folder.
        peft_type: PEFT's name of the task.
        new_rows: Ids of tokens whose embeddings are trained with the adapter.
    """
    from hf_gpt.training.adapters import add_adapter
    from hf_gpt.training.distributed.sharding import shard_model

    sharded = shard_model(model, training_args)
    if not peft_args.use_peft:
        return sharded
    options = {"peft_type": peft_type, "new_rows": new_rows}
    return add_adapter(model, tokenizer, peft_args, model_args, training_args, **options)


def describe_time(trainer: "HfGptTrainer", num_tokens: float | None) -> list[tuple[str, str]]:
    """The line about how long training on a CPU takes, by a formula; none in a dry run, which measures.

    Args:
        trainer: Before training.
        num_tokens: Tokens that each parameter sees; None where no formula knows the work of a step.
    """
    import torch

    from hf_gpt.training.preset_choice import cpu_seconds

    if trainer.args.device.type != "cpu" or trainer.args.dry_run:
        return []
    measure = "--dry_run true times a few steps"
    if num_tokens is None:
        return [("time", f"not known before; {measure}")]
    cores = torch.get_num_threads() * trainer.args.world_size
    # An embedding is looked up, and multiplied where it is the head's weight.
    parameters = trainer.model.num_parameters(exclude_embeddings=True)
    head = trainer.model.get_output_embeddings()
    parameters += 0 if head is None else head.weight.numel()
    duration = format_duration(cpu_seconds(parameters, num_tokens, cores))
    return [("time", f"about {duration} on {cores} CPU core{'' if cores == 1 else 's'}, by a formula; {measure}")]


def sampling_options(sampling_args: SamplingArguments, max_new_tokens: int) -> dict[str, Any]:
    """The options as `generate` takes them, which the saved model keeps as its defaults."""
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": False}
    if sampling_args.sample_temperature > 0:
        # Nothing but what was asked for: `generate` would keep the 50 likeliest.
        asked = {"temperature": sampling_args.sample_temperature, "top_p": sampling_args.sample_top_p, "top_k": 0}
        options.update(do_sample=True, **asked)
    return options


def write_training_report(
    path: Path,
    settings: Settings,
    trainer: "HfGptTrainer",
    *,
    title: str,
    summary: str,
    metrics: "Sequence[Metric]",
    samples: "Sequence[Sample]",
    cuts: "Mapping[str, Cuts]",
    sections: "Sequence[Section]" = (),
    results: "Sequence[Section]" = (),
    time_note: str | None = None,
) -> Path:
    """Writes the report of a run; training time and peak memory stand behind its metrics.

    Args:
        path: The HTML file.
        settings: Of the run.
        trainer: After training.
        title: Heading of the page.
        summary: A few sentences.
        metrics: Headline metrics.
        samples: What the model wrote.
        cuts: What of the data was cut or left out.
        sections: Further parts, behind the curves.
        results: Those before the curves.
        time_note: Stands under the training time; left out: the steps.
    """
    import yaml

    from hf_gpt.reporting.environment import describe_environment
    from hf_gpt.reporting.report import Metric, write_report

    cost = [
        Metric("Training time", format_duration(trainer.meter.seconds), time_note or describe_steps(trainer)),
        Metric("Peak memory", f"{format_count(peak_memory())}B", "of the training process"),
    ]
    cut = cuts_section(cuts)
    return write_report(
        path,
        title=title,
        summary=summary,
        metrics=[*metrics, *cost],
        log_history=trainer.state.log_history,
        samples=samples,
        sections=[*([] if cut is None else [cut]), *sections],
        results=results,
        settings=yaml.safe_load(settings_to_yaml(settings)),
        environment=describe_environment(),
    )
