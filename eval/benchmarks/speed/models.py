"""The models that are raced: ours, GPT-2 and Llama of one size."""

from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from eval.benchmarks.speed.machine import default_device
from hf_gpt import HfGptConfig, HfGptForCausalLM


# Named by the number of parameters with the vocabulary that goes with them: 8,192 tokens, and 50,304.
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "1m": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4},
    "10m": {"hidden_size": 320, "num_hidden_layers": 6, "num_attention_heads": 5},
    "124m": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
}
KINDS = ("hf_gpt", "GPT-2", "Llama")


def build(kind: str, size: str, vocab_size: int, max_length: int, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """A model with random weights, on the accelerator if there is one; nothing ends its texts."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": vocab_size, **SIZES[size]}
    ends = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0}
    if kind == "hf_gpt":
        model = HfGptForCausalLM(HfGptConfig(max_position_embeddings=max_length, **shape, **ends))
    elif kind == "GPT-2":
        model = GPT2LMHeadModel(GPT2Config(n_positions=max_length, **shape, **ends))
    elif kind == "Llama":
        # As many weights in the gated MLP as in one of four times the width.
        inner = 8 * shape["hidden_size"] // 3
        config = LlamaConfig(
            intermediate_size=inner, max_position_embeddings=max_length, tie_word_embeddings=True, **shape, **ends
        )
        model = LlamaForCausalLM(config)
    else:
        raise ValueError(f"there is no kind {kind!r}; choose from {', '.join(KINDS)}")
    return model.to(device=default_device(), dtype=dtype)
