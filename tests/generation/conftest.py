import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def pair():
    """Two language models whose texts can all be added up."""
    from tests.generation.enumerated import make_pair

    return make_pair()


@pytest.fixture(params=["pytorch", "compiled"])
def steps(request, monkeypatch):
    """Decoding steps by PyTorch, then by the compiled library."""
    from hf_gpt.generation.decoding.native.structures import native

    monkeypatch.setenv("HF_GPT_NATIVE", str(int(request.param == "compiled")))
    if request.param == "compiled" and native() is None:
        pytest.skip("there is no C compiler")
    return request.param


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


@pytest.fixture
def make_generator():
    """Makes a tiny language model of any type with the same weights each time; its logits are spread out."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    def make(model_type="hf_gpt", spread=8.0, **overrides):
        settings = {
            "vocab_size": 20,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        }
        if model_type == "qwen3":
            settings["head_dim"] = 8
        if model_type == "bart":
            settings = {
                "vocab_size": 20,
                "d_model": 16,
                "encoder_layers": 1,
                "decoder_layers": 1,
                "encoder_attention_heads": 2,
                "decoder_attention_heads": 2,
                "encoder_ffn_dim": 32,
                "decoder_ffn_dim": 32,
                "max_position_embeddings": 64,
                "decoder_start_token_id": 2,
                "forced_eos_token_id": None,
            }
        torch.manual_seed(0)
        config = AutoConfig.for_model(model_type, **{**settings, **overrides})
        auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = auto.from_config(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 2 and "norm" not in name:
                    parameter.mul_(spread)
        return model

    return make
