"""Uploads and downloads of whole checkpoints."""

import contextlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from hf_gpt.errors import HubError
from hf_gpt.files.checkpoints import atomic_directory, find_model
from hf_gpt.generation.guidance.residual_model import DECODING
from hf_gpt.hub.card import build_card, results_metadata
from hf_gpt.hub.files import BASE, DISCRIMINATOR, WEIGHTS, checkpoint_files, read_json
from hf_gpt.hub.secrets import without_tokens
from hf_gpt.registration import config_classes
from hf_gpt.remote_code import code_files


_SUBFOLDER = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*")
# A pickle can run code when it is opened: it does not come along.
_WANTED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.md", "*.png", "*.py", "LICENSE*", "NOTICE*"]


@dataclass
class Pushed:
    """What an upload did.

    Attributes:
        url: Address of the commit.
        files: Names in the repository of all that was given.
        left_out: Names in the folder of what is no part of a checkpoint.
    """

    url: str
    files: list[str]
    left_out: list[str] = field(default_factory=list)


def push(
    folder: str | Path,
    repo_id: str,
    *,
    discriminator: str | Path | None = None,
    subfolder: str | None = None,
    revision: str | None = None,
    private: bool | None = None,
    base_model: str | None = None,
    results: str | Path | None = None,
    card: Mapping[str, Any] | None = None,
    commit_message: str | None = None,
) -> Pushed:
    """Uploads a checkpoint: weights, remote code, tokenizer, generation config and a card, in one commit.

    Files are chosen by name, so that whatever else lies in the folder stays there. The token is that of
    `hf auth login` or `HF_TOKEN`; it is neither printed nor stored.

    Args:
        folder: Checkpoint, run, or PEFT adapter. A `discriminator` folder within goes along. So does, to the subfolder
            `base`, the model that a run saved for its adapter alone.
        repo_id: `owner/name`; made if it is not there.
        discriminator: Checkpoint that goes to the subfolder `discriminator` beside the model.
        subfolder: Folder of the repository to put the checkpoint in.
        revision: Branch; made if it is not there.
        private: Whether only its owner sees a repository that is made.
        base_model: Hub id of the model that an adapter is for, in place of the path that it was trained from.
        results: `results.json` of `hf-gpt eval`, whose metrics the card shows; left out, the one in the folder.
        card: Further metadata of the card.
        commit_message: What the commit says.

    Raises:
        HubError: a file must not go along, the settings cannot be used, or the Hub refused.
    """
    source = Path(find_model(str(Path(folder).expanduser())))
    if discriminator is None and (source / DISCRIMINATOR / "config.json").is_file():
        discriminator = _inside(source, DISCRIMINATOR)
    if subfolder is not None and not _SUBFOLDER.fullmatch(subfolder):
        raise HubError(f"--subfolder {subfolder!r}: name a folder of the repository, such as 'small' or 'v2/small'.")
    base = None if base_model else own_base(source)
    content, left_out = _contents(source, repo_id if base else base_model)
    written = content.pop("README.md", None)
    config = json.loads(content.get("config.json") or content["adapter_config.json"])
    beside = {} if base is None else {BASE: base}
    if discriminator is not None:
        beside[DISCRIMINATOR] = Path(find_model(str(Path(discriminator).expanduser())))
    for name, path in beside.items():
        inner, more = _contents(path, None)
        inner.pop("README.md", None)
        content |= {f"{name}/{file}": value for file, value in inner.items()}
        left_out += [f"{name}/{file}" for file in more]
    text = build_card(
        repo_id,
        config,
        metadata={**results_metadata(source, None if results is None else Path(results)), **(card or {})},
        files=content,
        written=written,
    )
    content["README.md"] = text.encode()
    prefix = "" if subfolder is None else f"{subfolder}/"
    files = {prefix + name: value for name, value in content.items()}
    # Transformers looks for the code of a subfolder at the top of the repository.
    files |= {
        name.rpartition("/")[2]: value for name, value in files.items() if name.endswith(".py") and DECODING not in name
    }
    api = HfApi()
    with explains_hub_errors(repo_id):
        api.create_repo(repo_id, private=private, exist_ok=True)
        if private and not api.repo_info(repo_id).private:
            raise HubError(f"{repo_id} exists and is public. Nothing was uploaded: choose another name.")
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        stale = _stale_weights(api.list_repo_files(repo_id, revision=revision), files)
        operations = [CommitOperationAdd(name, value) for name, value in sorted(files.items())]
        operations += [CommitOperationDelete(name) for name in stale]
        commit = api.create_commit(
            repo_id, operations, commit_message=commit_message or "Upload checkpoint", revision=revision
        )
    return Pushed(commit.commit_url, sorted(files), left_out)


def _inside(folder: Path, name: str) -> Path:
    """A folder within a checkpoint, which must be no link to somewhere else.

    Raises:
        HubError: it is one.
    """
    found = folder / name
    if found.resolve() != folder.resolve() / name:
        raise HubError(
            f"{name} is a link to {found.resolve()}, outside of the checkpoint. Name that folder by --discriminator if "
            "it is to go along."
        )
    return found


def own_base(folder: Path) -> Path | None:
    """The folder `base` of a run, if its adapter in `folder` is for the model there, which is nowhere else."""
    if not (folder / "adapter_config.json").is_file():
        return None
    named = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    base = folder.parent / BASE
    is_own = isinstance(named, str) and (base / "config.json").is_file() and Path(named).resolve() == base.resolve()
    return base if is_own else None


