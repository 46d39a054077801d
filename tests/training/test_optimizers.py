import copy
import io

import pytest
import torch
from torch import nn
from transformers import get_scheduler

from hf_gpt.training.optim import muon
from hf_gpt.training.optim.muon import orthogonalize
from hf_gpt.training.optim.muon_adamw import MuonAdamW, build_muon_adamw, decayed_parameter_names, parameter_roles


def names_with(model, role):
    return sorted(name for name, found in parameter_roles(model).items() if found == role)


@pytest.mark.parametrize("model_type", ["hf_gpt", "llama"])
def test_roles(make_model, model_type):
    model = make_model(model_type, tie_word_embeddings=False)
    assert names_with(model, "embedding") == ["model.embed_tokens.weight"]
    assert names_with(model, "matrix") == ["lm_head.weight"]
    assert all("proj" in name for name in names_with(model, "hidden"))
    assert all("norm" in name for name in names_with(model, "vector"))
    assert len(parameter_roles(model)) == len(list(model.parameters()))


def test_tied_head_is_an_embedding_once(make_model):
    model = make_model(tie_word_embeddings=True)
    assert names_with(model, "embedding") == ["model.embed_tokens.weight"] and names_with(model, "matrix") == []
    optimizer = build_muon_adamw(model, learning_rate=1e-3)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert len(held) == len(set(held)) == len(list(model.parameters()))


def test_classifier_head_is_left_to_adamw():
    from transformers import LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig(vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    assert names_with(LlamaForSequenceClassification(config), "matrix") == ["score.weight"]


def test_frozen_parameters_are_left_out(make_model):
    model = make_model()
    model.model.embed_tokens.weight.requires_grad_(False)
    assert names_with(model, "embedding") == []


def test_weight_decay_applies_to_matrices_only(make_model):
    model = make_model(tie_word_embeddings=False)
    names = decayed_parameter_names(model)
    assert "lm_head.weight" in names and "model.embed_tokens.weight" not in names
    for group in build_muon_adamw(model, learning_rate=1e-3, weight_decay=0.1).param_groups:
        assert group["weight_decay"] == (
            0.1 if all(p.ndim == 2 for p in group["params"]) and len(group["params"]) != 6 else 0.0
        )


def make_problem(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 11))
    return model, build_muon_adamw(model, learning_rate=1e-2, muon_learning_rate=3e-2, weight_decay=0.1)


def run(model, optimizer, scheduler, steps, first=0):
    for step in range(first, first + steps):
        x = torch.randint(0, 11, (16,), generator=torch.Generator().manual_seed(step))
        nn.functional.cross_entropy(model(x), (x + 1) % 11).backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()


def schedule_of(optimizer):
    return get_scheduler("cosine", optimizer, num_warmup_steps=2, num_training_steps=20)


@pytest.mark.parametrize("in_bfloat16", [True, False])
def test_equals_the_two_optimizers_apart(monkeypatch, in_bfloat16):
    monkeypatch.setattr(muon, "prefers_bfloat16", lambda device_type: in_bfloat16)
    model, optimizer = make_problem()
    twin = copy.deepcopy(model)
    groups = [{k: v for k, v in group.items() if k != "use_muon"} for group in optimizer.param_groups]
    twins = dict(zip(model.parameters(), twin.parameters(), strict=True))
    for group in groups:
        group["params"] = [twins[parameter] for parameter in group["params"]]
    adamw = torch.optim.AdamW(groups[:-1])
    apart = torch.optim.Muon(groups[-1:])
    for step in range(5):
        x = torch.randint(0, 11, (16,), generator=torch.Generator().manual_seed(step))
        for net, optimizers in ((model, [optimizer]), (twin, [adamw, apart])):
            nn.functional.cross_entropy(net(x), (x + 1) % 11).backward()
            for one in optimizers:
                one.step()
                one.zero_grad()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        if in_bfloat16:
            assert torch.equal(a, b)
        else:
            torch.testing.assert_close(a, b, rtol=0, atol=5e-3)


