"""What a checkpoint says of its run, and the comparison of a run that goes on with it."""

import contextlib
import dataclasses
import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_gpt import compat
from hf_gpt.errors import CheckpointError, ConfigError
from hf_gpt.files.checkpoint_parts import RECORD_NAME
from hf_gpt.training.resumption.resume_options import CLASSES, Change, change_of, is_refused


# Fields of a model's config that say nothing of what it computes, or that the library sets by itself.
_NOT_OF_THE_MODEL = frozenset(
    (
        *compat.PRIVATE_CONFIG_FIELDS,
        "transformers_version",
        "architectures",
        "auto_map",
        "use_cache",
        "dtype",
        "torch_dtype",
        "problem_type",
        "id2label",
        "label2id",
        "tokenizer_class",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "decoder_start_token_id",
        "return_dict",
        "attn_implementation",
        "output_attentions",
        "output_hidden_states",
    )
)


@dataclass(frozen=True)
class RunFacts:
    """What makes a run the one it is.

    Attributes:
        kind: Name of the class of the training arguments.
        options: The training arguments by name, in plain types.
        command: Options of a command by dataclass and name.
        world_size: Number of processes.
        rows_of_a_step: Rows that a step of the optimizer learns from.
        train_data, validation_data: Fingerprints; None where there is none.
    """

    kind: str
    options: dict[str, Any]
    command: dict[str, dict[str, Any]] = field(default_factory=dict)
    world_size: int = 1
    rows_of_a_step: int | None = None
    train_data: str | None = None
    validation_data: str | None = None


def options_of(arguments: Any) -> dict[str, Any]:
    """The options of a dataclass that are compared, in plain types."""
    kind = type(arguments).__name__
    values = {
        item.name: getattr(arguments, item.name)
        for item in dataclasses.fields(arguments)
        if item.init and _class_or_free(kind, item.name) is not Change.FREE
    }
    return json.loads(json.dumps(values, default=str))


