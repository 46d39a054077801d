"""Where each weight of a family lies, in one table for both directions."""

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Module:
    """A module of another family and the modules of HfGpt that it stands for.

    Attributes:
        ours: Names without `weight` or `bias`; `{}` is the number of the layer. Several lie in one weight of the other
            family, one after the other along the outputs.
        theirs: Its name in the other family.
        is_conv1d: Whether its weight is kept as (inputs, outputs), GPT-2's `Conv1D`.
    """

    ours: tuple[str, ...]
    theirs: str
    is_conv1d: bool = False


@dataclass(frozen=True)
class TheirWeight:
    """A weight of another family.

    Attributes:
        name: Its name there.
        parts: The weights of HfGpt that lie in it, in their order.
        is_conv1d: Whether it is kept as (inputs, outputs).
    """

    name: str
    parts: tuple[str, ...]
    is_conv1d: bool


_OURS = "model.layers.{}."
_LLAMA = (
    "model.embed_tokens",
    *(
        f"{_OURS}{name}"
        for name in (
            "input_layernorm",
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.q_norm",
            "self_attn.k_norm",
            "self_attn.o_proj",
            "post_attention_layernorm",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        )
    ),
    "model.norm",
    "lm_head",
)
# Our modules are named as in Llama.
_LLAMA_MODULES = tuple(Module((name,), name) for name in _LLAMA)
_GPT2_BLOCK = (
    (("input_layernorm",), "ln_1", False),
    (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "attn.c_attn", True),
    (("self_attn.o_proj",), "attn.c_proj", True),
    (("post_attention_layernorm",), "ln_2", False),
    (("mlp.up_proj",), "mlp.c_fc", True),
    (("mlp.down_proj",), "mlp.c_proj", True),
)
_GPT2_MODULES = (
    Module(("model.embed_tokens",), "transformer.wte"),
    Module(("model.embed_positions",), "transformer.wpe"),
    *(
        Module(tuple(_OURS + part for part in ours), f"transformer.h.{{}}.{theirs}", is_conv1d)
        for ours, theirs, is_conv1d in _GPT2_BLOCK
    ),
    Module(("model.norm",), "transformer.ln_f"),
    Module(("lm_head",), "lm_head"),
)
MODULES: dict[str, tuple[Module, ...]] = {
    "hf_gpt": (*_LLAMA_MODULES, Module(("model.embed_positions",), "model.embed_positions")),
    "llama": _LLAMA_MODULES,
    "arcee": _LLAMA_MODULES,
    "mistral": _LLAMA_MODULES,
    "qwen2": _LLAMA_MODULES,
    "qwen3": _LLAMA_MODULES,
    "gpt2": _GPT2_MODULES,
    # https://github.com/karpathy/nanoGPT: GPT-2's names over ordinary linear layers.
    "nanogpt": tuple(replace(module, is_conv1d=False) for module in _GPT2_MODULES),
}
# What old checkpoints hold besides weights: masks and the tables of RoPE, which are computed.
COMPUTED = (r".*\.attn\.(bias|masked_bias)", r".*\.rotary_emb\.inv_freq")
# What stands before the names of the decoder in a language model, and is left out where the decoder was saved alone.
PREFIXES = {"gpt2": "transformer.", "nanogpt": "transformer."}
DEFAULT_PREFIX = "model."


def their_weights(model_type: str, num_hidden_layers: int) -> dict[str, TheirWeight]:
    """Every weight that a model of a family with so many layers may have, by its name."""
    found = {}
    for module in MODULES[model_type]:
        for layer in range(num_hidden_layers) if "{}" in module.theirs else [None]:
            for kind in ("weight", "bias"):
                name = f"{module.theirs.format(layer)}.{kind}"
                parts = tuple(f"{part.format(layer)}.{kind}" for part in module.ours)
                found[name] = TheirWeight(name, parts, module.is_conv1d and kind == "weight")
    return found


def by_our_names(found: Iterable[TheirWeight]) -> dict[str, TheirWeight]:
    """The place of each weight of HfGpt."""
    return {part: weight for weight in found for part in weight.parts}
