"""
Makes Transformers and PEFT know the HfGpt models.

No library looks for plugins, and importing the model classes costs seconds that `import hf_gpt` must not. So each
registration waits until the library module that it writes into has been imported, then runs at once.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec


_CONFIGURATION = "hf_gpt.models.configuration_hf_gpt"
_MODELING = "hf_gpt.models.modeling_hf_gpt"


def register_config() -> None:
    """Lets `AutoConfig` open HfGpt configurations."""
    from transformers import AutoConfig

    config_class = importlib.import_module(_CONFIGURATION).HfGptConfig
    AutoConfig.register(config_class.model_type, config_class, exist_ok=True)


def register_models() -> None:
    """Lets each Auto class open its HfGpt class, by configuration and by name."""
    from transformers.models.auto import modeling_auto

    register_config()
    models = importlib.import_module(_MODELING)
    config_class = models.HfGptModel.config_class
    model_type = config_class.model_type
    for auto_name, names_by_type, model_class in (
        ("AutoModel", "MODEL_MAPPING_NAMES", models.HfGptModel),
        ("AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", models.HfGptForCausalLM),
        (
            "AutoModelForSequenceClassification",
            "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
            models.HfGptForSequenceClassification,
        ),
        (
            "AutoModelForTokenClassification",
            "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
            models.HfGptForTokenClassification,
        ),
        (
            "AutoModelForQuestionAnswering",
            "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
            models.HfGptForQuestionAnswering,
        ),
    ):
        getattr(modeling_auto, auto_name).register(config_class, model_class, exist_ok=True)
        # Trainer shifts labels under label smoothing only for the language models that it finds here by name.
        getattr(modeling_auto, names_by_type)[model_type] = model_class.__name__


def register_peft_targets() -> None:
    """Gives `LoraConfig()` and its like their default target modules, which are named as in Llama."""
    constants = importlib.import_module("peft.utils.constants")
    model_type = importlib.import_module(_CONFIGURATION).HfGptConfig.model_type
    for name, targets in vars(constants).items():
        if name.startswith("TRANSFORMERS_MODELS_TO_") and name.endswith("_MODULES_MAPPING") and "llama" in targets:
            targets.setdefault(model_type, targets["llama"])


def register_all() -> None:
    """Runs every registration now. PEFT's only if PEFT is installed."""
    register_models()
    if importlib.util.find_spec("peft") is not None:
        register_peft_targets()


@dataclass(frozen=True)
class _Registration:
    library_module: str
    own_module: str
    run: Callable[[], None]


_REGISTRATIONS = (
    _Registration("transformers.models.auto.configuration_auto", _CONFIGURATION, register_config),
    _Registration("transformers.models.auto.modeling_auto", _MODELING, register_models),
    _Registration("peft.utils.constants", _CONFIGURATION, register_peft_targets),
)


class _AfterImport(MetaPathFinder):
    """Runs a registration as soon as its library module is there and its own module is not half imported."""

    def __init__(self):
        self.waiting = list(_REGISTRATIONS)
        self.searching: set[str] = set()

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        watched = any(fullname in (item.library_module, item.own_module) for item in self.waiting)
        if not watched or fullname in self.searching:
            return None
        self.searching.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.searching.discard(fullname)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_then_register(module):
            execute(module)
            self.run_due(finished=fullname)

        spec.loader.exec_module = execute_then_register
        return spec

    def run_due(self, finished: str | None = None) -> None:
        for item in list(self.waiting):
            if not _is_loaded(item.library_module, finished):
                continue
            # Half imported: it will come by again when its own import ends.
            if item.own_module in sys.modules and not _is_loaded(item.own_module, finished):
                continue
            if item in self.waiting:
                self.waiting.remove(item)
                item.run()
        if not self.waiting and self in sys.meta_path:
            sys.meta_path.remove(self)


def _is_loaded(name: str, finished: str | None) -> bool:
    module = sys.modules.get(name)
    return name == finished or (module is not None and not getattr(module.__spec__, "_initializing", False))


def register_when_loaded() -> None:
    """Runs each registration now if its library is imported already, else as soon as it is. Safe to call twice."""
    if any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        return
    finder = _AfterImport()
    sys.meta_path.insert(0, finder)
    finder.run_due()
