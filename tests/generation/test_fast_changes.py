"""`fast_generate` after a change of the model, by whatever way: always the tokens of `generate`."""

import copy
import os

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.generation.decoding.fast_generate import fast_generate
from hf_gpt.generation.decoding.fingerprint import digests, fingerprint


PROMPT = torch.tensor([[1, 5, 6, 7]])


def make(**options) -> HfGptForCausalLM:
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return HfGptForCausalLM(HfGptConfig(**{**sizes, "initializer_range": 0.4, **options})).eval()


def tokens_of(model, **settings):
    """Greedy tokens by `generate` and by `fast_generate`, and their logits."""
    settings = {"max_new_tokens": 40, "do_sample": False, "return_dict_in_generate": True, **settings}
    settings |= {"output_logits": True, "eos_token_id": None, "pad_token_id": 0}
    found = [model.generate(PROMPT, custom_generate=method, **settings) for method in (None, fast_generate)]
    return [one.sequences.tolist() for one in found], [torch.stack(one.logits) for one in found]


def check(model):
    (expected, found), (expected_logits, found_logits) = tokens_of(model)
    assert found == expected
    torch.testing.assert_close(found_logits, expected_logits, rtol=1e-3, atol=1e-3)


def step_by(optimizer, **options):
    def change(model):
        ids = torch.randint(3, 40, (4, 12))
        model(ids, labels=ids).loss.backward()
        optimizer(model.parameters(), lr=0.5, **options).step()

    return change


@torch.no_grad()
def swap_rows(model):
    weight = model.model.layers[0].mlp.down_proj.weight
    weight.data[[0, 1]] = weight.data[[1, 0]]


@torch.no_grad()
def permute_all(model):
    for parameter in model.parameters():
        parameter.data.copy_(parameter.data.flatten().flip(0).view_as(parameter))


def numpy_view(model):
    model.model.layers[1].self_attn.o_proj.weight.detach().numpy()[...] *= -2


def new_data(model):
    for parameter in model.parameters():
        parameter.data = parameter.data * -0.5


def merge_adapter(model):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model, LoraConfig(init_lora_weights=False, r=2, target_modules="all-linear"))
    assert adapted.merge_and_unload() is model


def swap_tensors(model):
    other = make(initializer_range=0.3)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.utils.swap_tensors(mine, nn.Parameter(theirs.detach().clone()))


def through_another_type(model):
    model.to(torch.bfloat16).to(torch.float32)


@torch.no_grad()
def by_set(model):
    weight = model.model.layers[0].mlp.up_proj.weight
    weight.set_(torch.full_like(weight, 0.3))


@torch.no_grad()
def inference_update(model):
    with torch.inference_mode():
        model.model.embed_tokens.weight.mul_(-1.5)