def options_of_command(arguments: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """The options of a command's dataclasses, by the names of these."""
    return {type(each).__name__: options_of(each) for each in arguments}


def _class_or_free(kind: str, name: str) -> Change:
    """The class of an option; those of a user's own dataclass are not compared."""
    for known in (kind, "HfGptTrainingArguments"):
        with contextlib.suppress(KeyError):
            return change_of(known, name)
    return Change.FREE


def write_record(checkpoint: Path, facts: RunFacts, progress: Mapping[str, Any], history: list[str]) -> None:
    """Writes what a run is into its complete checkpoint.

    `progress` is what the trainer goes on from beside its state, `history` tells changes of options so far.
    """
    record = {**dataclasses.asdict(facts), "progress": progress, "history": history}
    (checkpoint / RECORD_NAME).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def compare(record: Mapping[str, Any], facts: RunFacts, checkpoint: Path) -> list[str]:
    """Options that have changed since a checkpoint and take effect, as `--name before -> now`.

    Args:
        record: The checkpoint's, or nothing.
        facts: The run that is to go on. Without `rows_of_a_step` and fingerprints only options are compared.
        checkpoint: Where the record is from, for the message.

    Raises:
        ConfigError: something has changed that makes this another run; all of it is named.
    """
    if not record:
        return []
    refused: list[str] = []
    taken: list[str] = []
    contents: list[str] = []
    pairs = [(facts.kind, record.get("options", {}), facts.options)]
    pairs += [(kind, record.get("command", {}).get(kind, {}), now) for kind, now in facts.command.items()]
    for kind, before, now in pairs:
        for name in (name for name in now if name in before and before[name] != now[name]):
            old, new = before[name], now[name]
            change = _class_or_free(kind, name)
            words = f"--{name} {_shown(old)} -> {_shown(new)}"
            if is_refused(name, change, old, new) or (change is Change.ROWS and _rows_differ(record, facts)):
                refused.append(words)
            elif change is Change.CONTENT:
                contents.append(words)
            elif change is not Change.FREE:
                taken.append(words)
    refused += _other_facts(record, facts, contents)
    if refused:
        raise ConfigError(
            f"--resume_from_checkpoint: {checkpoint} is of another run: {'; '.join(refused)}. Resume with what it had, "
            f"or start a new run from its weights: --model_name_or_path {shlex.quote(str(checkpoint))} and another "
            "--output_dir."
        )
    if facts.world_size != record.get("world_size", facts.world_size):
        taken.append(f"processes {record['world_size']} -> {facts.world_size}")
    return taken + contents


def _rows_differ(record: Mapping[str, Any], facts: RunFacts) -> bool:
    """Whether steps have other rows, in number or, where they are grouped by length, perhaps in order."""
    if facts.rows_of_a_step is None:
        return False
    grouped = facts.options.get("train_sampling_strategy") == "group_by_length"
    return grouped or record.get("rows_of_a_step") != facts.rows_of_a_step


def _other_facts(record: Mapping[str, Any], facts: RunFacts, contents: list[str]) -> list[str]:
    found = []
    rows, before = facts.rows_of_a_step, record.get("rows_of_a_step")
    if None not in (rows, before) and rows != before:
        found.append(
            f"rows of a step {before} -> {rows}, of {record.get('world_size')} and {facts.world_size} processes"
        )
    if facts.kind == "AdversarialConfig" and record.get("world_size", facts.world_size) != facts.world_size:
        found.append(f"processes {record['world_size']} -> {facts.world_size}, each of which has texts of its own")
    for name in ("train_data", "validation_data"):
        old, new = record.get(name), getattr(facts, name)
        if None not in (old, new) and old != new:
            where = f" ({', '.join(contents)})" if contents else ", under the same name" if facts.command else ""
            found.append(
                f"the content of the {name.replace('train_', 'training ').replace('_', ' ')} has changed{where}"
            )
    return found


def schedule_line(taken: Iterable[str], step: int, max_steps: int) -> str:
    """What changed options do to the schedule; empty if nothing."""
    schedule = {name for changes in CLASSES.values() for name in changes if changes[name] is Change.SCHEDULE}
    if not any(words.split()[0].removeprefix("--") in schedule for words in taken):
        return ""
    return f" From step {step} on, learning rates are those that the schedule of {max_steps} steps has there."


def check_config(checkpoint: Path, config: Any) -> None:
    """Raises `CheckpointError` where a model's config is not that of a checkpoint, with the fields that differ."""
    saved = _saved(checkpoint / "config.json")
    now = json.loads(json.dumps(config.to_dict(), default=str))
    names = sorted(saved.keys() & now.keys() - _NOT_OF_THE_MODEL)
    pairs = {name: (saved[name], now[name]) for name in names if None not in (saved[name], now[name])}
    _refuse_other("model", checkpoint, pairs)


# Fields of an adapter's config that say what it is.
_OF_THE_ADAPTER = (
    "peft_type",
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_dora",
    "use_rslora",
    "bias",
    "target_modules",
    "modules_to_save",
    "layers_to_transform",
    "trainable_token_indices",
    "num_virtual_tokens",
)


def check_adapter(checkpoint: Path, config: Any) -> None:
    """Raises `CheckpointError` where an adapter's config is not that of a checkpoint, with the fields that differ."""
    saved, now = _saved(checkpoint / "adapter_config.json"), vars(config)
    known = [name for name in _OF_THE_ADAPTER if name in saved and name in now]
    _refuse_other("adapter", checkpoint, {name: (_plain(saved[name]), _plain(now[name])) for name in known})


def _saved(path: Path) -> dict[str, Any]:
    """A config as it was saved; empty where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _refuse_other(what: str, checkpoint: Path, pairs: Mapping[str, tuple[Any, Any]]) -> None:
    """Raises `CheckpointError` where a value of the checkpoint is not that of now."""
    other = [f"{name} {_shown(before)} -> {_shown(now)}" for name, (before, now) in pairs.items() if before != now]
    if other:
        shown = "; ".join(other[:6]) + ("; ..." if len(other) > 6 else "")
        raise CheckpointError(
            f"--resume_from_checkpoint: {checkpoint} is of another {what}: {shown}. Resume with the {what} of the run."
        )


def _plain(value: Any) -> Any:
    if isinstance(value, (set, list, tuple)):
        return sorted(map(str, value))
    return getattr(value, "value", value)


def _shown(value: Any) -> str:
    if value is None:
        return "unset"
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
