"""Two processes play the game that one plays: gloo on a CPU, started by torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from hf_gpt.errors import ConfigError
from tests.adversarial.players import make_trainer


slow = pytest.mark.slow


def run(folder, processes, job):
    folder.mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    script = [str(Path(__file__).with_name("ranks.py")), str(folder), job]
    command = [sys.executable, *(launcher if processes > 1 else []), *script]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    assert process.returncode == 0, process.stderr[-3000:]
    return load_file(folder / "tensors"), json.loads((folder / "values.json").read_text())


def assert_the_same_training(one, two):
    weights, alone = one
    shared, both = two
    assert alone["replay"] == both["replay"] > 0
    for name in ("loss", "d_loss", "reward_mean"):
        assert both[name] == pytest.approx(alone[name], rel=1e-5, abs=1e-5), name
    # Rounding breaks ties between scores.
    assert both["d_auc_heldout"] == pytest.approx(alone["d_auc_heldout"], abs=2e-3)
    for name, tensor in weights.items():
        difference = (shared[name] - tensor).norm() / tensor.norm().clamp_min(1e-12)
        assert difference < 1e-5, f"{name}: {difference:.2e}"


@slow
@pytest.mark.parametrize("job", ["ddp", "detached", "prefix", "mediator", "density"])
def test_ddp_equals_one_process(tmp_path, job):
    one, two = (run(tmp_path / str(count), count, job) for count in (1, 2))
    assert one[1]["wrapper"] == "Scorer" and two[1]["wrapper"] == "DistributedDataParallel"
    assert_the_same_training(one, two)


@slow
@pytest.mark.parametrize("job", ["fsdp2_cnn", "fsdp2_transformer", "fsdp2_frozen"])
def test_fsdp2_equals_one_process(tmp_path, job):
    """Both players in shards, monitors between gradient and update, and a run that was stopped goes on."""
    one, two = (run(tmp_path / str(count), count, job) for count in (1, 2))
    assert one[1]["sharded"] == [False, False] and two[1]["sharded"] == [True, True]
    assert_the_same_training(one, two)
    assert one[1]["resumed"] == 0 and two[1]["resumed"] < 1e-6


@slow
def test_fsdp2_in_bfloat16(tmp_path):
    one, two = (run(tmp_path / str(count), count, "fsdp2_bf16") for count in (1, 2))
    assert two[1]["sharded"] == [True, True] and two[1]["dtypes"] == ["torch.float32"]
    assert two[1]["d_loss"] == pytest.approx(one[1]["d_loss"], rel=2e-2)
    assert two[1]["resumed"] < 1e-6


@slow
def test_gumbel_in_two_processes_keeps_them_together(tmp_path):
    weights, _ = run(tmp_path / "one", 1, "gumbel")
    shared, both = run(tmp_path / "two", 2, "gumbel")
    assert both["same"] and both["wrapper"] == "DistributedDataParallel"
    # Each process has noise of its own, so the texts are others: near one process, not equal to it.
    for name, tensor in weights.items():
        assert 0 < (shared[name] - tensor).norm() < 0.2 * tensor.norm() + 0.2, name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tensor_parallel_size": 2}, "--accelerate fsdp2 or ddp"),
        ({"fsdp_size": 2, "beta": 0.1}, "--accelerate ddp"),
        ({"fsdp_size": 2, "estimator": "gumbel"}, "--accelerate ddp"),
        ({"fsdp_size": 2, "r1_gamma": 1.0}, "--accelerate ddp"),
        ({"deepspeed_plugin": object()}, "--accelerate fsdp2 or ddp"),
    ],
)
def test_what_two_players_cannot_do_names_what_to_use(tmp_path, settings, message):
    from hf_gpt.adversarial.config import check_processes

    args = make_trainer(tmp_path).args
    for name, value in settings.items():
        setattr(args, name, value)
    with pytest.raises(ConfigError, match=message) as error:
        check_processes(args)
    assert "\n" not in str(error.value)