@pytest.mark.parametrize("shape", [(16, 16), (16, 20), (12, 48), (48, 12), (3, 1), (1, 1)])
def test_orthogonalize_is_the_newton_schulz_iteration(shape):
    a, b, c = 3.4445, -4.7750, 2.0315
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape)
    # Nearly of rank one: small singular values, whose squares vanish in A.
    matrices[1] = matrices[1, :, :1] @ matrices[1, :1] + 1e-4 * torch.randn(shape)
    given = matrices.clone()
    found = orthogonalize(matrices, (a, b, c), 5, 1e-7)
    assert torch.equal(matrices, given)
    for one, factor in zip(matrices.double(), found, strict=True):
        x = one / one.norm()
        for _ in range(5):
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        torch.testing.assert_close(factor.double(), x, rtol=0, atol=2e-4)


def test_matrices_are_stacked_by_shape_within_bounds(monkeypatch):
    monkeypatch.setattr(muon, "_STACK_ELEMENTS", 100)
    matrices = [torch.zeros(shape) for shape in ((4, 8), (8, 8), (4, 8), (4, 8), (4, 8), (20, 20))]
    stacks = list(muon._stacks(matrices))
    assert [len(stack) for stack in stacks] == [3, 1, 1, 1]
    assert all(len({matrix.shape for matrix in stack}) == 1 for stack in stacks)


def test_learns_and_schedules_every_group():
    model, optimizer = make_problem()
    scheduler = schedule_of(optimizer)
    before = [group["initial_lr"] for group in optimizer.param_groups]
    assert sorted(set(before)) == [1e-2, 3e-2]
    x = torch.arange(11)
    loss = nn.functional.cross_entropy(model(x), (x + 1) % 11).item()
    run(model, optimizer, scheduler, 11)
    factors = {round(group["lr"] / group["initial_lr"], 9) for group in optimizer.param_groups}
    assert len(factors) == 1 and factors != {1.0}
    assert nn.functional.cross_entropy(model(x), (x + 1) % 11) < loss - 0.3


def test_resume_equals_a_straight_run_bit_for_bit():
    straight, optimizer = make_problem()
    run(straight, optimizer, schedule_of(optimizer), 12)

    model, optimizer = make_problem()
    scheduler = schedule_of(optimizer)
    run(model, optimizer, scheduler, 5)
    buffer = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), scheduler.state_dict()], buffer)
    buffer.seek(0)
    states = torch.load(buffer, weights_only=True)

    resumed, optimizer = make_problem(seed=1)
    scheduler = schedule_of(optimizer)
    for part, state in zip((resumed, optimizer, scheduler), states, strict=True):
        part.load_state_dict(state)
    run(resumed, optimizer, scheduler, 7, first=5)
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_copies_and_pickles(tmp_path):
    model, optimizer = make_problem()
    run(model, optimizer, schedule_of(optimizer), 2)
    pair = copy.deepcopy((model, optimizer))
    for net, opt in ((model, optimizer), pair):
        run(net, opt, schedule_of(opt), 2)
    for a, b in zip(model.parameters(), pair[0].parameters(), strict=True):
        assert torch.equal(a, b)


def test_added_group():
    _, optimizer = make_problem()
    extra = nn.Parameter(torch.ones(3))
    optimizer.add_param_group({"params": [extra], "lr": 0.1})
    extra.grad = torch.ones(3)
    optimizer.step()
    assert not torch.equal(extra, torch.ones(3))


def test_closure_is_called_once():
    _, optimizer = make_problem()
    calls = []
    optimizer.step(lambda: calls.append(1) or torch.tensor(1.0))
    assert len(calls) == 1


def test_either_part_may_be_empty():
    vector = nn.Parameter(torch.ones(3))
    matrix = nn.Parameter(torch.ones(3, 3))
    for optimizer, parameter in (
        (MuonAdamW([], [{"params": [vector], "lr": 0.1}]), vector),
        (MuonAdamW([{"params": [matrix], "lr": 0.1}], []), matrix),
    ):
        parameter.grad = torch.eye(3) if parameter.ndim == 2 else torch.ones(3)
        optimizer.step()
        assert not torch.equal(parameter, torch.ones_like(parameter))


def test_weights_in_shards_of_deepspeed_keep_their_roles(make_model):
    model = make_model()
    expected = decayed_parameter_names(model)
    assert expected
    for parameter in model.parameters():
        # As `deepspeed.zero` leaves them.
        parameter.ds_shape, parameter.data = parameter.shape, torch.empty(0)
    assert decayed_parameter_names(model) == expected
