"""What a user may do to a loaded model, such that its tensors are not those that its configuration speaks of.

As a program, `mutations.py [SEED COUNT]` compares `generate` by compiled steps with plain `generate` for each, and for
random changes of shapes. `test_mutated_models.py` runs it under a sanitizer.
"""

import contextlib
import random
import sys
from collections.abc import Callable

import torch
from torch import nn

from hf_gpt import HfGptConfig, HfGptForCausalLM, fast_generate
from hf_gpt.generation.sampling.activation_cache import ActivationCache
from tests.sampling_options import rollout


IDS = torch.tensor([[5, 6, 7], [8, 9, 10]])
KINDS = {
    "rope": {},
    "learned": {"position_embedding_type": "learned", "norm_type": "layernorm", "attention_bias": True},
    "gated": {"hidden_act": "silu", "is_gated_act": True, "num_key_value_heads": 2, "mlp_bias": True},
}


def make(kind: str) -> HfGptForCausalLM:
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    common = {"max_position_embeddings": 16, "initializer_range": 0.2, "tie_word_embeddings": False}
    return HfGptForCausalLM(HfGptConfig(**sizes, **common, intermediate_size=64, **KINDS[kind])).eval()


def raised_positions(model):
    model.config.max_position_embeddings = 4096


def fewer_layers(model):
    model.model.layers = model.model.layers[:1]


def fewer_layers_than_said(model):
    model.model.layers = model.model.layers[:1]
    model.config.num_hidden_layers = 3


def set_config(**values):
    def change(model):
        for name, value in values.items():
            setattr(model.config, name, value)

    return change


def set_module(path: str, make_module: Callable[[], nn.Module]):
    def change(model):
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, make_module())

    return change


def set_parameter(path: str, *shape: int):
    def change(model):
        module, _, name = path.rpartition(".")
        setattr(model.get_submodule(module), name, nn.Parameter(torch.randn(shape)))

    return change


MUTATIONS: dict[str, Callable] = {
    "fewer layers": fewer_layers,
    "fewer layers, more said": fewer_layers_than_said,
    "more layers said": set_config(num_hidden_layers=5),
    "fewer layers said": set_config(num_hidden_layers=1),
    "no layers": lambda model: setattr(model.model, "layers", nn.ModuleList()),
    "more positions said": raised_positions,
    "fewer positions": set_module("model.embed_positions", lambda: nn.Embedding(4, 32)),
    "narrow positions": set_module("model.embed_positions", lambda: nn.Embedding(16, 8)),
    "a head of more tokens": set_module("lm_head", lambda: nn.Linear(32, 80, bias=False)),
    "a head of fewer tokens": set_module("lm_head", lambda: nn.Linear(32, 20, bias=False)),
    "a head that reads more": set_module("lm_head", lambda: nn.Linear(64, 40, bias=False)),
    "a head that reads less": set_module("lm_head", lambda: nn.Linear(8, 40, bias=False)),
    "a head's short bias": set_parameter("lm_head.bias", 3),
    "fewer embeddings": set_module("model.embed_tokens", lambda: nn.Embedding(8, 32)),
    "narrow embeddings": set_module("model.embed_tokens", lambda: nn.Embedding(40, 8)),
    "wide embeddings": set_module("model.embed_tokens", lambda: nn.Embedding(40, 128)),
    "another width said": set_config(hidden_size=512),
    "more heads said": set_config(num_attention_heads=8),
    "more key heads said": set_config(num_key_value_heads=8),
    "wider heads said": set_config(head_dim=64),
    "a wider MLP said": set_config(intermediate_size=8),
    "a wider MLP": lambda model: [change(model) for change in _WIDER],
    "a wider input of an MLP": set_module("model.layers.1.mlp.up_proj", lambda: nn.Linear(32, 256, bias=False)),
    "a narrow output of an MLP": set_module("model.layers.1.mlp.down_proj", lambda: nn.Linear(64, 8, bias=False)),
    "an MLP of two rows": set_parameter("model.layers.0.mlp.down_proj.weight", 2, 64),
    "short values": set_module("model.layers.0.self_attn.v_proj", lambda: nn.Linear(32, 8, bias=False)),
    "long values": set_module("model.layers.1.self_attn.v_proj", lambda: nn.Linear(32, 320, bias=False)),
    "short queries under their name": set_parameter("model.layers.0.self_attn.q_proj.weight", 8, 32),
    "a bias of keys alone": set_parameter("model.layers.0.self_attn.k_proj.bias", 32),
    "a short bias of queries": set_parameter("model.layers.0.self_attn.q_proj.bias", 2),
    "an output that reads less": set_module("model.layers.0.self_attn.o_proj", lambda: nn.Linear(16, 32, bias=False)),
    "a short norm": set_parameter("model.norm.weight", 4),
    "a norm of one number": set_parameter("model.layers.0.input_layernorm.weight", 1),
    "a short norm of heads": set_parameter("model.layers.1.self_attn.q_norm.weight", 2),
    "RoPE of narrow heads": lambda model: setattr(model.model.rotary_emb, "inv_freq", nn.Buffer(torch.ones(1))),
    "resized embeddings": lambda model: model.resize_token_embeddings(20),
    "a NaN": lambda model: model.model.layers[0].mlp.up_proj.weight.data.fill_(torch.nan),
    "an infinity": lambda model: model.model.layers[1].self_attn.o_proj.weight.data[3].fill_(torch.inf),
    "large weights": lambda model: model.model.layers[1].mlp.up_proj.weight.data.mul_(1e38),
}
_WIDER = [
    set_module("model.layers.1.mlp.up_proj", lambda: nn.Linear(32, 200, bias=False)),
    set_module("model.layers.1.mlp.gate_proj", lambda: nn.Linear(32, 200, bias=False)),
    set_module("model.layers.1.mlp.down_proj", lambda: nn.Linear(200, 32, bias=False)),
]


