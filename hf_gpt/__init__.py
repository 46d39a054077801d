"""
hf-gpt: a GPT of your own and its discriminator, for Hugging Face Transformers.

Importing this package is cheap and makes `AutoModel*.from_pretrained` open HfGpt checkpoints; what it exports is loaded
at first use.
"""

import importlib
from typing import TYPE_CHECKING

from .registration import register_when_loaded
from .version import __version__


if TYPE_CHECKING:
    from .adversarial.config import AdversarialConfig
    from .adversarial.discriminator.factory import make_discriminator
    from .adversarial.discriminator.train_discriminator import train_discriminator
    from .adversarial.trainer import AdversarialTrainer
    from .cli.evaluation.main import evaluate
    from .conversion.checkpoint import convert
    from .generation.decoding.fast_generate import fast_generate
    from .generation.guidance.guided_generate import guided_generate
    from .generation.guidance.residual_model import ResidualLanguageModel
    from .generation.sampling.distribution import SamplingConfig
    from .generation.sampling.rollout import rollout
    from .hub.loading import load
    from .hub.transfer import pull, push
    from .modalities.feature_extraction_audio import HfGptAudioFeatureExtractor
    from .modalities.feature_extraction_image import HfGptImageFeatureExtractor
    from .modalities.processing import HfGptModalityProcessor
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
    from .training.trainer import HfGptTrainer
    from .training.training_arguments import HfGptTrainingArguments

# Where each export lies. Type checkers read the imports above; tests/test_public_api.py holds the two together.
_MODULE_OF = {
    "AdversarialConfig": ".adversarial.config",
    "AdversarialTrainer": ".adversarial.trainer",
    "HfGptConfig": ".models.configuration_hf_gpt",
    "HfGptForCausalLM": ".models.modeling_hf_gpt",
    "HfGptForConditionalGeneration": ".models.modeling_hf_gpt_seq2seq",
    "HfGptForQuestionAnswering": ".models.modeling_hf_gpt",
    "HfGptForSequenceClassification": ".models.modeling_hf_gpt",
    "HfGptForTokenClassification": ".models.modeling_hf_gpt",
    "HfGptImageFeatureExtractor": ".modalities.feature_extraction_image",
    "HfGptModel": ".models.modeling_hf_gpt",
    "HfGptPreTrainedModel": ".models.modeling_hf_gpt",
    "HfGptSeq2SeqConfig": ".models.configuration_hf_gpt_seq2seq",
    "HfGptSeq2SeqForSequenceClassification": ".models.modeling_hf_gpt_seq2seq",
    "HfGptSeq2SeqModel": ".models.modeling_hf_gpt_seq2seq",
    "HfGptModalityProcessor": ".modalities.processing",
    "HfGptAudioFeatureExtractor": ".modalities.feature_extraction_audio",
    "HfGptTrainer": ".training.trainer",
    "HfGptTrainingArguments": ".training.training_arguments",
    "HfLstmConfig": ".models.configuration_hf_lstm",
    "HfLstmForCausalLM": ".models.modeling_hf_lstm",
    "HfLstmForSequenceClassification": ".models.modeling_hf_lstm",
    "HfLstmForTokenClassification": ".models.modeling_hf_lstm",
    "HfLstmModel": ".models.modeling_hf_lstm",
    "HfNgramCnnConfig": ".models.configuration_hf_ngram_cnn",
    "HfNgramCnnForSequenceClassification": ".models.modeling_hf_ngram_cnn",
    "HfNgramCnnModel": ".models.modeling_hf_ngram_cnn",
    "ResidualLanguageModel": ".generation.guidance.residual_model",
    "SamplingConfig": ".generation.sampling.distribution",
    "convert": ".conversion.checkpoint",
    "evaluate": ".cli.evaluation.main",
    "fast_generate": ".generation.decoding.fast_generate",
    "guided_generate": ".generation.guidance.guided_generate",
    "load": ".hub.loading",
    "make_discriminator": ".adversarial.discriminator.factory",
    "pull": ".hub.transfer",
    "push": ".hub.transfer",
    "rollout": ".generation.sampling.rollout",
    "train_discriminator": ".adversarial.discriminator.train_discriminator",
}

__all__ = [
    "AdversarialConfig",
    "AdversarialTrainer",
    "HfGptAudioFeatureExtractor",
    "HfGptConfig",
    "HfGptForCausalLM",
    "HfGptForConditionalGeneration",
    "HfGptForQuestionAnswering",
    "HfGptForSequenceClassification",
    "HfGptForTokenClassification",
    "HfGptImageFeatureExtractor",
    "HfGptModalityProcessor",
    "HfGptModel",
    "HfGptPreTrainedModel",
    "HfGptSeq2SeqConfig",
    "HfGptSeq2SeqForSequenceClassification",
    "HfGptSeq2SeqModel",
    "HfGptTrainer",
    "HfGptTrainingArguments",
    "HfLstmConfig",
    "HfLstmForCausalLM",
    "HfLstmForSequenceClassification",
    "HfLstmForTokenClassification",
    "HfLstmModel",
    "HfNgramCnnConfig",
    "HfNgramCnnForSequenceClassification",
    "HfNgramCnnModel",
    "ResidualLanguageModel",
    "SamplingConfig",
    "__version__",
    "convert",
    "evaluate",
    "fast_generate",
    "guided_generate",
    "load",
    "make_discriminator",
    "pull",
    "push",
    "rollout",
    "train_discriminator",
]


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_when_loaded()
