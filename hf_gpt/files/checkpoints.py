"""Checkpoint folders that are whole or not there."""

import contextlib
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from hf_gpt.errors import CheckpointError, UserError
from hf_gpt.files.atomic_files import sync_folder, sync_tree
from hf_gpt.files.checkpoint_parts import Needs, lack_of
from hf_gpt.files.model_paths import check_exists, check_path, describe_file
from hf_gpt.files.output_paths import wrong_output
from hf_gpt.files.run_lock import LOCK_NAME, refuse_live_run


INCOMPLETE = ".incomplete"
PREVIOUS = ".previous"
# What readers of files raise that are whole, and hold something else than they should.
_READ_ERRORS = (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError)
# What PyTorch's writer of zip files says in its errors.
_WRITER = ("PytorchStreamWriter", "inline_container")
_CHECKPOINT = re.compile(r"checkpoint-(\d+)$")


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside `path` that takes its place once the block has ended without an error.

    Whenever the process is stopped, `path` is the old folder or the new one; `recover_directory` settles a stop between
    the two renames. That holds for a loss of power too: all is on the disk before the folder gets its name.
    """
    refuse_live_run(path)
    staging = path.with_name(f".{path.name}{INCOMPLETE}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        sync_tree(staging)
        replace_directory(staging, path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


@contextlib.contextmanager
def explains_write_errors(path: Path) -> Iterator[None]:
    """Turns what goes wrong when files are written inside, above all a full disk, into a `CheckpointError`.

    Args:
        path: What is written, for the message; its folder is that of the run.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        # PyTorch's and Safetensors' writers have no error of their own for what the system tells them.
        if isinstance(error, RuntimeError) and not any(part in str(error) for part in _WRITER):
            raise
        reason = "the disk took no more" if isinstance(error, RuntimeError) else str(error)
        former = last_checkpoint(path.parent)
        if former is None:
            advice = "There is no earlier checkpoint: make room and start the run anew."
        else:
            advice = f"{former.name} is complete: make room and go on from it by --resume_from_checkpoint."
        raise CheckpointError(f"{path} could not be written: {reason}. {advice}") from error


@contextlib.contextmanager
def explains_read_errors(checkpoint: Path) -> Iterator[None]:
    """Turns what goes wrong when a checkpoint is loaded inside into a `CheckpointError`."""
    try:
        yield
    except UserError:
        raise
    except (*_READ_ERRORS, SafetensorError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"--resume_from_checkpoint: {checkpoint} cannot be loaded into this run: {error} Resume with the model and "
            "options of its run, or from another of its checkpoints."
        ) from error


@contextlib.contextmanager
def explains_model_errors(path: str) -> Iterator[None]:
    """Turns whatever a library raises over a folder of a wrong form, opened inside, into a `CheckpointError`.

    A config, tokenizer or weights that others wrote may have any type in any place, and readers of libraries stumble
    where they are. `path` is what is opened, for the message.
    """
    try:
        yield
    except (UserError, OSError, ImportError, MemoryError):
        raise
    except Exception as error:
        reason = str(error).strip().rstrip(".") or "nothing more is known"
        # A plain error of a value has a sentence of its own; of others the class says what they are.
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise CheckpointError(
            f"{path} cannot be opened: {kind}{reason}. Copy or download the checkpoint again, or take another one."
        ) from error


def replace_directory(new: Path, path: Path) -> None:
    """Puts the folder `new` at `path`, in place of one that may be there."""
    previous = path.with_name(f".{path.name}{PREVIOUS}")
    shutil.rmtree(previous, ignore_errors=True)
    if path.exists():
        path.rename(previous)
    new.rename(path)
    # What was before goes only once the new name is on the disk.
    sync_folder(path.parent)
    shutil.rmtree(previous, ignore_errors=True)


def recover_directory(path: Path) -> None:
    """Puts back the former folder at `path` if a replacement was stopped between its two renames."""
    previous = path.with_name(f".{path.name}{PREVIOUS}")
    if previous.exists() and not path.exists():
        previous.rename(path)


def clean_run(output_dir: Path) -> None:
    """Settles what a killed process left in a run's folder: half-written folders go, former ones come back."""
    if not output_dir.is_dir():
        return
    for leftover in output_dir.glob(f".*{PREVIOUS}"):
        recover_directory(output_dir / leftover.name[1 : -len(PREVIOUS)])
        shutil.rmtree(leftover, ignore_errors=True)
    for leftover in output_dir.glob(f".*{INCOMPLETE}"):
        shutil.rmtree(leftover, ignore_errors=True)


def is_complete(checkpoint: Path, needs: Needs | None = None) -> bool:
    """Whether a run can go on from a checkpoint: all that it needs is there and readable, see `checkpoint_parts`."""
    return lack_of(checkpoint, needs) is None


