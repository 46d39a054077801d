"""
What PEFT's adapters change in our models where `target_modules` is left out or `"all-linear"`.

PEFT adapts linear layers, embeddings and convolutions, but no `nn.LSTM`. Of the LSTM and the n-gram CNN its
`"all-linear"` finds the head at most, which it then leaves out, and says that no `target_modules` were passed.
"""

import importlib
import logging
from collections.abc import Callable
from typing import Any

from torch import nn

from hf_gpt import compat


logger = logging.getLogger(__name__)

_FEW_LINEAR_LAYERS = ("hf_lstm", "hf_ngram_cnn")
# Methods that adapt embeddings, and those that adapt convolutions over one dimension.
_OF_EMBEDDINGS = ("LORA",)
_OF_CONVOLUTIONS = ("LORA", "LOHA", "LOKR")


def set_default_targets() -> None:
    """Gives `LoraConfig()` and its like their default target modules, which are named as in Llama."""
    constants = importlib.import_module("peft.utils.constants")
    for name, targets in vars(constants).items():
        if name.startswith("TRANSFORMERS_MODELS_TO_") and name.endswith("_MODULES_MAPPING") and "llama" in targets:
            for model_type in ("hf_gpt", "hf_gpt_seq2seq"):
                targets.setdefault(model_type, targets["llama"])
    targets = constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    targets.setdefault("hf_lstm", ["embed_tokens"])
    targets.setdefault("hf_ngram_cnn", ["embed_tokens", "dense", "gate", *(f"filters.{i}" for i in range(64))])


def widen_all_linear() -> None:
    """Has `"all-linear"` mean all that a method can adapt, in the models that have few linear layers or none."""
    compat.wrap_all_linear_targets(_widened)


def _widened(original: Callable[[Any, nn.Module], Any]) -> Callable[[Any, nn.Module], Any]:
    if getattr(original, "is_ours", False):
        return original

    def include(peft_config: Any, model: nn.Module) -> Any:
        asked = getattr(peft_config, "target_modules", None)
        peft_config = original(peft_config, model)
        model_type = getattr(getattr(model, "config", None), "model_type", None)
        if isinstance(asked, str) and asked.lower() == "all-linear" and model_type in _FEW_LINEAR_LAYERS:
            peft_config.target_modules = _adaptable(peft_config, model, set(peft_config.target_modules))
        return peft_config

    include.is_ours = True
    return include


def _adaptable(peft_config: Any, model: nn.Module, targets: set[str]) -> set[str]:
    method = getattr(peft_config.peft_type, "value", str(peft_config.peft_type))
    kinds = (nn.Embedding,) * (method in _OF_EMBEDDINGS) + (nn.Conv1d,) * (method in _OF_CONVOLUTIONS)
    targets = targets | {name for name, module in model.named_modules() if kinds and isinstance(module, kinds)}
    saved = set(getattr(peft_config, "modules_to_save", None) or ())
    targets = {name for name in targets if name.rpartition(".")[2] not in saved}
    has_lstm = any(isinstance(module, nn.LSTM) for module in model.modules())
    part = "lstm" if has_lstm else "convolutions"
    if not targets:
        raise ValueError(
            f"target_modules='all-linear': {type(model).__name__} has no linear layer but its head, and {method} "
            "adapts nothing else of it. Use LoraConfig, which adapts its embeddings, with "
            f"modules_to_save=['{part}'] to train the rest whole."
        )
    if has_lstm and "lstm" not in saved:
        logger.warning(
            "PEFT adapts no LSTM: of %s only %s are trained. Add modules_to_save=['lstm'] to train the LSTMs whole.",
            type(model).__name__,
            ", ".join(sorted(targets)),
        )
    return targets
