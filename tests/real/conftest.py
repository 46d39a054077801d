"""Pretrained models, for tests marked `real`; without them they are skipped."""

from pathlib import Path

import pytest

from tests.real.fetch import model_folder


def _folder(name: str) -> Path:
    folder = model_folder(name)
    if not folder.is_dir():
        pytest.skip(f"needs the pretrained model {name}: make real-models")
    return folder


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct as a GGUF file of four-bit weights."""
    pytest.importorskip("gguf", reason="needs gguf: make check-real")
    return next(_folder("smollm2").glob("*.gguf"))


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The encoder all-MiniLM-L6-v2, a checkpoint folder."""
    return _folder("minilm")


@pytest.fixture(scope="session")
def smollm2(smollm2_gguf, tmp_path_factory) -> Path:
    """SmolLM2-135M-Instruct as a checkpoint of Transformers in float32, with its tokenizer and chat template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder, name = smollm2_gguf.parent, smollm2_gguf.name
    config = GgufConfig(gguf_file=name, dequantize=True)
    written = tmp_path_factory.mktemp("real") / "smollm2"
    AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, quantization_config=config).save_pretrained(written)
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(written)
    return written


@pytest.fixture(scope="session")
def converted(smollm2) -> Path:
    """The same model as HfGpt."""
    from hf_gpt import convert

    folder = smollm2.with_name("hf_gpt")
    convert(smollm2, folder)
    return folder
