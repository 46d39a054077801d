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
    from .models.configuration_hf_ngram_cnn import HfNgramCnnConfig
    from .models.modeling_hf_gpt import (
        HfGptForCausalLM,
        HfGptForQuestionAnswering,
        HfGptForSequenceClassification,
        HfGptForTokenClassification,
        HfGptModel,
        HfGptPreTrainedModel,
    )
    from .models.modeling_hf_ngram_cnn import HfNgramCnnForSequenceClassification, HfNgramCnnModel

_MODULE_OF = {
    "HfGptConfig": ".models.configuration_hf_gpt",
    "HfGptForCausalLM": ".models.modeling_hf_gpt",
    "HfGptForQuestionAnswering": ".models.modeling_hf_gpt",
    "HfGptForSequenceClassification": ".models.modeling_hf_gpt",
    "HfGptForTokenClassification": ".models.modeling_hf_gpt",
    "HfGptModel": ".models.modeling_hf_gpt",
    "HfGptPreTrainedModel": ".models.modeling_hf_gpt",
    "HfNgramCnnConfig": ".models.configuration_hf_ngram_cnn",
    "HfNgramCnnForSequenceClassification": ".models.modeling_hf_ngram_cnn",
    "HfNgramCnnModel": ".models.modeling_hf_ngram_cnn",
}

__all__ = [
    "HfGptConfig",
    "HfGptForCausalLM",
    "HfGptForQuestionAnswering",
    "HfGptForSequenceClassification",
    "HfGptForTokenClassification",
    "HfGptModel",
    "HfGptPreTrainedModel",
    "HfNgramCnnConfig",
    "HfNgramCnnForSequenceClassification",
    "HfNgramCnnModel",
    "__version__",
]


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_when_loaded()
