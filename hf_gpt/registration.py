"""
Makes Transformers and PEFT know the HfGpt models.

No library looks for plugins, and importing the model classes costs seconds that `import hf_gpt` must not. So each
registration waits until the library module that it writes into has been imported, then runs at once.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType


_CONFIGURATIONS = {
    "hf_gpt.models.configuration_hf_gpt": "HfGptConfig",
    "hf_gpt.models.configuration_hf_gpt_seq2seq": "HfGptSeq2SeqConfig",
    "hf_gpt.models.configuration_hf_lstm": "HfLstmConfig",
    "hf_gpt.models.configuration_hf_ngram_cnn": "HfNgramCnnConfig",
}
# Where the library keeps the class names of each Auto class.
_NAMES_OF_AUTO_CLASS = {
    "AutoModel": "MODEL_MAPPING_NAMES",
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "AutoModelForSeq2SeqLM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "AutoModelForSequenceClassification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForTokenClassification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForQuestionAnswering": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
}


def config_classes() -> list[type]:
    """The configuration of each of our model types."""
    return [getattr(importlib.import_module(module), name) for module, name in _CONFIGURATIONS.items()]


def _library_modules() -> list[ModuleType]:
    """
    The library's top module in each of its copies: importing `transformers.processing_utils` puts a new one into
    `sys.modules`, while modules that imported the library before keep the old one.
    """
    held = [getattr(module, "__dict__", {}).get("transformers") for module in list(sys.modules.values())]
    found = [sys.modules["transformers"], *(module for module in held if isinstance(module, ModuleType))]
    return list({id(module): module for module in found if module.__name__ == "transformers"}.values())


def register_config() -> None:
    """Lets `AutoConfig` open our configurations."""
    from transformers import AutoConfig

    for config_class in config_classes():
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)


def register_models() -> None:
    """Lets each Auto class open our class for it, by configuration and by name."""
    from transformers.models.auto import modeling_auto

    register_config()
    for config_class in config_classes():
        for auto_name, reference in config_class.code_map.items():
            if auto_name == "AutoConfig":
                continue
            module, _, name = reference.partition(".")
            model_class = getattr(importlib.import_module(f"hf_gpt.models.{module}"), name)
            getattr(modeling_auto, auto_name).register(config_class, model_class, exist_ok=True)
            # Clients look a class up by its name there: `transformers serve`, TRL and vLLM.
            for library in _library_modules():
                setattr(library, name, model_class)
            # Trainer shifts labels under label smoothing only for the language models that it finds here by name.
            getattr(modeling_auto, _NAMES_OF_AUTO_CLASS[auto_name])[config_class.model_type] = name


def register_feature_extractors() -> None:
    """Lets `AutoFeatureExtractor` open those of signals."""
    from transformers import AutoFeatureExtractor

    from hf_gpt.modalities import HfGptAudioFeatureExtractor, HfGptImageFeatureExtractor

    # Found by the name in the saved settings. By a model's configuration, every text model would seem to need one.
    for feature_extractor_class in (HfGptImageFeatureExtractor, HfGptAudioFeatureExtractor):
        AutoFeatureExtractor.register(feature_extractor_class, feature_extractor_class, exist_ok=True)


def register_processor() -> None:
    """Lets `AutoProcessor` open that of signals, by the name in the saved settings."""
    from transformers import AutoProcessor

    from hf_gpt.modalities import HfGptModalityProcessor

    AutoProcessor.register(HfGptModalityProcessor, HfGptModalityProcessor, exist_ok=True)


def register_peft_targets() -> None:
    """Gives `LoraConfig()` and its like their default target modules."""
    from hf_gpt.adapter_targets import set_default_targets

    set_default_targets()


def register_peft_all_linear() -> None:
    """Gives `target_modules="all-linear"` a meaning in models without linear layers."""
    from hf_gpt.adapter_targets import widen_all_linear

    widen_all_linear()


def register_vllm() -> None:
    """
    What vLLM calls in each of its processes, by the entry point `vllm.general_plugins`: our decoder is run by vLLM's
    backend for Transformers models. Without vLLM it does nothing.
    """
    try:
        from vllm import ModelRegistry
    except ImportError:
        return
    register_models()
    if "HfGptForCausalLM" not in ModelRegistry.get_supported_archs():
        backend = "vllm.model_executor.models.transformers:TransformersForCausalLM"
        ModelRegistry.register_model("HfGptForCausalLM", backend)


_WHEN_IMPORTED: dict[str, Callable[[], None]] = {
    "transformers.models.auto.configuration_auto": register_config,
    "transformers.models.auto.modeling_auto": register_models,
    "transformers.models.auto.feature_extraction_auto": register_feature_extractors,
    "transformers.models.auto.processing_auto": register_processor,
    "peft.utils.constants": register_peft_targets,
    "peft.tuners.tuners_utils": register_peft_all_linear,
}


class _AfterImport:
    """
    Runs each registration once its library module is imported and nothing that it could need is half imported: the
    library imports its Auto classes in the middle of modules that our models import too. It stands on `sys.meta_path`
    without the base class for that, whose module would double what importing this one costs.
    """

    packages = ("transformers", "peft", "hf_gpt")

    def __init__(self):
        self.waiting = dict(_WHEN_IMPORTED)
        self.searching: set[str] = set()
        self.executing = 0

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        if fullname.split(".")[0] not in self.packages or fullname in self.searching:
            return None
        self.searching.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.searching.discard(fullname)
        execute = getattr(spec and spec.loader, "exec_module", None)
        if execute is None:
            return None

        def execute_then_register(module):
            self.executing += 1
            try:
                execute(module)
            finally:
                self.executing -= 1
            # This module counts as half imported until its own import returns, but all of it has run.
            self.run_due(finished=fullname)

        spec.loader.exec_module = execute_then_register
        return spec

    def run_due(self, finished: str | None = None) -> None:
        for name in list(self.waiting):
            if self.executing == 0 and name in sys.modules and name in self.waiting:
                if name != finished and getattr(sys.modules[name].__spec__, "_initializing", False):
                    continue
                run = self.waiting.pop(name)
                run()
        if not self.waiting and self in sys.meta_path:
            sys.meta_path.remove(self)


def register_when_loaded() -> None:
    """Runs each registration now if its library is imported already, else as soon as it is. Safe to call twice."""
    if any(type(finder).__name__ == _AfterImport.__name__ for finder in sys.meta_path):
        return
    finder = _AfterImport()
    sys.meta_path.insert(0, finder)
    finder.run_due()
