"""Weights of GPT-2, Llama, Mistral, Qwen2 and Qwen3 as HfGpt weights and back."""

import importlib
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from hf_gpt.conversion.checkpoint import Conversion, convert

_NAMES = ("Conversion", "convert")

__all__ = ["Conversion", "convert"]


def __getattr__(name: str):
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("hf_gpt.conversion.checkpoint"), name)
