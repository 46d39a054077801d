import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny models gain nothing from threads, and threads that wait for each other are slow on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}


@pytest.fixture
def make_discriminator():
    """Makes a tiny one-label classifier of any architecture with the same weights each time, dropout off."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    import hf_gpt

    assert hf_gpt.__version__

    def make(model_type="hf_gpt", **options):
        settings = dict(SIZES) if model_type != "hf_ngram_cnn" else {"vocab_size": 40, "kernel_sizes": [1, 3]}
        if model_type == "bert":
            settings.pop("bos_token_id")
        config = AutoConfig.for_model(model_type, **{**settings, "num_labels": 1, **options})
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_config(config).eval()

    return make
