import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny models gain nothing from threads, and threads that wait for each other are slow on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def corpus_text() -> str:
    """The first few thousand characters of the built-in corpus."""
    from hf_gpt.data.corpus import CORPORA

    return (CORPORA / "tinyshakespeare.txt").read_text(encoding="utf-8")[:6000]


@pytest.fixture
def corpus_file(tmp_path, corpus_text):
    path = tmp_path / "corpus.txt"
    path.write_text(corpus_text, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tokenizer(corpus_text):
    from hf_gpt.data.tokenizer import train_tokenizer

    return train_tokenizer([corpus_text], 320)


@pytest.fixture
def make_model(tokenizer):
    """Makes a tiny model with the same weights each time."""
    from transformers import AutoConfig, AutoModelForCausalLM

    def make(model_type="hf_gpt", **overrides):
        settings = {
            "vocab_size": 320,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 32,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**settings, **overrides}))

    return make
