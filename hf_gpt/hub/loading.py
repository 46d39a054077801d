"""A model and its tokenizer from a folder or the Hub, whichever head it has."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers
from transformers import AutoConfig, AutoTokenizer

from hf_gpt.errors import CheckpointError
from hf_gpt.files.checkpoints import find_model
from hf_gpt.files.model_paths import check_exists, optional_file
from hf_gpt.hub.files import BASE


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_OTHER_NAMES = {"LMHeadModel": "AutoModelForCausalLM", "ForConditionalGeneration": "AutoModelForSeq2SeqLM"}
_PEFT_TASKS = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}


def load(
    name_or_path: str | Path,
    *,
    auto_class: str | None = None,
    subfolder: str = "",
    revision: str | None = None,
    trust_remote_code: bool = False,
    dtype: Any = "auto",
    **options: Any,
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase | None]":
    """Opens a checkpoint with the head that it was saved with; of a PEFT adapter, the model with the adapter.

    Models of this package need no remote code. Code that comes with another model is run only if that is asked for.

    Args:
        name_or_path: Folder of a checkpoint or run, or a Hub id.
        auto_class: Name of the Auto class to open it with; left out: that of its own head.
        subfolder: Where it lies within, such as `"discriminator"`.
        revision: Branch, tag or commit of a Hub id.
        trust_remote_code: Whether code that comes with the checkpoint may be run.
        dtype: Of the weights; by default as they were saved.
        options: Further arguments of `from_pretrained`.

    Returns:
        The model, in evaluation mode, and its tokenizer, None if there is none.

    Raises:
        CheckpointError: there is no such checkpoint, or its head has no Auto class.
    """
    check_exists(str(name_or_path))
    path = find_model(str(name_or_path))
    source = {"subfolder": subfolder, "revision": revision}
    trusted = {**source, "trust_remote_code": trust_remote_code}
    try:
        if (adapter := _adapter_config(path, source)) is not None:
            model = _load_adapter(path, adapter, source, auto_class, trust_remote_code, dtype=dtype, **options)
        else:
            config = AutoConfig.from_pretrained(path, **trusted)
            name = auto_class or _auto_class_of(config)
            model = getattr(transformers, name).from_pretrained(path, config=config, dtype=dtype, **trusted, **options)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"no model can be loaded from {path}{subfolder and '/' + subfolder}: {error}") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **trusted)
    except (OSError, ValueError):
        tokenizer = None
    return model.eval(), tokenizer


def _auto_class_of(config: Any) -> str:
    name = (config.architectures or [""])[0]
    for ending, auto_class in _OTHER_NAMES.items():
        if name.endswith(ending):
            return auto_class
    auto_class = f"AutoModelFor{name.rpartition('For')[2]}" if "For" in name else "AutoModel"
    if not hasattr(transformers, auto_class):
        raise CheckpointError(f"{name or 'this model'} has no Auto class: say which by auto_class.")
    return auto_class


def _adapter_config(path: str, source: dict[str, Any]) -> Any:
    found = optional_file(path, "adapter_config.json", **source)
    if found is None:
        return None
    try:
        from peft import PeftConfig
    except ImportError as error:
        raise CheckpointError(f"{path} is an adapter: pip install peft to open it.") from error
    return PeftConfig.from_pretrained(str(found.parent))


def _base_beside(path: str, source: dict[str, Any]) -> Path | None:
    """The folder of the model that `push` put beside its adapter, fetched.

    By its id and subfolder Transformers would come upon the adapter above it first.
    """
    from huggingface_hub import snapshot_download

    inner = "/".join(part for part in (source["subfolder"], BASE) if part)
    found = optional_file(path, "config.json", subfolder=inner, revision=source["revision"])
    if found is not None and not Path(path).is_dir():
        snapshot_download(path, revision=source["revision"], allow_patterns=f"{inner}/*")
    return None if found is None else found.parent


def _load_adapter(
    path: str, adapter: Any, source: dict[str, Any], auto_class: str | None, trust_remote_code: bool, **options: Any
) -> "PreTrainedModel":
    from peft import PeftModel

    name = auto_class or _PEFT_TASKS.get(str(getattr(adapter.task_type, "value", adapter.task_type)), "AutoModel")
    base_path = _base_beside(path, source) or adapter.base_model_name_or_path
    base = getattr(transformers, name).from_pretrained(base_path, trust_remote_code=trust_remote_code, **options)
    return PeftModel.from_pretrained(base, path, **{key: value for key, value in source.items() if value})
