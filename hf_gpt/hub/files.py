"""Which files of a folder are the checkpoint. Nothing else is ever uploaded."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_gpt.errors import HubError
from hf_gpt.hub.secrets import holds_token


WEIGHTS = re.compile(r"(adapter_)?model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
DISCRIMINATOR = "discriminator"
BASE = "base"
# By name, so that what a training run or its user leaves beside a model (optimizer states, pickled arguments, logs,
# .env) never goes along.
_NAMES = {
    "README.md",
    "adapter_config.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "residual.json",
    "results.json",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
}
_TERMS = re.compile(r"(LICEN[SC]E|NOTICE|USE_POLICY)(\.txt|\.md)?")
_FOLDERS = {
    "plots": re.compile(r"[\w.-]+\.png"),
    "additional_chat_templates": re.compile(r"[\w.-]+\.jinja"),
    "custom_generate": re.compile(r"generate\.py|requirements\.txt"),
}


@dataclass
class Files:
    """What is uploaded of a folder.

    Attributes:
        paths: Names within the folder, with where each lies.
        left_out: Names of what was passed over.
    """

    paths: dict[str, Path] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def checkpoint_files(folder: Path) -> Files:
    """The files of a checkpoint, by their names.

    Raises:
        HubError: there is no checkpoint with safetensors, or one of its files is a link to somewhere else or holds an
            access token.
    """
    if not folder.is_dir():
        raise HubError(f"there is no folder {folder}.")
    root = folder.resolve()
    found = Files()
    for path in sorted(root.iterdir()):
        inner = _FOLDERS.get(path.name)
        if inner is not None and path.is_dir():
            for item in sorted(path.iterdir()):
                belongs = bool(inner.fullmatch(item.name)) and not item.name.startswith(".")
                _sort(item, f"{path.name}/{item.name}", belongs, root, found)
        elif path.name not in (BASE, DISCRIMINATOR):
            _sort(path, path.name, _belongs(path.name), root, found)
    if not {"config.json", "adapter_config.json"} & set(found.paths):
        raise HubError(f"{folder} holds no config.json and no adapter_config.json: it is no checkpoint.")
    if not any(name.endswith(".safetensors") for name in found.paths):
        raise HubError(f"{folder} holds no weights as safetensors. Other forms are not uploaded: they can run code.")
    return found


def _belongs(name: str) -> bool:
    if name.startswith("."):
        return False
    return name in _NAMES or name.endswith(".png") or bool(WEIGHTS.fullmatch(name)) or bool(_TERMS.fullmatch(name))


def _sort(path: Path, name: str, belongs: bool, root: Path, found: Files) -> None:
    if not belongs:
        found.left_out.append(name)
        return
    if path.resolve() != root / name:
        raise HubError(
            f"{name} is a link to {path.resolve()}, outside of the checkpoint. Put a copy in its place if it belongs "
            "there."
        )
    if not path.is_file():
        found.left_out.append(name)
        return
    if holds_token(path):
        raise HubError(f"{name} holds an access token. Take it out, and revoke the token if others could see it.")
    found.paths[name] = path


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint.

    Raises:
        HubError: the file holds none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise HubError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise HubError(f"{path} holds no JSON object.")
    return content
