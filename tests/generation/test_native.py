"""Compiled decoding steps: threads, numbers of rows, types against those of PyTorch, and whatever a compiler may do."""

import concurrent.futures
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.generation.decoding import cached_decoder as decoding
from hf_gpt.generation.decoding.cached_decoder import DecoderWeights, make_weights
from hf_gpt.generation.decoding.linear import check_weight_dtype, make_linear
from hf_gpt.generation.decoding.native import build, memory
from hf_gpt.generation.decoding.native.decoder import NativeWeights, takes
from hf_gpt.generation.decoding.native.structures import native
from hf_gpt.generation.sampling.distribution import SamplingConfig
from hf_gpt.generation.sampling.inverse_cdf import sample
from tests.sampling_options import rollout


@pytest.fixture
def threads():
    """Sets the number of threads, and sets it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _built_anew():
    yield
    build._built.cache_clear()


@pytest.fixture
def compiled():
    if native() is None:
        pytest.skip("there is no C compiler")


def make(**switches) -> HfGptForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
    return HfGptForCausalLM(HfGptConfig(**{"vocab_size": 300, "initializer_range": 0.2, **sizes, **switches})).eval()


def need(weight_dtype):
    try:
        check_weight_dtype(weight_dtype, torch.device("cpu"))
    except ValueError as error:
        pytest.skip(str(error))


@pytest.fixture
def reference_int8(monkeypatch):
    """`DecoderWeights` in int8 by the definition of `make_linear`, so that it is there on every processor."""

    def linear(weight, bias, weight_dtype, rows):
        if weight_dtype != "int8":
            return make_linear(weight, bias, weight_dtype, rows)
        scale = weight.double().abs().amax(1).clamp(min=1e-30) / 127
        steps = (weight.double() / scale[:, None]).round()
        bias = 0 if bias is None else bias

        def multiply(inputs):
            largest = inputs.double().abs().amax(-1, keepdim=True).clamp(min=1e-30)
            rounded = (inputs.double() * 127 / largest).round()
            return (rounded @ steps.t() * scale * largest / 127 + bias).float()

        return multiply

    monkeypatch.setattr(decoding, "make_linear", linear)


@torch.no_grad()
def logits_of(weights, model, ids, tokens):
    steps = weights.start(model, ids, torch.ones_like(ids), tokens.shape[1] + 1)
    found = [steps.next_logits().clone()]
    for samples in tokens.unbind(1):
        steps.append(samples)
        found.append(steps.next_logits().clone())
    return torch.stack(found, 1)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("weight_dtype", [None, "bfloat16", "int8"])
@pytest.mark.parametrize("rows", [1, 3, 8, 13, 64])
def test_a_row_is_the_same_to_the_last_bit_in_any_batch_and_by_any_number_of_threads(threads, rows, weight_dtype):
    need(weight_dtype)
    # More work than one thread is given.
    model = make(intermediate_size=8192 // rows + 5)
    ids, tokens = torch.randint(0, 300, (64, 5)), torch.randint(0, 300, (64, 6))
    threads(1)
    weights = make_weights(model, weight_dtype, rows)
    assert isinstance(weights, NativeWeights)
    expected = logits_of(weights, model, ids, tokens)[:rows]
    for count in (2, 3):
        threads(count)
        found = logits_of(make_weights(model, weight_dtype, rows), model, ids[:rows], tokens[:rows])
        assert found.equal(expected)


@pytest.mark.usefixtures("compiled", "reference_int8")
@pytest.mark.parametrize(("weight_dtype", "tolerance"), [(None, 1e-5), ("bfloat16", 0.06), ("int8", 0.2)])
def test_types_mean_what_they_mean_in_pytorch(weight_dtype, tolerance):
    """Errors against the exact logits are as large as those of PyTorch's steps, and the logits are near to those."""
    need(weight_dtype)
    model = make(initializer_range=0.1)
    ids, tokens = torch.randint(0, 300, (4, 6)), torch.randint(0, 300, (4, 8))
    found, theirs, exact = (
        logits_of(weights, model, ids, tokens)
        for weights in (
            NativeWeights(model, weight_dtype),
            DecoderWeights(model, weight_dtype, 4),
            DecoderWeights(model, None, 4),
        )
    )
    scale = exact.std()
    assert (found - exact).abs().max() <= tolerance * scale
    assert (found - exact).std() <= 1.5 * (theirs - exact).std() + 1e-6 * scale
    assert (found - theirs).std() <= 2 * (theirs - exact).std() + 1e-6 * scale


