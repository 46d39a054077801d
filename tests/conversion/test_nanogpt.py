"""Checkpoints of nanoGPT come in by the restricted reader alone."""

import os
import pickle

import pytest
import torch
from transformers import AutoModelForCausalLM

from hf_gpt.conversion.checkpoint import convert
from hf_gpt.errors import ConversionError


class NanoGpt(torch.nn.Module):
    """The forward pass of nanoGPT's `model.py`, written out anew."""

    def __init__(self, vocab_size, block_size, n_layer, n_head, n_embd, bias, dropout=0.0):
        super().__init__()
        self.n_head = n_head
        norm = lambda: torch.nn.LayerNorm(n_embd, bias=bias)  # noqa: E731
        linear = lambda inputs, outputs: torch.nn.Linear(inputs, outputs, bias=bias)  # noqa: E731
        block = lambda: torch.nn.ModuleDict(  # noqa: E731
            {
                "ln_1": norm(),
                "attn": torch.nn.ModuleDict({"c_attn": linear(n_embd, 3 * n_embd), "c_proj": linear(n_embd, n_embd)}),
                "ln_2": norm(),
                "mlp": torch.nn.ModuleDict({"c_fc": linear(n_embd, 4 * n_embd), "c_proj": linear(4 * n_embd, n_embd)}),
            }
        )
        self.transformer = torch.nn.ModuleDict(
            {
                "wte": torch.nn.Embedding(vocab_size, n_embd),
                "wpe": torch.nn.Embedding(block_size, n_embd),
                "h": torch.nn.ModuleList([block() for _ in range(n_layer)]),
                "ln_f": norm(),
            }
        )
        self.lm_head = torch.nn.Linear(n_embd, vocab_size, bias=False)
        self.lm_head.weight = self.transformer.wte.weight

    def forward(self, ids):
        parts = self.transformer
        x = parts.wte(ids) + parts.wpe(torch.arange(ids.shape[1]))
        for block in parts.h:
            q, k, v = block.attn.c_attn(block.ln_1(x)).split(x.shape[-1], dim=2)
            q, k, v = (y.unflatten(2, (self.n_head, -1)).transpose(1, 2) for y in (q, k, v))
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + block.attn.c_proj(y.transpose(1, 2).flatten(2))
            x = x + block.mlp.c_proj(torch.nn.functional.gelu(block.mlp.c_fc(block.ln_2(x))))
        return self.lm_head(parts.ln_f(x))


NANO = {"vocab_size": 60, "block_size": 32, "n_layer": 2, "n_head": 4, "n_embd": 32}


def save_nanogpt(path, bias, compiled=False, **more):
    torch.manual_seed(0)
    model = NanoGpt(**NANO, bias=bias)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2).add_(torch.randn_like(parameter) * 0.1)
    prefix = "_orig_mod." if compiled else ""
    content = {
        "model": {prefix + name: tensor for name, tensor in model.state_dict().items()},
        "model_args": {**NANO, "bias": bias, "dropout": 0.0},
        "iter_num": 7,
        "best_val_loss": torch.tensor(1.5),
        "config": {"dataset": "shakespeare"},
        **more,
    }
    torch.save(content, path)
    return model


@pytest.mark.parametrize(("bias", "compiled"), [(True, False), (False, True)])
def test_nanogpt(bias, compiled, tmp_path):
    model = save_nanogpt(tmp_path / "ckpt.pt", bias, compiled)
    convert(tmp_path / "ckpt.pt", tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "gpt2", to="gpt2")
    ids = torch.randint(0, 60, (2, 20))
    with torch.no_grad():
        for position in ("ours", "gpt2"):
            loaded = AutoModelForCausalLM.from_pretrained(tmp_path / position).eval()
            assert (loaded(ids).logits - model(ids)).abs().max() <= 1e-5


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    save_nanogpt(tmp_path / "ckpt.pt", True, evil=Evil())
    with pytest.raises(ConversionError, match="could run code"):
        convert(tmp_path / "ckpt.pt", tmp_path / "ours")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ConversionError):
        convert(tmp_path / "plain.pt", tmp_path / "ours")
    assert not (tmp_path / "owned").exists() and not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": {}}, "no 'model' and 'model_args'"),
        ({"model": {}, "model_args": {**NANO, "n_head": "four"}}, "whole number for n_head"),
        ({"model": {}, "model_args": {**NANO, "n_head": 5}}, "must divide"),
        ({"model": {}, "model_args": NANO}, "weights are missing"),
        ({"model": {"x": 3}, "model_args": NANO}, "tensors alone"),
    ],
)
def test_another_pt_file(content, message, tmp_path):
    torch.save(content, tmp_path / "ckpt.pt")
    with pytest.raises(ConversionError, match=message):
        convert(tmp_path / "ckpt.pt", tmp_path / "ours")
