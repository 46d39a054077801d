import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from hf_gpt import HfGptConfig
from hf_gpt.cli.main import main
from hf_gpt.models import layers_hf_gpt, loss_hf_gpt
from hf_gpt.models.configuration_hf_gpt import PRESETS
from hf_gpt.training.monitoring import cost_model as planning
from hf_gpt.training.optim.muon_adamw import build_muon_adamw, parameter_roles


SMALL = {
    "vocab_size": 320,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GPT2 = {
    "position_embedding_type": "learned",
    "norm_type": "layernorm",
    "hidden_act": "gelu",
    "use_qk_norm": False,
    "attention_bias": True,
    "mlp_bias": True,
}
LLAMA = {
    "hidden_act": "silu",
    "is_gated_act": True,
    "use_qk_norm": False,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
VARIANTS = {"default": {}, "gpt2": GPT2, "llama": LLAMA, "narrow heads": {"head_dim": 8, "norm_bias": False}}
variants = pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)


def make_model(config, **options):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, **options)


def batch(config, rows=2, length=32):
    ids = torch.arange(rows * length).view(rows, length) % config.vocab_size
    positions = torch.arange(length).expand(rows, length)
    return {"input_ids": ids, "position_ids": positions, "labels": ids, "use_cache": False}


def assert_counts_equal(config, model):
    roles = parameter_roles(model)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    counted = planning.count_parameters(config)
    by_role = {role: sum(sizes[name] for name in sizes if roles[name] == role) for role in set(roles.values())}
    assert counted.total == sum(sizes.values())
    assert counted.hidden == by_role["hidden"] and counted.vectors == by_role["vector"]
    assert counted.embedding == by_role["embedding"] and counted.head == by_role.get("matrix", 0)
    assert counted.block == sum(parameter.numel() for parameter in model.model.layers[0].parameters())


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_of_every_preset(preset):
    config = HfGptConfig.preset(preset)
    with torch.device("meta"):
        assert_counts_equal(config, AutoModelForCausalLM.from_config(config))


@variants
def test_parameters_of_every_family(overrides):
    config = HfGptConfig(**{**SMALL, **overrides})
    assert_counts_equal(config, make_model(config))


@pytest.mark.parametrize("checkpointing", [False, True])
@variants
def test_flops_are_those_that_pytorch_counts(overrides, checkpointing):
    # The counter does not see products that are written into a given tensor, as those of the chunked loss.
    config = HfGptConfig(**{**SMALL, **overrides}, chunked_loss="never")
    model = make_model(config, attn_implementation="eager").train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    inputs = batch(config)
    with FlopCounterMode(display=False) as counter:
        model(**inputs).loss.backward()
    planned = planning.training_flops_per_token(config, 32, gradient_checkpointing=checkpointing) * 64
    assert planned == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("optimizer_name", ["muon", "adamw"])
