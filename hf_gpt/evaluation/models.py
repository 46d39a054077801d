"""Models that metrics read texts with, given as objects or by name."""

from typing import Any

import transformers

from hf_gpt.files.checkpoints import find_model
from hf_gpt.files.model_paths import check_exists


def open_model(
    model: Any, processing_class: Any = None, auto_class: str = "AutoModelForCausalLM"
) -> tuple[transformers.PreTrainedModel, Any]:
    """A model and its tokenizer, each given as an object or as a path or Hub id.

    Args:
        model: The model.
        processing_class: Its tokenizer; None: that of the model's path.
        auto_class: Name of the class of Transformers that opens a path.

    Raises:
        ValueError: there is no model, or a model object came without its tokenizer.
    """
    if model is None:
        raise ValueError(f"model is missing. Give one that {auto_class} opens, or its path.")
    if isinstance(model, str) or hasattr(model, "__fspath__"):
        check_exists(str(model))
        path = find_model(str(model))
        processing_class = processing_class or path
        model = getattr(transformers, auto_class).from_pretrained(path)
    elif processing_class is None:
        raise ValueError("give processing_class, the tokenizer of the model, or the model as a path.")
    if isinstance(processing_class, str) or hasattr(processing_class, "__fspath__"):
        processing_class = transformers.AutoTokenizer.from_pretrained(find_model(str(processing_class)))
    return model, processing_class