def push_code(repo_id: str, *, revision: str | None = None, commit_message: str | None = None) -> Pushed:
    """Brings the remote code of a repository up to that of this version; weights and settings stay as they are.

    Raises:
        HubError: the repository holds no model of ours, or the Hub refused.
    """
    api = HfApi()
    files: dict[str, bytes] = {}
    with explains_hub_errors(repo_id):
        for name in api.list_repo_files(repo_id, revision=revision):
            prefix, _, base = name.rpartition("/")
            if base != "config.json":
                continue
            config = read_json(Path(api.hf_hub_download(repo_id, name, revision=revision)))
            code = _code(config)
            files |= code
            files |= {f"{prefix}/{file}": value for file, value in code.items() if prefix}
        if not files:
            raise HubError(f"{repo_id} holds no model of hf-gpt: there is no code to bring up to date.")
        operations = [CommitOperationAdd(name, value) for name, value in sorted(files.items())]
        commit = api.create_commit(
            repo_id, operations, commit_message=commit_message or "Update model code", revision=revision
        )
    return Pushed(commit.commit_url, sorted(files))


def pull(
    repo_id: str,
    destination: str | Path,
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Downloads a checkpoint into a folder, which appears once all is there. Code that comes along is not run.

    Args:
        repo_id: `owner/name`.
        destination: Folder to write.
        revision: Branch, tag or commit.
        subfolder: Folder of the repository whose contents are wanted; left out: all.
        overwrite: Whether a checkpoint at the destination may be replaced.

    Raises:
        HubError: the destination is taken, or the Hub refused.
    """
    target = Path(destination).expanduser()
    _check_destination(target, overwrite)
    if subfolder is not None and not _SUBFOLDER.fullmatch(subfolder):
        raise HubError(f"--subfolder {subfolder!r}: name a folder of the repository.")
    patterns = _WANTED if subfolder is None else [f"{subfolder}/{pattern}" for pattern in _WANTED]
    with atomic_directory(target) as staging:
        with explains_hub_errors(repo_id):
            HfApi().snapshot_download(repo_id, revision=revision, local_dir=staging, allow_patterns=patterns)
        shutil.rmtree(staging / ".cache", ignore_errors=True)
        if subfolder is not None:
            inner = staging / subfolder
            if not inner.is_dir():
                raise HubError(f"{repo_id} has no folder {subfolder}.")
            for path in list(inner.iterdir()):
                path.rename(staging / path.name)
            shutil.rmtree(staging / subfolder.partition("/")[0])
        if not any(staging.rglob("*config.json")):
            raise HubError(f"{repo_id} holds no checkpoint.")
    return target


@contextlib.contextmanager
def explains_hub_errors(repo_id: str) -> Iterator[None]:
    """Turns what the Hub or the way to it answers into a `HubError` of one line, without any token."""
    try:
        yield
    except HubError:
        raise
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        advice = " Log in by `hf auth login`, or set HF_TOKEN." if status in (401, 403) else ""
        reason = next((line for line in without_tokens(error).splitlines() if line.strip()), type(error).__name__)
        raise HubError(f"{without_tokens(repo_id)}: {reason}{advice}") from None
    except Exception as error:
        # The client's network library has errors of its own, which it does not promise to keep.
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests")):
            raise
        raise HubError(f"{without_tokens(repo_id)}: the Hub cannot be reached ({without_tokens(error)}).") from None


def _contents(folder: Path, base_model: str | None) -> tuple[dict[str, Any], list[str]]:
    found, former, base = checkpoint_files(folder), None, None
    content: dict[str, Any] = {name: str(path) for name, path in found.paths.items()}
    if "config.json" in content:
        config = read_json(found.paths["config.json"])
        content["config.json"] = found.paths["config.json"].read_bytes()
        content |= _code(config)
    if "adapter_config.json" in content:
        adapter = read_json(found.paths["adapter_config.json"])
        former = adapter.get("base_model_name_or_path")
        base = base_model or former
        if not isinstance(base, str) or Path(base).exists() or base.count("/") > 1 or base.startswith((".", "~")):
            raise HubError(
                f"the adapter is for the model in {base}, which is on this machine alone. Push that model first and "
                "name it by --base_model owner/name."
            )
        adapter["base_model_name_or_path"] = base
        content["adapter_config.json"] = (json.dumps(adapter, indent=2, sort_keys=True) + "\n").encode()
    if "README.md" in content:
        text = found.paths["README.md"].read_text(encoding="utf-8", errors="replace")
        # PEFT writes the path of the base into the card of an adapter.
        content["README.md"] = text.replace(former, base) if former else text
    left_out = [name for name in found.left_out if name not in content]
    return content, left_out


def _code(config: Mapping[str, Any]) -> dict[str, bytes]:
    # From this package and not from the folder: what runs elsewhere is what is tested here.
    for config_class in config_classes():
        if config.get("model_type") == config_class.model_type and config.get("auto_map"):
            return {path.name: path.read_bytes() for path in code_files(config_class)}
    return {}


def _stale_weights(present: list[str], files: Mapping[str, Any]) -> list[str]:
    # Shards beside a whole file, or more shards than now: the library would load the wrong ones.
    folders = {name.rpartition("/")[0] for name in files if name.endswith(".safetensors")}
    return [
        name
        for name in present
        if name not in files and name.rpartition("/")[0] in folders and WEIGHTS.fullmatch(name.rpartition("/")[2])
    ]


def _check_destination(target: Path, overwrite: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir() or not any((target / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise HubError(f"{target} is there and holds no checkpoint, so it is not replaced. Choose another folder.")
    if not overwrite:
        raise HubError(f"{target} holds a checkpoint. Choose another folder, or replace it with --overwrite.")
