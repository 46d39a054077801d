"""Tokenizers that cannot be read, whatever the library raises."""

import pytest
import transformers

from hf_gpt.conversion.tokenizers import load
from hf_gpt.errors import ConversionError


def test_a_panic_of_the_tokenizers_library_is_refused_in_words(tmp_path, monkeypatch):
    class PanicException(BaseException):
        """As Rust's panics arrive in Python: no Exception."""

    def panics(*args, **kwargs):
        raise PanicException("index out of bounds")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", panics)
    with pytest.raises(ConversionError, match=r"no tokenizer can be loaded.*index out of bounds"):
        load(tmp_path)

    def interrupts(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", interrupts)
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path)