def random_change(seed: int) -> Callable:
    """A parameter of other sizes, a module that another one replaces, or a number of the configuration."""

    def change(model):
        chance = random.Random(seed)
        kind = chance.randrange(3)
        if kind == 0:
            name, parameter = chance.choice(list(model.named_parameters()))
            shape = [chance.choice([size, size, 1, 2 * size, max(1, size - 1)]) for size in parameter.shape]
            set_parameter(name, *shape)(model)
        elif kind == 1:
            names = [name for name, module in model.named_modules() if name and "." in name]
            first, second = chance.sample(names, 2)
            parent, _, name = first.rpartition(".")
            setattr(model.get_submodule(parent), name, model.get_submodule(second))
        else:
            numbers = [name for name, value in model.config.to_dict().items() if type(value) is int]
            setattr(model.config, chance.choice(numbers), chance.choice([0, 1, 3, 8, 64, 1000]))

    return change


@torch.no_grad()
def outcome(model: HfGptForCausalLM, **options):
    """The tokens, or the class of the error. Those of models that are NaN mean nothing."""
    torch.manual_seed(0)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, **options}
    try:
        return model.generate(IDS, attention_mask=torch.ones_like(IDS), **options).tolist()
    except Exception as error:
        return type(error).__name__


def compare(kind: str, change: Callable) -> str | None:
    """What differs by compiled steps for a changed model; None if nothing. Options of the types only must not crash."""
    changed = []
    for _ in range(2):
        model = make(kind)
        try:
            change(model)
        except Exception:
            return None
        changed.append(model)
    plain, fast = outcome(changed[0]), outcome(changed[1], custom_generate=fast_generate)
    # A second time with kept weights, in other types, and with an activation cache.
    again = outcome(changed[1], custom_generate=fast_generate)
    for weight_dtype in ("bfloat16", "int8"):
        outcome(changed[1], custom_generate=fast_generate, weight_dtype=weight_dtype)
    # As a plain pass it may refuse.
    with contextlib.suppress(Exception):
        rollout(changed[1], IDS, max_new_tokens=6, eos_token_id=2, temperature=0, activation_cache=ActivationCache())
    return None if plain == fast == again else f"plain {plain}, fast {fast}, again {again}"


def main(seed: int = 0, count: int = 0) -> int:
    """The number of changes after which something differs."""
    changes = {**MUTATIONS, **{f"random {number}": random_change(number) for number in range(seed, seed + count)}}
    faults = 0
    for name, change in changes.items():
        for kind in KINDS:
            print(f"{name}, {kind}", file=sys.stderr, flush=True)
            found = compare(kind, change)
            if found is not None:
                faults += 1
                print(f"FAULT {name}, {kind}: {found}", flush=True)
    print(f"{len(changes) * len(KINDS)} changed models, {faults} faults")
    return faults


if __name__ == "__main__":
    torch.set_num_threads(2)
    sys.exit(int(main(*map(int, sys.argv[1:])) > 0))
