import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM


BOS, EOS, PAD = 1, 2, 0
VOCAB = 20


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_generator():
    """Makes a tiny language model of any type with the same weights each time; its logits are spread out."""

    def make(model_type="hf_gpt", spread=8.0, **overrides):
        settings = {
            "vocab_size": VOCAB,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "pad_token_id": PAD,
        }
        if model_type == "qwen3":
            settings["head_dim"] = 8
        if model_type == "bart":
            settings = {
                "vocab_size": VOCAB,
                "d_model": 16,
                "encoder_layers": 1,
                "decoder_layers": 1,
                "encoder_attention_heads": 2,
                "decoder_attention_heads": 2,
                "encoder_ffn_dim": 32,
                "decoder_ffn_dim": 32,
                "max_position_embeddings": 64,
                "decoder_start_token_id": EOS,
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
