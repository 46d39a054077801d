"""Tiny stock checkpoints with random weights, each as its own library class saves it."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import hf_gpt  # noqa: F401 - its models are registered with the Auto classes


VOCAB = 300
IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    **IDS,
}
GPT2 = {
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "vocab_size": VOCAB,
    "initializer_range": 0.2,
    **IDS,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN_ROPE = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 2.0, "original_max_position_embeddings": 32}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
SLIDING = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
MODELS = {
    "gpt2": ("gpt2", GPT2),
    "gpt2-inner": ("gpt2", {**GPT2, "n_inner": 48, "activation_function": "relu", "tie_word_embeddings": False}),
    "llama": ("llama", {**SIZES, "rope_parameters": LLAMA3_ROPE}),
    "llama-bias": ("llama", {**SIZES, "attention_bias": True, "mlp_bias": True, "head_dim": 12}),
    "llama-tied": ("llama", {**SIZES, "tie_word_embeddings": True, "rope_parameters": LINEAR_ROPE}),
    "arcee": ("arcee", {**SIZES, "tie_word_embeddings": True}),
    "mistral": ("mistral", {**SIZES, "sliding_window": 4}),
    "mistral-full": ("mistral", {**SIZES, "sliding_window": None, "rope_parameters": YARN_ROPE}),
    "qwen2": ("qwen2", {**SIZES, "rope_parameters": YARN_ROPE}),
    "qwen2-sliding": ("qwen2", {**SIZES, **SLIDING, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {**SIZES, "head_dim": 16, "tie_word_embeddings": True}),
    "qwen3-sliding": ("qwen3", {**SIZES, "head_dim": 8, **SLIDING, "attention_bias": True}),
}


def make_stock(name: str, dtype: torch.dtype = torch.float32):
    """A stock model; its norms and biases are random too, so that none can be mixed up."""
    model_type, settings = MODELS[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.to(dtype)


@pytest.fixture(scope="session")
def tokenizer():
    """A byte-level BPE with as many tokens as the models have."""
    from hf_gpt.data.tokenizer import train_tokenizer

    text = "the quick brown fox jumps over the lazy dog and then the dog jumps over the quick brown fox "
    tokenizer = train_tokenizer([text * 4], VOCAB)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return tokenizer


@pytest.fixture
def stock(tmp_path, tokenizer):
    """Saves a stock model with tokenizer and generation config, and returns it and its folder."""

    def save(name: str, dtype: torch.dtype = torch.float32, **options):
        model = make_stock(name, dtype)
        model.generation_config.update(top_k=7, temperature=0.5, do_sample=True)
        folder = tmp_path / f"stock-{name}"
        model.save_pretrained(folder, **options)
        tokenizer.save_pretrained(folder)
        return model, folder

    return save
