"""Checkpoints to and from the Hugging Face Hub: `load`, `push`, `pull`."""

import importlib
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from hf_gpt.hub.loading import load
    from hf_gpt.hub.transfer import pull, push, push_code

_MODULE_OF = {
    "load": ".loading",
    "pull": ".transfer",
    "push": ".transfer",
    "push_code": ".transfer",
}

__all__ = ["load", "pull", "push", "push_code"]


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name], __name__), name)
