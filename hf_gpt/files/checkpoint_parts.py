"""What a checkpoint must hold so that the run of it can go on, and whether it does."""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gpt.files.manifest import differences, has_manifest, size_difference


RECORD_NAME = "run_record.json"
STREAM_POSITION_NAME = "stream_position.json"
WEIGHT_AVERAGE_NAME = "weight_average.safetensors"
# Of adversarial training.
STATE_FILE, SCHEDULE_FILE = "adversarial_state.pt", "adversarial_schedule.json"
DISCRIMINATOR_DIR, DISCRIMINATOR_OPTIMIZER = "discriminator", "discriminator_optimizer.pt"

# Files up to this size are read whole, which finds damage in their middle; of larger ones the ends are looked at.
_READ_WHOLE = 2**30
_WEIGHTS = ("model", "adapter_model", "pytorch_model")
# What other engines write in place of weights and optimizer.
_ENGINES = ("pytorch_model_fsdp*", "global_step*")


@dataclass(frozen=True)
class Needs:
    """What a kind of run needs of a checkpoint beside weights, optimizer, schedule and trainer state.

    Attributes:
        processes: Number of processes, each with a random state of its own; None: any.
        scaler: A loss scaler, for float16.
        average: An average of the weights.
        stream: A position in a stream.
        adversarial_state: The state of an adversarial run.
        discriminator: The discriminator of one, and its optimizer.
    """

    processes: int | None = None
    scaler: bool = False
    average: bool = False
    stream: bool = False
    adversarial_state: bool = False
    discriminator: bool = False


def needs_of(args: Any, *, stream: bool = False, has_discriminator: bool | None = None) -> Needs:
    """What a run of these arguments needs.

    Args:
        args: `HfGptTrainingArguments`, or `AdversarialConfig`.
        stream: Whether it reads a stream.
        has_discriminator: Whether an adversarial run has one; left out: by its estimator.
    """
    adversarial_state = hasattr(args, "estimator")
    if has_discriminator is None:
        has_discriminator = adversarial_state and args.needs_discriminator
    return Needs(
        processes=args.world_size,
        scaler=bool(args.fp16) and args.device.type != "cpu",
        average=args.ema_decay is not None,
        stream=stream,
        adversarial_state=adversarial_state,
        discriminator=adversarial_state and has_discriminator,
    )


def lack_of(checkpoint: Path, needs: Needs | None = None) -> str | None:
    """What a checkpoint lacks to be gone on from, as the end of "it ..."; None if it is whole.

    Args:
        checkpoint: Its folder.
        needs: What the run needs; left out: what every run does.
    """
    return next(_lacks(checkpoint, needs or Needs()), None)


def _lacks(checkpoint: Path, needs: Needs) -> Iterator[str]:
    yield from _json_lack(checkpoint / "trainer_state.json")
    has_engine = any(any(checkpoint.glob(pattern)) for pattern in _ENGINES)
    if not has_engine:
        yield from _weights_lacks(checkpoint)
    if (checkpoint / RECORD_NAME).is_file():
        # Without a record a checkpoint is of others; a damaged one would hide what the run was.
        yield from _json_lack(checkpoint / RECORD_NAME)
    record = read_record(checkpoint)
    if record.get("options", {}).get("save_only_model"):
        yield "holds the weights alone, as --save_only_model asked: start a new run by --model_name_or_path"
    for name in _parts(checkpoint, needs, has_engine, record.get("world_size")):
        yield from _file_lack(checkpoint / name)
    if needs.discriminator and not (checkpoint / DISCRIMINATOR_DIR).is_dir():
        yield f"holds no {DISCRIMINATOR_DIR}: its run was not adversarial"
    if needs.discriminator:
        yield from _weights_lacks(checkpoint / DISCRIMINATOR_DIR)
    if has_manifest(checkpoint):
        yield from differences(checkpoint)
        return
    # Of versions before there were manifests.
    for name, size in record.get("files", {}).items():
        yield from size_difference(checkpoint, name, size)


