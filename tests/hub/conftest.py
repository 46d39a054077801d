import pytest
import torch

import hf_gpt
from tests.hub.loopback import TOKEN, LoopbackHub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A loopback Hub that the client in this process talks to, logged in, with a cache of its own."""
    from huggingface_hub import constants, hf_api

    server = LoopbackHub()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    # The clients that the libraries keep hold the address that they were made with.
    monkeypatch.setattr(hf_api.api, "endpoint", server.url)
    monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.close()


@pytest.fixture(scope="session")
def tokenizer():
    from hf_gpt.data.tokenizer import train_tokenizer

    return train_tokenizer(["the quick brown fox jumps over the lazy dog " * 4], 290)


@pytest.fixture
def make_checkpoint(tmp_path, tokenizer):
    """Saves a tiny model of a class of ours, with tokenizer and what a run leaves beside it; returns both."""

    def make(class_name="HfGptForCausalLM", folder="model", seed=0, **settings):
        torch.manual_seed(seed)
        config = hf_gpt.HfGptConfig(
            vocab_size=290,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            output_projection_init="normal",
            **settings,
        )
        model = getattr(hf_gpt, class_name)(config).eval()
        path = tmp_path / folder
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        (path / "optimizer.pt").write_bytes(b"state")
        (path / "training_args.bin").write_bytes(b"pickle")
        (path / ".env").write_text(f"HF_TOKEN={TOKEN}")
        (path / "trainer_state.json").write_text("{}")
        (path / "checkpoint-5").mkdir()
        (path / "checkpoint-5" / "config.json").write_text("{}")
        return model, path

    return make