@variants
def test_state_has_the_planned_bytes(overrides, optimizer_name):
    config = HfGptConfig(**{**SMALL, **overrides})
    model = make_model(config)
    model(**batch(config)).loss.backward()
    if optimizer_name == "muon":
        optimizer = build_muon_adamw(model, learning_rate=1e-3)
    else:
        optimizer = torch.optim.AdamW(model.parameters())
    optimizer.step()
    parameters = list(model.parameters())
    state = [tensor for values in optimizer.state.values() for tensor in values.values() if torch.is_tensor(tensor)]
    planned = planning.memory_per_device(
        config, sharding="ddp", devices=1, batch_size=2, max_length=32, optimizer=optimizer_name
    )
    assert sum(p.grad.nbytes for p in parameters) == planned.gradients
    assert sum(tensor.nbytes for tensor in state if tensor.ndim) == planned.optimizer
    in_full = planning.memory_per_device(
        config, sharding="ddp", devices=1, batch_size=2, max_length=32, compute_bytes=4
    )
    assert sum(p.nbytes for p in parameters) == in_full.weights


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@variants
def test_activations_are_those_that_autograd_keeps(monkeypatch, overrides, checkpointing, bf16):
    # As on a GPU: in float32 on a CPU norm and squared ReLU have gradients of their own, which keep less.
    monkeypatch.setattr(layers_hf_gpt, "is_plain", lambda x: False)

    def kept(layers):
        config = HfGptConfig(**{**SMALL, **overrides, "num_hidden_layers": layers}, chunked_loss="always")
        model = make_model(config, attn_implementation="sdpa").train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        storages = {}

        def remember(tensor):
            storage = tensor.untyped_storage()
            # Copies of weights, which autocast makes, are counted with the weights.
            is_copy = tensor.dtype == torch.bfloat16 and tuple(tensor.shape) in shapes
            if storage.data_ptr() not in weights and not is_copy:
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        shapes = {shape for p in model.parameters() for shape in (tuple(p.shape), tuple(reversed(p.shape)))}
        hooks = torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            held = model(**batch(config, rows=3, length=30))
        return sum(storages.values()), held

    config = HfGptConfig(**{**SMALL, **overrides})
    block = planning.activation_bytes_per_token(config, 2 if bf16 else 4)
    planned = 4 * config.hidden_size if checkpointing else block
    assert (kept(3)[0] - kept(2)[0]) / 90 == pytest.approx(planned, rel=0.12)


def test_sharding_saves_what_it_should():
    config, sizes = HfGptConfig.preset("1b"), {"devices": 8, "batch_size": 1, "max_length": 1024}
    found = {
        sharding: planning.memory_per_device(config, sharding=sharding, tensor_parallel_size=8, **sizes)
        for sharding in planning.SHARDINGS
    }
    assert found["zero3"].total < found["zero2"].total < found["zero1"].total < found["ddp"].total
    assert found["fsdp2"].total < found["zero2"].total and found["tp"].total < found["ddp"].total
    assert found["fsdp2"].optimizer * 8 == found["ddp"].optimizer
    # AdamW's two numbers and a float32 master for each weight, while Muon keeps one number for most.
    assert found["zero1"].optimizer * 8 == 12 * planning.count_parameters(config).total
    plain = planning.memory_per_device(config, sharding="ddp", chunked_loss=False, **sizes)
    checkpointed = planning.memory_per_device(config, sharding="ddp", gradient_checkpointing=True, **sizes)
    assert plain.loss > found["ddp"].loss and checkpointed.activations < found["ddp"].activations / 4


def test_the_chunk_is_the_loss_functions():
    assert planning.LOSS_CHUNK_ELEMENTS == loss_hf_gpt.CHUNK_ELEMENTS


def test_the_command(capsys):
    argv = ["plan", "--preset", "1b", "--tokens", "20b", "--gpus", "64", "--gpu", "h100"]
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert "64 x h100" in text and "fsdp2" in text and "assumed" in text
    assert main([*argv, "--json", "--mfu", "0.5", "--price", "1"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["cost"] == pytest.approx(plan["gpu_hours"]) and plan["tokens"] == 20e9
    assert plan["seconds"] == pytest.approx(plan["flops"]["total"] / (989e12 * 64 * 0.5))
    assert len(plan["memory"]) == 24


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--preset", "2b"], "no preset '2b'"),
        (["--gpu", "h10"], "did you mean h100?"),
        (["--tokens", "many"], "cannot read 'many'"),
        (["--mfu", "40"], "--mfu must be above 0 and at most 1, got 40"),
        (["--gpus", "0"], "--gpus must be at least 1"),
        (["--max_length", "-5"], "--max_length must be at least 1"),
        (["--config_overrides", "hidden_sise=3"], "did you mean hidden_size?"),
        (["--gpus", "6", "--tensor_parallel_size", "4"], "must divide"),
    ],
)
def test_settings_that_cannot_be_planned_with(argv, message, capsys):
    assert main(["plan", *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