@pytest.mark.usefixtures("compiled", "reference_int8")
def test_int8_is_rounded_as_by_definition():
    """One product alone, by an identity in front of it: the same steps of weights and inputs, so the same result."""
    need("int8")
    model = make(num_hidden_layers=1, tie_word_embeddings=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
    ids = torch.randint(0, 300, (5, 1))
    tokens = torch.randint(0, 300, (5, 3))
    found, theirs = (
        logits_of(weights, model, ids, tokens)[:, 1:]
        for weights in (NativeWeights(model, "int8"), DecoderWeights(model, "int8", 5))
    )
    exact = logits_of(DecoderWeights(model, None, 5), model, ids, tokens)[:, 1:]
    # A norm that differs in its last digit moves an input by a step now and then.
    assert (found - theirs).std() < 0.1 * (theirs - exact).std()


# Flags that leave out what a processor may lack, and the floats that a register then holds at most.
_PROCESSORS = {"": 16, "-DHF_GPT_PAIRS=1": 16, "-DHF_GPT_PAIRS=0": 16, "-mno-avx512f": 8, "-mno-avx": 4}
_BUILDS = [
    pytest.param(compiler, flags, marks=[] if (compiler, flags) == ("cc", "-mno-avx512f") else pytest.mark.slow)
    for compiler in ("cc", "clang")
    for flags in _PROCESSORS
]


@pytest.mark.parametrize(("compiler", "flags"), _BUILDS)
def test_builds_for_other_processors_and_by_other_compilers(fresh, monkeypatch, threads, compiler, flags):
    """Logits of all types against PyTorch's, rows alone against rows in a batch, and draws."""
    if shutil.which(compiler) is None or (flags.startswith("-m") and platform.machine() not in ("x86_64", "AMD64")):
        pytest.skip("there is no such compiler or processor")
    monkeypatch.setenv("CC", f"{compiler} {flags}")
    assert native().lanes <= _PROCESSORS[flags] and len(list(fresh.glob("*.so"))) == 1
    threads(2)
    # Widths that are no multiple of anything.
    odd = {"hidden_size": 60, "intermediate_size": 155, "head_dim": 18, "vocab_size": 301}
    gated = {"hidden_act": "silu", "is_gated_act": True, "num_key_value_heads": 2, "mlp_bias": True}
    for switches in ({}, odd, {**gated, "norm_type": "layernorm", "attention_bias": True}):
        model = make(**{"initializer_range": 0.1, **switches})
        ids, tokens = torch.randint(0, 300, (13, 6)), torch.randint(0, 300, (13, 20))
        exact = logits_of(DecoderWeights(model, None, 13), model, ids, tokens)
        for weight_dtype, tolerance in ((None, 2e-5), ("bfloat16", 0.06), ("int8", 0.2)):
            if not takes(model, weight_dtype):
                assert weight_dtype == "int8"
                continue
            weights = NativeWeights(model, weight_dtype)
            found = logits_of(weights, model, ids, tokens)
            assert (found - exact).abs().max() <= tolerance * exact.std()
            assert logits_of(weights, model, ids[2:3], tokens[2:3]).equal(found[2:3])
    logits, uniforms = exact[:, -1].contiguous(), torch.rand(13, dtype=torch.float64)
    samples, logps = sample(logits, uniforms, SamplingConfig())[:2]
    likely = sample(logits, uniforms, SamplingConfig(temperature=0)).tokens
    monkeypatch.setenv("HF_GPT_NATIVE", "0")
    expected, expected_logps = sample(logits, uniforms, SamplingConfig())[:2]
    assert samples.equal(expected) and likely.equal(logits.argmax(-1))
    torch.testing.assert_close(logps, expected_logps, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("compiled")
def test_prompts_longer_than_a_slice_and_of_many_lengths():
    model = make(sliding_window=40, layer_types=["sliding_attention", "full_attention"], num_key_value_heads=2)
    mask = torch.ones(13, 50, dtype=torch.int64)
    for row in range(13):
        mask[row, : 3 * row] = 0
    ids = torch.randint(0, 300, mask.shape)
    # Two rows share a prompt, and the cache that was filled for it.
    ids[4], mask[4] = ids[2], mask[2]
    steps = NativeWeights(model).start(model, ids, mask, 3)
    with torch.no_grad():
        for _ in range(3):
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            expected = model(ids, attention_mask=mask, position_ids=positions, use_cache=False).logits[:, -1]
            torch.testing.assert_close(steps.next_logits(), expected, rtol=1e-5, atol=2e-5)
            samples = torch.randint(0, 300, (13,))
            ids, mask = torch.cat([ids, samples[:, None]], 1), torch.cat([mask, torch.ones_like(samples)[:, None]], 1)
            steps.append(samples)


@pytest.mark.usefixtures("compiled")
def test_ids_and_positions_that_do_not_exist():
    model = make(position_embedding_type="learned")
    ids = torch.randint(0, 300, (2, 3))
    steps = NativeWeights(model).start(model, ids, torch.ones_like(ids), 1)
    with pytest.raises(ValueError, match=r"holds 300.*vocab_size=300"):
        NativeWeights(model).start(model, ids.fill_diagonal_(300), torch.ones_like(ids), 1).next_logits()
    ids.fill_(1)
    steps.next_logits()
    steps.append(torch.tensor([5, -1]))
    with pytest.raises(ValueError, match="holds -1"):
        steps.next_logits()
    steps.append(torch.tensor([5, 1]))
    steps.next_logits()
    with pytest.raises(IndexError, match="position 4"):
        steps.next_logits()


@pytest.mark.usefixtures("compiled")
def test_what_is_not_finite_stays_so():
    model = make()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 5] = torch.nan
    ids = torch.randint(0, 300, (2, 3))
    steps = NativeWeights(model).start(model, ids, torch.ones_like(ids), 1)
    assert steps.next_logits().isnan().all()
    logits = torch.tensor([[0.0, torch.nan, 1.0], [-torch.inf] * 3, [torch.inf, 0.0, 1.0]])
    tokens = sample(logits, torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64), SamplingConfig()).tokens
    assert ((tokens >= 0) & (tokens < 3)).all()


