"""A model whose tensors are not what its configuration says gives what plain `generate` gives, and never a crash."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hf_gpt import fast_generate
from hf_gpt.generation.decoding.native.decoder import NativeWeights
from hf_gpt.generation.decoding.native.structures import native
from hf_gpt.generation.decoding.plain_decoder import can_decode, shapes_fit
from tests.generation.mutations import IDS, KINDS, MUTATIONS, compare, make, outcome


# Those that change what the kind has; without one the first will do.
_OF_A_KIND = {"position": "learned", "bias": "learned", "MLP": "gated", "key heads": "gated", "RoPE": "rope"}


def kind_of(name):
    return next((kind for part, kind in _OF_A_KIND.items() if part in name), "rope")


@pytest.mark.parametrize("name", MUTATIONS)
def test_generate_is_the_plain_one(name):
    assert compare(kind_of(name), MUTATIONS[name]) is None


@pytest.mark.parametrize("kind", KINDS)
def test_an_unchanged_model_is_decoded_by_our_steps(kind):
    model = make(kind)
    assert can_decode(model) and shapes_fit(model)


@pytest.mark.parametrize("name", ["a head that reads more", "narrow positions", "short values", "a short norm"])
def test_packing_refuses_tensors_of_other_shapes(name):
    if native() is None:
        pytest.skip("there is no C compiler")
    model = make(kind_of(name))
    MUTATIONS[name](model)
    with pytest.raises(ValueError, match="do not have the shapes"):
        NativeWeights(model)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", ["model.layers.0.mlp.up_proj", "model.layers.1.self_attn.o_proj", "lm_head"])
def test_int8_of_what_is_no_number_is_no_number(value, place):
    model = make("rope")
    if native() is None or not native().has_int8:
        pytest.skip("this processor multiplies no int8")
    with torch.no_grad():
        model.get_submodule(place).weight[3, 5] = value
    steps = NativeWeights(model, "int8").start(model, IDS, torch.ones_like(IDS), 2)
    logits = steps.next_logits()
    assert logits[:, 3].isnan().all() and (place == "lm_head" or logits.isnan().all())
    assert logits.isnan().sum() == (2 if place == "lm_head" else logits.numel())
    assert isinstance(outcome(model, custom_generate=fast_generate, weight_dtype="int8"), (list, str))


def test_int8_of_the_smallest_and_largest_numbers():
    model = make("rope")
    if native() is None or not native().has_int8:
        pytest.skip("this processor multiplies no int8")
    with torch.no_grad():
        model.lm_head.weight[0] = 1e-44
        model.lm_head.weight[1] = 3.4e38
        model.lm_head.weight[2] = 0
    logits = NativeWeights(model, "int8").start(model, IDS, torch.ones_like(IDS), 1).next_logits()
    assert logits[:, [0, 2]].abs().max() < 1e-30 and not logits[:, 3:].isnan().any()


def sanitizer(name):
    path = subprocess.run(
        ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return path if os.path.isabs(path) else None


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
def test_random_mutations_under_a_sanitizer(tmp_path):
    libraries = [sanitizer("libasan.so"), sanitizer("libstdc++.so.6")]
    if None in libraries:
        pytest.skip("there is no address sanitizer")
    checks = "-fsanitize=address,signed-integer-overflow,float-cast-overflow -fno-sanitize-recover=all"
    environment = {
        **os.environ,
        "CC": f"gcc {checks}",
        "XDG_CACHE_HOME": str(tmp_path),
        "ASAN_OPTIONS": "detect_leaks=0",
        "LD_PRELOAD": " ".join(libraries),
    }
    script = Path(__file__).with_name("mutations.py")
    command = [sys.executable, str(script), "0", "60"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert list(tmp_path.rglob("*.so")), "nothing was compiled"
