"""A tokenizer that says the same beside another architecture."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hf_gpt.errors import ConversionError


# What a wrong tokenizer treats otherwise: spaces, line ends, digits, capitals, accents, other scripts.
PROBE = " The 12,345 quick foxes' cafés  jumped\n\n\tover «ÆØÅ» — naïve 你好 😀 don't\r\n{'a': [1]}  "
FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")
# Takes `tokenizer.json` as it is. The name is known to older versions too.
_PLAIN_CLASS = "PreTrainedTokenizerFast"
_SPECIAL = ("bos_token", "eos_token", "pad_token")


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds the files of a tokenizer."""
    return any((folder / name).is_file() for name in FILES)


def carry_tokenizer(source: Path, destination: Path, model_type: str) -> None:
    """Writes the tokenizer of one checkpoint beside another, and checks that it encodes as before.

    Which class the library opens depends on the architecture beside the files; where it would open one that encodes
    otherwise, the class is named that takes the files as they are.

    Readers of GPT-2 count on a token for the unknown, as its own tokenizer has one; where there is none the end token
    is it, which no text of bytes ever needs.

    Args:
        source: Folder of the tokenizer.
        destination: Folder that holds the configuration already.
        model_type: Of the destination.

    Raises:
        ConversionError: it cannot be loaded, or encodes a text otherwise in its new place.
    """
    original = load(source)
    original.save_pretrained(destination)
    if model_type == "gpt2" and original.unk_token is None and original.eos_token is not None:
        _set(destination, unk_token=original.eos_token)
    if _encodes_alike(original, destination):
        return
    _set(destination, tokenizer_class=_PLAIN_CLASS)
    if not _encodes_alike(original, destination):
        raise ConversionError(
            f"beside the new architecture the library would open the tokenizer of {source} as another class "
            f"({type(load(destination)).__name__}), which parts texts otherwise. Convert the weights alone "
            "(--no_tokenizer) and load the tokenizer from where it is."
        )


def _set(folder: Path, **settings: Any) -> None:
    path = folder / "tokenizer_config.json"
    content = {**json.loads(path.read_text(encoding="utf-8")), **settings}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder; its code, if it brings any, is not run.

    Raises:
        ConversionError: it cannot be loaded.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        # Some wrong settings show only when a text is encoded.
        tokenizer(PROBE)
    # Damaged files raise errors of many kinds, down to bare ones of the tokenizers library, whose panics are not even
    # derived from Exception.
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ConversionError(f"no tokenizer can be loaded from {folder}: {error}") from error
    return tokenizer


def _encodes_alike(original: PreTrainedTokenizerBase, folder: Path) -> bool:
    try:
        other = load(folder)
    except ConversionError:
        return False
    ids = original(PROBE)["input_ids"]
    return (
        _steps(other) == _steps(original)
        and other(PROBE)["input_ids"] == ids
        and other.decode(ids) == original.decode(ids)
        and len(other) == len(original)
        and other.chat_template == original.chat_template
        and all(getattr(other, name) == getattr(original, name) for name in _SPECIAL)
    )


def _steps(tokenizer: PreTrainedTokenizerBase) -> Any:
    """How texts are parted before tokens are looked up, and put together again; the vocabulary alone would not tell."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = {} if backend is None else json.loads(backend.to_str())
    return {name: content.get(name) for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder")}