def _parts(checkpoint: Path, needs: Needs, has_engine: bool, processes_before: int | None) -> list[str]:
    names = []
    if not has_engine:
        names += ["optimizer.pt", "scheduler.pt"]
    if needs.processes is None or (processes_before is not None and processes_before != needs.processes):
        states = sorted(path.name for path in checkpoint.glob("rng_state*.pth"))
        names += states or ["rng_state.pth"]
    elif needs.processes == 1:
        names.append("rng_state.pth")
    else:
        names += [f"rng_state_{number}.pth" for number in range(needs.processes)]
    if needs.scaler:
        names.append("scaler.pt")
    if needs.average:
        names.append(WEIGHT_AVERAGE_NAME)
    if needs.stream:
        names.append(STREAM_POSITION_NAME)
    if needs.adversarial_state:
        names += [STATE_FILE, SCHEDULE_FILE]
        names += [f"adversarial_rank_{number}.pt" for number in range(needs.processes or 1)]
    if needs.discriminator:
        names.append(DISCRIMINATOR_OPTIMIZER)
    return names


# What a run that lacks a file may be, in place of one whose file was lost.
_REASONS = {
    WEIGHT_AVERAGE_NAME: ": its run did not average weights, or it was deleted",
    STREAM_POSITION_NAME: ": its run was not streamed, or it was deleted",
    STATE_FILE: ": its run was not adversarial, or it was deleted",
    "scaler.pt": ": its run was not of --fp16, or it was deleted",
}


def _file_lack(path: Path) -> Iterator[str]:
    if not path.is_file():
        yield f"has no {path.name}{_REASONS.get(path.name, '')}"
    elif path.suffix == ".json":
        yield from _json_lack(path)
    elif path.suffix == ".safetensors":
        if not is_whole_safetensors(path):
            yield f"has a {path.name} that is damaged or cut off"
    elif not _is_whole_archive(path):
        yield f"has a {path.name} that is damaged or cut off"


def _json_lack(path: Path) -> Iterator[str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        yield f"has no {path.name}"
    except ValueError:
        yield f"has a {path.name} that is damaged or cut off"
    else:
        if not isinstance(content, dict):
            yield f"has a {path.name} that is damaged or cut off"


def _weights_lacks(folder: Path) -> Iterator[str]:
    where = "" if folder.name.startswith("checkpoint") or folder.name != DISCRIMINATOR_DIR else f"{folder.name}/"
    for name in _WEIGHTS:
        for ending in ("safetensors", "bin"):
            index = folder / f"{name}.{ending}.index.json"
            if index.is_file():
                yield from _index_lacks(index)
                return
            path = folder / f"{name}.{ending}"
            if path.is_file():
                is_whole = is_whole_safetensors(path) if ending == "safetensors" else _is_whole_archive(path)
                if not is_whole:
                    yield f"has weights that are damaged or cut off ({where}{path.name})"
                return
    yield f"has no weights{' of the discriminator' if where else ''}"


def _index_lacks(index: Path) -> Iterator[str]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        yield f"has a {index.name} that is damaged or cut off"
        return
    for name in sorted(names):
        yield from _file_lack(index.with_name(name))


def is_whole_safetensors(path: Path) -> bool:
    """Whether a file has all the bytes that its header promises."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= size - 8:
            return False
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
    return size == 8 + length + max(ends, default=0)


def _is_whole_archive(path: Path) -> bool:
    """Whether a file of `torch.save`, a zip archive, has its directory, and of moderate size its contents."""
    try:
        with zipfile.ZipFile(path) as archive:
            return path.stat().st_size > _READ_WHOLE or archive.testzip() is None
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False


def read_record(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of its run; empty if it was made before there were records, or by others."""
    try:
        record = json.loads((checkpoint / RECORD_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a file of a checkpoint, which has been looked through."""
    return json.loads(path.read_text(encoding="utf-8"))