CHANGES = {
    "fused AdamW": step_by(torch.optim.AdamW, fused=True),
    "fused SGD": step_by(torch.optim.SGD, fused=True),
    "fused Adagrad": step_by(torch.optim.Adagrad, fused=True),
    "foreach Adam": step_by(torch.optim.Adam, foreach=True),
    "data.copy_": lambda m: m.model.layers[0].mlp.up_proj.weight.data.copy_(torch.ones(64, 16)),
    "data.mul_ of all": lambda m: [p.data.mul_(-1.3) for p in m.parameters()],
    "data.clamp_": lambda m: [p.data.clamp_(-0.1, 0.1) for p in m.parameters()],
    "numpy view": numpy_view,
    "two rows swapped": swap_rows,
    "all in another order": permute_all,
    "a new data": new_data,
    "set_": by_set,
    "swap_tensors": swap_tensors,
    "merged adapter": merge_adapter,
    "load_state_dict": lambda m: m.load_state_dict(make(initializer_range=0.3).state_dict()),
    "load_state_dict, assigned": lambda m: m.load_state_dict(make(initializer_range=0.3).state_dict(), assign=True),
    "bfloat16 and back": through_another_type,
    "bfloat16": lambda m: m.to(torch.bfloat16).to(torch.float64).to(torch.float32),
    "inference mode": inference_update,
    "norm alone": lambda m: m.model.norm.weight.data.neg_(),
    "embeddings alone": lambda m: m.model.embed_tokens.weight.data.roll(1, 0),
    "untied": lambda m: setattr(m, "lm_head", nn.Linear(16, 40, bias=True)),
    "vocabulary resized": lambda m: m.resize_token_embeddings(50),
    "another layer": lambda m: m.model.layers.__setitem__(1, make(initializer_range=0.9).model.layers[1]),
    "a layer less": lambda m: setattr(m.config, "num_hidden_layers", 1),
    "logit_scale": lambda m: setattr(m.config, "logit_scale", 3.0),
    "soft cap": lambda m: setattr(m.config, "final_logit_softcapping", 0.7),
    "sliding window": lambda m: setattr(m.config, "sliding_window", 2),
    "layer types": lambda m: setattr(m.config, "layer_types", ["full_attention"] * 2),
    "no positions": lambda m: setattr(m.config, "position_embedding_type", "none"),
    "norm_eps of the configuration": lambda m: setattr(m.config, "norm_eps", 0.5),
    "epsilon of a norm": lambda m: setattr(m.model.norm, "variance_epsilon", 0.5),
    "scaling": lambda m: setattr(m.model.layers[1].self_attn, "scaling", 1.5),
    "activation": lambda m: setattr(m.model.layers[1].mlp, "act_fn", nn.Tanh()),
    "activation of the configuration": lambda m: setattr(m.config, "hidden_act", "silu"),
    "rotary frequencies": lambda m: m.model.rotary_emb.inv_freq.mul_(0.3),
    "rotary attribute": lambda m: setattr(m.model.rotary_emb, "attention_scaling", 2.0),
    "eager": lambda m: m.set_attn_implementation("eager"),
    "hook": lambda m: m.model.layers[0].mlp.register_forward_hook(lambda *a: a[2] * -1),
    "parametrization": lambda m: parametrize.register_parametrization(
        m.model.layers[0].mlp.up_proj, "weight", nn.Tanh()
    ),
    "parametrized head": lambda m: parametrize.register_parametrization(m.model.norm, "weight", nn.Tanh()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_tokens_are_those_of_generate_after(steps, change):
    model = make(sliding_window=6, layer_types=["full_attention", "sliding_attention"])
    check(model)
    before, state = [p.detach().clone() for p in model.parameters()], fingerprint(model)
    change(model)
    check(model)
    again = list(model.parameters())
    if len(again) != len(before) or any(not torch.equal(a, b) for a, b in zip(again, before, strict=True)):
        assert fingerprint(model) != state


def test_learned_positions_and_biases_are_not_kept(steps):
    options = {"position_embedding_type": "learned", "norm_type": "layernorm", "norm_bias": True}
    model = make(**options, attention_bias=True, mlp_bias=True, max_position_embeddings=64)
    for name, parameter in model.named_parameters():
        check(model)
        parameter.data.add_(torch.randn_like(parameter))
        assert name
    check(model)


def test_dropout_and_a_soft_prompt_are_not_left_out():
    from peft import PromptTuningConfig, TaskType, get_peft_model

    model = make()
    check(model)
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=3)
    adapted = get_peft_model(model, config)
    adapted.prompt_encoder["default"].embedding.weight.data.mul_(20)
    found = [
        adapted.generate(input_ids=PROMPT, custom_generate=method, max_new_tokens=20, do_sample=False)
        for method in (None, fast_generate)
    ]
    assert found[0].tolist() == found[1].tolist()
    dropping = make(hidden_dropout=0.5).train()
    results = []
    for method in (None, fast_generate):
        torch.manual_seed(1)
        results.append(dropping.generate(PROMPT, custom_generate=method, max_new_tokens=20, do_sample=False).tolist())
    assert results[0] == results[1]


class Sampler(TrainerCallback):
    def __init__(self):
        self.found = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        model.eval()
        self.found.append(tokens_of(model)[0])
        model.train()


def test_in_the_midst_of_the_librarys_own_trainer(tmp_path):
    model, sampler = make(), Sampler()
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(3, 40, (12, 16))]
    quiet = {"report_to": [], "logging_strategy": "no", "save_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    settings = {"max_steps": 6, "learning_rate": 0.1, "per_device_train_batch_size": 2}
    arguments = TrainingArguments(str(tmp_path), **settings, **quiet)
    assert "fused" in arguments.optim
    Trainer(model, arguments, train_dataset=rows, callbacks=[sampler]).train()
    assert all(found == expected for expected, found in sampler.found)
    assert len({str(found) for found, _ in sampler.found}) > 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_digests_see_order_sign_and_type(dtype):
    base = torch.arange(24).reshape(4, 6).to(dtype)
    swapped, signs, turned = base.clone(), base.clone(), base.t().contiguous()
    swapped[[0, 2]] = swapped[[2, 0]]
    signs[1, :2] *= -1
    different = [base, swapped, signs, -base, turned, base.view(-1), base.flip(0, 1), base.to(torch.float64)]
    assert len({digests([one]) for one in different}) == len(different)
    assert digests([base.t()]) == digests([turned]) and digests([base]) == digests([copy.deepcopy(base)])
    assert digests(iter([base, swapped])) == digests([base, swapped]) != digests([swapped, base])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_sums_of_other_devices_see_order_and_signs(dtype, monkeypatch):
    from hf_gpt.generation.decoding import fingerprint as module

    monkeypatch.setattr(module, "_WORDS_TOGETHER", 7)
    base = torch.randn(6, 8).to(dtype)
    different = [base, -base, base.flip(0), base.flip(1), base.roll(1, 0)]
    for columns in (1, 2, 4):
        signs = base.clone()
        signs[0, :columns] *= -1
        different.append(signs)
    assert len({int(module._dot(one.reshape(-1))) for one in different}) == len(different)


@pytest.mark.skipif(not os.environ.get("HF_GPT_DEVICE_CHECK"), reason="for the device machine")
def test_on_the_device():
    model = make().cuda()
    before = fingerprint(model)
    swap_rows(model)
    assert fingerprint(model) != before