@pytest.mark.usefixtures("compiled")
def test_activations_and_masses_against_pytorch():
    """Over the whole range, by a model whose MLP shows its activation: logits of one hidden unit are its values."""
    for name in ("silu", "gelu", "gelu_new", "relu2"):
        model = make(hidden_act=name, hidden_size=16, initializer_range=2.0, num_hidden_layers=1)
        ids = torch.arange(60).view(60, 1)
        steps = NativeWeights(model).start(model, ids, torch.ones_like(ids), 1)
        with torch.no_grad():
            torch.testing.assert_close(steps.next_logits(), model(ids).logits[:, -1], rtol=2e-5, atol=2e-4)
    logits = torch.linspace(-200, 80, 5000)[None]
    logits[0, 7] = -torch.inf
    for token in (0, 7, 2500, 4999):
        uniforms = torch.tensor([0.5], dtype=torch.float64)
        shifted = logits.clone()
        shifted[0, token] = 300
        samples, logps = sample(shifted, uniforms, SamplingConfig())[:2]
        assert samples.item() == token and abs(logps.item()) < 1e-6


@pytest.mark.usefixtures("compiled")
def test_several_callers_at_the_same_time_and_more_threads_than_cores(threads):
    model = make(intermediate_size=2048)
    ids, tokens = torch.randint(0, 300, (16, 5)), torch.randint(0, 300, (16, 12))
    threads(1)
    weights = NativeWeights(model)
    expected = logits_of(weights, model, ids, tokens)
    threads(8)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: logits_of(weights, model, ids, tokens), range(12)):
            assert found.equal(expected)


@pytest.mark.usefixtures("compiled")
def test_memory_is_lent_again_once_its_owner_is_gone(monkeypatch):
    class Owner:
        pass

    monkeypatch.setattr(memory, "_spare", {})
    owner, other = Owner(), Owner()
    with torch.inference_mode():
        first = memory.borrow(1000, owner, native())
    second = memory.borrow(1000, other, native())
    address = first.data_ptr()
    assert second.data_ptr() != address and (len(first), first.dtype) == (1000, torch.uint8)
    del owner
    third = memory.borrow(700, other, native())
    assert third.data_ptr() == address and len(third) == 700 and not third.is_inference()
    # Nothing small is cut out of something large, and what fits nobody is let go.
    monkeypatch.setattr(memory, "MOST_SPARE", 5000)
    owner = Owner()
    memory.borrow(4000, owner, native())
    memory.borrow(6000, owner, native())
    del owner
    assert [block.nbytes for block in memory._spare.values()] == [4000]
    memory.borrow(100, other, native())
    assert not memory._spare


