"""ZeRO by `--accelerate zero1`, `zero2` and `zero3` in two processes on a CPU: `make check-deepspeed`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from hf_gpt.training.optim.ema import WEIGHT_AVERAGE_NAME
from tests.clients.records import record
from tests.clients.reference import make_reference


pytest.importorskip("deepspeed", reason="make check-deepspeed installs it in an environment of its own")

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A checkpoint to begin with: new weights are drawn in another order where each process holds a part."""
    folder = tmp_path_factory.mktemp("start")
    make_reference(folder)
    return folder


@pytest.fixture
def pretrain(start, tmp_path):
    """Runs the command, in two processes where a profile is asked for."""
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n\n".join(f"CITIZEN {n}:\n{'What say you, ' * (1 + n % 5)}master?" for n in range(80)))

    def pretrain(folder, *options, profile=None):
        settings = {
            "model_name_or_path": str(start),
            "train_file": [str(corpus)],
            "output_dir": str(folder),
            "optimizer": "adamw",
            "max_length": 32,
            "max_steps": 4,
            "save_steps": 2,
            "logging_steps": 1,
            "per_device_train_batch_size": 2 if profile else 4,
            "sample_max_new_tokens": 4,
        }
        path = tmp_path / "config.json"
        path.write_text(json.dumps(settings))
        command = [sys.executable, "-m", "hf_gpt", "pretrain", "--config", str(path), *options]
        command += ["--accelerate", profile, "--num_processes", "2"] if profile else []
        environment = {
            **os.environ,
            # DeepSpeed compiles a part of itself by the ninja of this environment, once.
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "TORCH_EXTENSIONS_DIR": str(BIN.parent / "extensions"),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900, check=False)

    return pretrain


def losses(folder):
    state = json.loads((folder / "checkpoint-4/trainer_state.json").read_text(encoding="utf-8"))
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def greatest_difference(found, expected, name="model.safetensors"):
    found, expected = (load_file(folder / name) for folder in (found, expected))
    assert found.keys() == expected.keys()
    return max(((found[name] - tensor).norm() / tensor.norm()).item() for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("stage", "options"), [(1, ("--ema_decay", "0.9")), (2, ("--ema_decay", "0.9")), (3, ())], ids=["1", "2", "3"]
)
def test_two_processes_equal_one(stage, options, pretrain, start, tmp_path, record_property):
    one, two, profile = tmp_path / "one", tmp_path / "two", f"zero{stage}"
    for folder in (one, two):
        done = pretrain(folder, *options, profile=profile if folder is two else None)
        assert done.returncode == 0, done.stderr[-3000:]
    # The second process holds its part of the optimizer's state, and by ZeRO-3 of the weights.
    files = {path.name for path in two.glob("checkpoint-4/global_step4/*.pt")}
    weights = [f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt" for rank in (0, 1)]
    states = [f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in (0, 1)]
    assert files == {*states, *(weights if stage == 3 else ["mp_rank_00_model_states.pt"])}
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("model "))
    assert " 0 parameters" not in line and "parameters" in line

    assert losses(two) == pytest.approx(losses(one), rel=1e-5) and len(set(losses(one))) == 4
    differences = [greatest_difference(two / name, one / name) for name in ("checkpoint-2", "checkpoint-4", "model")]
    if options:
        checkpoints = ("checkpoint-2", "checkpoint-4")
        differences += [greatest_difference(two / name, one / name, WEIGHT_AVERAGE_NAME) for name in checkpoints]
        assert greatest_difference(one / "model", one / "checkpoint-4") > 1e-5
    assert max(differences) < 1e-5 < greatest_difference(one / "model", start)

    for name in ("checkpoint-4", "model"):
        shutil.rmtree(two / name)
    done = pretrain(two, *options, "--resume_from_checkpoint", str(two / "checkpoint-2"), profile=profile)
    assert done.returncode == 0, done.stderr[-3000:]
    assert greatest_difference(two / "model", one / "model") < 1e-5
    averaged = ", their average too" if options else ""
    record(
        record_property,
        f"DeepSpeed ZeRO-{stage} (--accelerate {profile})",
        "deepspeed",
        f"weights after 4 steps, and resumed after 2, two processes against one{averaged}",
        f"relative difference {max(differences):.1e} at most",
        package="deepspeed",
    )


@pytest.mark.parametrize(
    ("profile", "option", "value", "message"),
    [
        ("zero3", "--ema_decay", "0.9", "--ema_decay does not work with DeepSpeed ZeRO-3"),
        ("zero2", "--optimizer", "muon", "--optimizer muon works on"),
    ],
)
def test_what_it_cannot_do_is_said(profile, option, value, message, pretrain, tmp_path):
    done = pretrain(tmp_path / "run", option, value, profile=profile)
    assert done.returncode != 0 and f"error: {message}" in done.stderr
    assert not (tmp_path / "run/model").exists()
