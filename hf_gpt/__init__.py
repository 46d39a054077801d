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
    from .modalities import HfGptImageFeatureExtractor, HfGptSignalProcessor, HfGptSoundFeatureExtractor
    from .models.configuration_hf_gpt import HfGptConfig
    from .models.configuration_hf_gpt_seq2seq import HfGptSeq2SeqConfig
    from .models.configuration_hf_lstm import HfLstmConfig
    from .models.configuration_hf_ngram_cnn import HfNgramCnnConfig
    from .models.modeling_hf_gpt import (
        HfGptForCausalLM,
        HfGptForQuestionAnswering,
        HfGptForSequenceClassification,
        HfGptForTokenClassification,
        HfGptModel,
        HfGptPreTrainedModel,
    )
    from .models.modeling_hf_gpt_seq2seq import (
        HfGptForConditionalGeneration,
        HfGptSeq2SeqForSequenceClassification,
        HfGptSeq2SeqModel,
    )
    from .models.modeling_hf_lstm import (
        HfLstmForCausalLM,
        HfLstmForSequenceClassification,
        HfLstmForTokenClassification,
        HfLstmModel,
    )
    from .models.modeling_hf_ngram_cnn import HfNgramCnnForSequenceClassification, HfNgramCnnModel

_MODULE_OF = {
    "HfGptConfig": ".models.configuration_hf_gpt",
    "HfGptForCausalLM": ".models.modeling_hf_gpt",
    "HfGptForConditionalGeneration": ".models.modeling_hf_gpt_seq2seq",
    "HfGptForQuestionAnswering": ".models.modeling_hf_gpt",
    "HfGptForSequenceClassification": ".models.modeling_hf_gpt",
    "HfGptForTokenClassification": ".models.modeling_hf_gpt",
    "HfGptImageFeatureExtractor": ".modalities",
    "HfGptModel": ".models.modeling_hf_gpt",
    "HfGptPreTrainedModel": ".models.modeling_hf_gpt",
    "HfGptSeq2SeqConfig": ".models.configuration_hf_gpt_seq2seq",
    "HfGptSeq2SeqForSequenceClassification": ".models.modeling_hf_gpt_seq2seq",
    "HfGptSeq2SeqModel": ".models.modeling_hf_gpt_seq2seq",
    "HfGptSignalProcessor": ".modalities",
    "HfGptSoundFeatureExtractor": ".modalities",
    "HfLstmConfig": ".models.configuration_hf_lstm",
    "HfLstmForCausalLM": ".models.modeling_hf_lstm",
    "HfLstmForSequenceClassification": ".models.modeling_hf_lstm",
    "HfLstmForTokenClassification": ".models.modeling_hf_lstm",
    "HfLstmModel": ".models.modeling_hf_lstm",
    "HfNgramCnnConfig": ".models.configuration_hf_ngram_cnn",
    "HfNgramCnnForSequenceClassification": ".models.modeling_hf_ngram_cnn",
    "HfNgramCnnModel": ".models.modeling_hf_ngram_cnn",
}

__all__ = [
    "HfGptConfig",
    "HfGptForCausalLM",
    "HfGptForConditionalGeneration",
    "HfGptForQuestionAnswering",
    "HfGptForSequenceClassification",
    "HfGptForTokenClassification",
    "HfGptImageFeatureExtractor",
    "HfGptModel",
    "HfGptPreTrainedModel",
    "HfGptSeq2SeqConfig",
    "HfGptSeq2SeqForSequenceClassification",
    "HfGptSeq2SeqModel",
    "HfGptSignalProcessor",
    "HfGptSoundFeatureExtractor",
    "HfLstmConfig",
    "HfLstmForCausalLM",
    "HfLstmForSequenceClassification",
    "HfLstmForTokenClassification",
    "HfLstmModel",
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
