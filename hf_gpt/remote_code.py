"""The files that make a checkpoint open where hf-gpt is not installed."""

import importlib
import shutil
from pathlib import Path
from typing import Any


def code_files(config_class: type) -> list[Path]:
    """The files that hold the classes of a model type, and what they import beside them.

    Args:
        config_class: One of our configurations, whose `code_map` names the classes.
    """
    from transformers.dynamic_module_utils import get_relative_import_files

    found: dict[str, Path] = {}
    package = config_class.__module__.rpartition(".")[0]
    for reference in config_class.code_map.values():
        module = Path(importlib.import_module(f"{package}.{reference.partition('.')[0]}").__file__)
        for path in [module, *map(Path, get_relative_import_files(module))]:
            found[path.name] = path
    return [found[name] for name in sorted(found)]


def write_code(config_class: type, folder: Path) -> list[str]:
    """Copies those files into a folder; returns their names."""
    files = code_files(config_class)
    for path in files:
        shutil.copyfile(path, folder / path.name)
    return [path.name for path in files]


def is_ours(config_class: Any) -> bool:
    """Whether a configuration class is one of those of this package, which bring their code."""
    return config_class.__module__.startswith("hf_gpt.") and hasattr(config_class, "code_map")
