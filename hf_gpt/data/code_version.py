"""What the code of modules does, as a short text that changes when the code does: part of the key of what is cached.

The library's own fingerprints name a function of an installed package by its place alone, not by its content.
"""

import hashlib
import importlib
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any


def code_version(*modules: ModuleType) -> str:
    """A digest of the functions, classes and plain constants that stand in modules now, 32 hexadecimal digits.

    It is that of the running code, so a function that was replaced in memory counts as one that was edited.
    """
    digest = hashlib.blake2b(digest_size=16)
    for module in modules:
        for name, value in sorted(vars(module).items()):
            if not name.startswith("__"):
                for part in _parts(value, module.__name__, set()):
                    digest.update(f"{module.__name__} {name} {part}\n".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def _parts(value: Any, module: str, seen: set[int]) -> Iterator[str]:
    """What tells a value from another; nothing of what is only a place to keep things in, such as a lock or a cache."""
    if isinstance(value, (FunctionType, type, list, tuple, dict)):
        if id(value) in seen:
            return
        seen.add(id(value))
    if isinstance(value, FunctionType):
        yield from _code(value.__code__)
        yield repr(value.__defaults__) + repr(sorted((value.__kwdefaults__ or {}).items()))
        for cell in value.__closure__ or ():
            yield from _parts(cell.cell_contents, module, seen)
    elif isinstance(value, (staticmethod, classmethod)):
        yield from _parts(value.__func__, module, seen)
    elif isinstance(value, property):
        yield from _parts(value.fget, module, seen)
    elif isinstance(value, type):
        if value.__module__ == module:
            for name, item in sorted(vars(value).items()):
                yield name
                yield from _parts(item, module, seen)
    elif isinstance(value, re.Pattern):
        yield f"{value.pattern!r} {value.flags}"
    elif isinstance(value, (int, float, str, bytes)):
        yield repr(value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _parts(item, module, seen)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield repr(key)
            yield from _parts(item, module, seen)


def _code(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield " ".join((*code.co_names, *code.co_varnames, *code.co_freevars))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant)
        else:
            # A set's order differs from process to process.
            yield repr(sorted(map(repr, constant))) if isinstance(constant, frozenset) else repr(constant)


@lru_cache
def package_version(*packages: str) -> str:
    """A digest of the Python files of packages and their subpackages, for what much code makes together.

    Args:
        packages: Their names, such as `"hf_gpt.evaluation"`.
    """
    digest = hashlib.blake2b(digest_size=16)
    for package in packages:
        for folder in importlib.import_module(package).__path__:
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(f"{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()
