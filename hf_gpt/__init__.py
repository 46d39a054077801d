"""
hf-gpt: a GPT of your own and its critic, for Hugging Face Transformers.

Importing this package is cheap and makes `AutoModel*.from_pretrained` open HfGpt checkpoints; what it exports is loaded
at first use.
"""

import importlib
from typing import TYPE_CHECKING

from .registration import register_when_loaded
from .version import __version__


if TYPE_CHECKING:
    from .models.configuration_hf_gpt import HfGptConfig
    from .models.modeling_hf_gpt import (
        HfGptForCausalLM,
        HfGptForQuestionAnswering,
        HfGptForSequenceClassification,
        HfGptForTokenClassification,
        HfGptModel,
        HfGptPreTrainedModel,
    )

_MODULE_OF = {
    "HfGptConfig": ".models.configuration_hf_gpt",
    "HfGptForCausalLM": ".models.modeling_hf_gpt",
    "HfGptForQuestionAnswering": ".models.modeling_hf_gpt",
    "HfGptForSequenceClassification": ".models.modeling_hf_gpt",
    "HfGptForTokenClassification": ".models.modeling_hf_gpt",
    "HfGptModel": ".models.modeling_hf_gpt",
    "HfGptPreTrainedModel": ".models.modeling_hf_gpt",
}

__all__ = [
    "HfGptConfig",
    "HfGptForCausalLM",
    "HfGptForQuestionAnswering",
    "HfGptForSequenceClassification",
    "HfGptForTokenClassification",
    "HfGptModel",
    "HfGptPreTrainedModel",
    "__version__",
]


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_when_loaded()