def last_checkpoint(output_dir: Path, needs: Needs | None = None) -> Path | None:
    """The complete checkpoint with the most steps in a run's folder, if there is one."""
    return next((path for path in _newest_first(output_dir) if is_complete(path, needs)), None)


def _newest_first(output_dir: Path) -> list[Path]:
    found = []
    for path in output_dir.glob("checkpoint-*"):
        match = _CHECKPOINT.search(path.name)
        if match and path.is_dir():
            found.append((int(match.group(1)), path))
    return [path for _, path in sorted(found, reverse=True)]


def find_checkpoint(
    wanted: str, output_dir: Path, needs: Needs | None = None, say: Callable[[str], None] | None = None
) -> Path:
    """The checkpoint that `--resume_from_checkpoint` names.

    Args:
        wanted: `"last"` (or `"true"`), or the folder of a checkpoint.
        output_dir: Folder of the run.
        needs: What the run needs of it.
        say: Takes a line for each newer checkpoint that is passed over.

    Raises:
        CheckpointError: there is none, or it is incomplete.
    """
    if wanted.lower() in ("last", "true"):
        lacks = []
        for checkpoint in _newest_first(output_dir):
            lack = lack_of(checkpoint, needs)
            if lack is None:
                for line in lacks:
                    if say is not None:
                        say(f"{line}: going on from {checkpoint.name}.")
                return checkpoint
            lacks.append(f"{checkpoint} {lack}")
        why = f": {lacks[0]}" if lacks else ""
        raise CheckpointError(
            f"--resume_from_checkpoint: no complete checkpoint in {output_dir}{why}. Start the run without this option."
        )
    checkpoint = Path(wanted).expanduser()
    if not checkpoint.is_dir():
        raise CheckpointError(f"--resume_from_checkpoint: no such folder: {wanted}. Use last for the run's newest one.")
    lack = lack_of(checkpoint, needs)
    if lack is not None:
        raise CheckpointError(
            f"--resume_from_checkpoint: {wanted} is not a complete checkpoint of this kind of run: it {lack}. Use last "
            "for the newest complete one."
        )
    return checkpoint


def check_output_dir(output_dir: Path, *, overwrite: bool, resume: bool) -> None:
    """Refuses a folder whose contents a new run would spoil.

    Args:
        output_dir: The folder.
        overwrite: The run in it may be replaced.
        resume: The run in it goes on.

    Raises:
        CheckpointError: the folder holds something and neither is asked for, a run is going on in it, it is a file, or
            it cannot be made.
    """
    if (wrong := wrong_output({"output_dir": output_dir})) is not None:
        raise CheckpointError(wrong)
    refuse_live_run(output_dir)
    names = {path.name for path in output_dir.iterdir()} if output_dir.is_dir() else set()
    if overwrite or resume or not names - {LOCK_NAME}:
        return
    go_on = "" if last_checkpoint(output_dir) is None else "go on with its run by --resume_from_checkpoint, "
    raise CheckpointError(
        f"--output_dir {output_dir} is not empty: {go_on}choose another folder, or start anew there with "
        "--overwrite_output_dir."
    )


def start_output_dir(output_dir: Path, *, resume: bool) -> None:
    """Makes the folder of a run, without the checkpoints and the model of a former run unless that one goes on.

    Other files in it are left alone.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    clean_run(output_dir)
    if not resume:
        for path in [*output_dir.glob("checkpoint-*"), output_dir / "model"]:
            shutil.rmtree(path, ignore_errors=True)


def find_model(path: str, *, allow_file: bool = False) -> str:
    """Where the model of a run lies: `path/model` for a run's folder; any other path or Hub id as it is.

    Args:
        path: A folder, or an id of the Hub.
        allow_file: Whether a single file will do.

    Raises:
        CheckpointError: a path that is not there, or a file.
    """
    check_path(path)
    path = str(Path(path).expanduser()) if path.startswith("~") else path
    if not allow_file and Path(path).is_file():
        kind = describe_file(path) or "a file: give the folder of a checkpoint, with config.json and weights"
        raise CheckpointError(f"{path} is {kind}.")
    inside = Path(path) / "model"
    names = ("config.json", "adapter_config.json")
    if any((inside / name).is_file() for name in names) and not any((Path(path) / name).is_file() for name in names):
        return str(inside)
    return path


def find_existing_model(path: str) -> str:
    """Where the model lies that `path`, the folder of a run or checkpoint or a Hub id, stands for.

    Raises:
        CheckpointError: a path that is not there, a file, or an id of a Hub that cannot be reached.
    """
    check_exists(path)
    return find_model(path)