@pytest.mark.usefixtures("compiled")
def test_a_child_of_fork_decodes(threads):
    threads(2)
    model, settings = make(), {"num_return_sequences": 8, "bos_token_id": 1, "max_new_tokens": 5, "temperature": 0}
    expected = rollout(model, **settings).completions.tolist()
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        # Another thread would wait for those that fork left behind.
        torch.set_num_threads(1)
        found = logits_of(NativeWeights(model), model, torch.ones(8, 1, dtype=torch.int64), torch.ones(8, 0).long())
        torch.set_num_threads(2)
        os.write(writable, b"1" if found[0, 0].argmax() == expected[0][0] else b"0")
        os._exit(0)
    os.close(writable)
    assert os.read(readable, 1) == b"1" and os.waitpid(child, 0)[1] == 0
    os.close(readable)


def test_what_is_not_taken(monkeypatch):
    monkeypatch.setenv("HF_GPT_NATIVE", "1")
    for model in (make(hidden_act="mish"), make().to(torch.float16), make().to(torch.float64)):
        assert not takes(model, None) and isinstance(make_weights(model, None, 2), DecoderWeights)
    mixed = make()
    mixed.model.norm.to(torch.bfloat16)
    assert not takes(mixed, None)
    monkeypatch.setenv("HF_GPT_NATIVE", "0")
    assert not takes(make(), None)


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """No library yet, and a cache of its own; gives the folder that one is kept in."""
    monkeypatch.setenv("HF_GPT_NATIVE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build._built.cache_clear()
    return tmp_path / "hf_gpt" / "native"


def falls_back():
    model = make()
    samples = rollout(model, num_return_sequences=2, bos_token_id=1, max_new_tokens=3, temperature=0)
    return build.library() is None and samples.completions.shape == (2, 3)


def test_no_compiler(fresh, monkeypatch, caplog):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    with caplog.at_level("INFO"):
        assert falls_back()
    assert "there is no C compiler" in caplog.text and not fresh.exists()


@pytest.mark.parametrize(
    "script", ["echo a bad day >&2; exit 1", "exit 0", 'while [ "$1" != -o ]; do shift; done; echo none > "$2"']
)
def test_a_compiler_that_fails_or_makes_nothing_of_use(fresh, monkeypatch, tmp_path, caplog, script):
    compiler = tmp_path / "broken-cc"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with caplog.at_level("INFO"):
        assert falls_back()
    assert "PyTorch does them" in caplog.text and not list(fresh.glob("*.so"))


@pytest.mark.usefixtures("compiled")
def test_a_library_that_was_cut_off_or_is_stale_is_made_again(fresh, monkeypatch):
    (made,) = kept(fresh)
    whole = made.read_bytes()
    other = build.cache_folder() / "0123-4567.so"
    for damaged in (whole[: len(whole) // 2], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        made.write_bytes(damaged)
        other.write_bytes(b"of another source")
        assert made in kept(fresh)
        assert build._digest(made.read_bytes()) == made.stem.split("-")[1]
    assert other.read_bytes() == b"of another source"
    # What is whole is not made again, not even where there is no compiler that works.
    before = made.stat().st_mtime_ns
    monkeypatch.setattr(build, "_compile", None)
    assert made in kept(fresh) and made.stat().st_mtime_ns == before


def kept(folder: Path) -> list[Path]:
    """What is in the cache after a fresh process has loaded the library, or made and loaded it."""
    build._built.cache_clear()
    assert build.library() is not None
    return sorted(folder.glob("*.so"))


@pytest.mark.usefixtures("compiled")
def test_a_cache_that_cannot_be_written(fresh, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    build._built.cache_clear()
    assert build.library() is not None


@pytest.mark.usefixtures("compiled")
def test_processes_that_compile_at_the_same_time(fresh):
    code = "from hf_gpt.generation.decoding.native.build import library; raise SystemExit(library() is None)"
    several = [subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in several] == [0, 0]
    assert len(list(fresh.glob("*.so"))) == 1 and not [path for path in fresh.iterdir() if path.is_dir()]
