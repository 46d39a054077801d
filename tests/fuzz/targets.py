"""
What is read from files that others made, each with inputs that are nearly right.

A target reads one input and either takes it or raises the error that its users are told to expect. Anything else is a
crash; more than `TIME_LIMIT` seconds is a hang.
"""

import collections
import contextlib
import copy
import json
import signal
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from hf_gpt.errors import UserError


TIME_LIMIT = 10

ODD_NUMBERS = st.one_of(
    st.integers(-3, 40),
    st.sampled_from([2**31, 2**62, 2**63, 10**30, -(2**63), 1e308, 0.5, -1.5, float("inf"), float("nan")]),
)
SCALARS = st.one_of(st.none(), st.booleans(), ODD_NUMBERS, st.text(max_size=8))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=6,
)


@dataclass(frozen=True)
class Target:
    """Something that reads files.

    Attributes:
        inputs: Strategy of the inputs.
        read: Reads one, in a folder that is there for that alone; raises `UserError` for what is wrong.
    """

    inputs: st.SearchStrategy
    read: Callable[[Path, Any], None]


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Raises `TimeoutError` in code that takes too long."""

    def stop(*_: Any) -> None:
        raise TimeoutError("hang")

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def run(target: Target, count: int, start: int) -> tuple[collections.Counter, dict[str, Any]]:
    """How often each outcome was had over `count` inputs, and an input for each outcome that is a fault."""
    outcomes: collections.Counter = collections.Counter()
    faults: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:

        @seed(start)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(target.inputs)
        def once(value: Any) -> None:
            outcome = "taken"
            try:
                with time_limit():
                    target.read(Path(folder), copy.deepcopy(value))
            except UserError as error:
                outcome = "refused" if str(error).strip() else "CRASH: an error without words"
            except TimeoutError:
                outcome = "HANG"
            # What comes out of Rust as a panic is no `Exception`.
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                outcome = f"CRASH: {type(error).__name__}: {str(error)[:80]}"
            outcomes[outcome] += 1
            if outcome not in ("taken", "refused"):
                faults.setdefault(outcome, value)

        once()
    return outcomes, faults


def mutated(valid: dict[str, Any]) -> st.SearchStrategy:
    """A JSON object with one to four of its entries replaced, removed or added."""
    names = st.sampled_from([*valid, "model_type", "rope_scaling", "quantization_config", "unknown"])
    changes = st.lists(st.tuples(names, st.one_of(VALUES, st.just(...))), min_size=1, max_size=4)

    def apply(chosen: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(valid)
        for name, value in chosen:
            if value is ...:
                result.pop(name, None)
            else:
                result[name] = value
        return result

    return changes.map(apply)


def damaged(valid: bytes) -> st.SearchStrategy:
    """Bytes with some of them changed, cut off or put in."""
    change = st.tuples(st.integers(0, max(0, len(valid) - 1)), st.integers(0, 3), st.binary(max_size=6))

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        content = valid
        for position, removed, inserted in changes:
            content = content[:position] + inserted + content[position + removed :]
        return content

    return st.lists(change, min_size=1, max_size=3).map(apply) | st.integers(0, len(valid)).map(lambda n: valid[:n])


def config_target() -> Target:
    """`hf-gpt convert` on a folder with a wrong `config.json`."""
    from safetensors.torch import save
    from transformers import AutoConfig, AutoModelForCausalLM

    from hf_gpt import HfGptConfig
    from hf_gpt.conversion.checkpoint import convert

    sizes = {"vocab_size": 30, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    tiny = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, **sizes}
    gpt2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, **sizes}
    llama = {**tiny, "intermediate_size": 16, "num_key_value_heads": 2, "max_position_embeddings": 16}
    valid = [HfGptConfig(**tiny), AutoConfig.for_model("gpt2", **gpt2)]
    valid += [AutoConfig.for_model(name, **llama) for name in ("llama", "mistral", "qwen2")]
    valid.append(AutoConfig.for_model("qwen3", **llama, head_dim=8))
    weights = []
    for config in valid:
        state = AutoModelForCausalLM.from_config(config).state_dict()
        tied = config.tie_word_embeddings
        weights.append(save({name: part for name, part in state.items() if not (tied and name == "lm_head.weight")}))

    def read(folder: Path, value: tuple[int, Any]) -> None:
        number, content = value
        (folder / "source").mkdir(exist_ok=True)
        (folder / "source" / "config.json").write_text(json.dumps(content))
        (folder / "source" / "model.safetensors").write_bytes(weights[number])
        convert(folder / "source", folder / "out", to=valid[number].model_type, overwrite=True)

    inputs = [st.tuples(st.just(0), VALUES)]
    for number, config in enumerate(valid):
        content = json.loads(config.to_json_string(use_diff=False))
        inputs.append(st.tuples(st.just(number), mutated(content)))
    return Target(st.one_of(inputs), read)


def recipe_target() -> Target:
    """A recipe of `hf-gpt pretrain`, up to the settings that it makes."""
    import yaml

    from hf_gpt.cli.training_command import command_options
    from hf_gpt.data.arguments import DataArguments
    from hf_gpt.training.arguments.model import ModelArguments
    from hf_gpt.training.settings import RECIPES, load_settings, read_recipe
    from hf_gpt.training.training_arguments import HfGptTrainingArguments

    types = [ModelArguments, DataArguments]
    options = command_options([*types, HfGptTrainingArguments])
    names = [option.name for group in options.values() for option in group]
    valid = yaml.safe_load((RECIPES / "demo.yaml").read_text(encoding="utf-8"))
    pieces = ["- ", ": ", "{", "}", "[", "]", "&a ", "*a", "!!python/object:os.system ", "2001-99-99", "\t", "? ", "| "]
    loose = st.lists(st.sampled_from([*pieces, *names[:20], "\n", "1e999", "0x", "~"]), max_size=12).map("".join)
    written = mutated({name: valid.get(name) for name in [*valid, *names[:60]]}).map(
        lambda content: yaml.safe_dump({key: value for key, value in content.items() if value is not None})
    )
    deep = st.integers(1, 5000).map(lambda depth: "a: " + "[" * depth)

    def read(folder: Path, text: str) -> None:
        path = folder / "recipe.yaml"
        path.write_text(text, encoding="utf-8", errors="replace")
        recipe = read_recipe(path, names)
        argv = ["--output_dir", str(folder / "run"), "--dry_run", "true"]
        load_settings(argv, [*types, HfGptTrainingArguments], recipe, path)

    return Target(st.one_of(written, loose, st.text(max_size=30), deep), read)


def weights_target() -> Target:
    """The header of a safetensors file and the index of several."""
    import torch
    from safetensors.torch import save

    from hf_gpt.conversion.sources import SafetensorsSource

    valid = save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2, dtype=torch.bfloat16)})
    length = struct.unpack("<Q", valid[:8])[0]
    header, body = json.loads(valid[8 : 8 + length]), valid[8 + length :]
    entry = mutated(header["a"])
    headers = st.one_of(mutated(header), entry.map(lambda value: {**header, "a": value}), VALUES)

    def assemble(content: Any) -> bytes:
        text = json.dumps(content).encode()
        return struct.pack("<Q", len(text)) + text + body

    index = mutated({"metadata": {}, "weight_map": {"a": "model.safetensors", "b": "model.safetensors"}})
    maps = st.dictionaries(st.sampled_from(["a", "b", "../c"]), VALUES | st.just("../up.safetensors"), max_size=3)
    indices = index | maps.map(lambda value: {"weight_map": value}) | VALUES

    def read(folder: Path, value: tuple[bytes, Any]) -> None:
        content, index = value
        (folder / "model.safetensors").write_bytes(content)
        path = folder / "model.safetensors.index.json"
        path.unlink(missing_ok=True)
        if index is not ...:
            path.write_text(json.dumps(index))
        source = SafetensorsSource(folder)
        for name in source.names:
            shape = source.shape(name)
            source.dtype(name)
            if shape:
                source.read(name, 0, 0, min(shape[0], 4))

    files = damaged(valid) | headers.map(assemble)
    return Target(st.tuples(files, st.just(...)) | st.tuples(st.just(valid), indices), read)


def tokenizer_target() -> Target:
    """The files of a tokenizer."""
    from transformers import GPT2Config

    from hf_gpt.conversion.tokenizers import PROBE, load
    from hf_gpt.data.tokenizer import train_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(["the quick brown fox " * 3], 262).save_pretrained(folder)
        valid = json.loads((Path(folder) / "tokenizer.json").read_text())
        others = json.loads((Path(folder) / "tokenizer_config.json").read_text())
    text = json.dumps(valid).encode()
    model = mutated(valid["model"]).map(lambda value: {**valid, "model": value})
    files = damaged(text) | st.one_of(mutated(valid), model, VALUES).map(lambda value: json.dumps(value).encode())

    def read(folder: Path, value: tuple[bytes, Any]) -> None:
        (folder / "config.json").write_text(GPT2Config().to_json_string())
        (folder / "tokenizer.json").write_bytes(value[0])
        (folder / "tokenizer_config.json").write_text(json.dumps(value[1]))
        load(folder)(PROBE)

    return Target(st.tuples(files, st.just(others)) | st.tuples(st.just(text), mutated(others) | VALUES), read)


TARGETS = {
    "config.json": config_target,
    "recipe": recipe_target,
    "safetensors": weights_target,
    "tokenizer": tokenizer_target,
}
