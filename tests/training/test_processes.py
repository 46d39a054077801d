"""Two processes give what one gives: gloo on a CPU, started as a user would, by torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.clients.records import record


pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path):
    """Runs a job of `ranks.py` and returns what its first process wrote: tensors and values."""

    def run(job, processes, name):
        folder = tmp_path / name
        folder.mkdir()
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        script = [str(Path(__file__).with_name("ranks.py")), job, str(folder)]
        command = [sys.executable, *(launcher if processes > 1 else []), *script]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert process.returncode == 0, process.stderr[-3000:]
        return load_file(folder / "tensors"), json.loads((folder / "values.json").read_text())

    return run


def assert_close(found, expected):
    """Returns the greatest relative difference."""
    assert found.keys() == expected.keys()
    greatest = 0.0
    for name, tensor in expected.items():
        difference = (found[name] - tensor).norm() / tensor.norm().clamp_min(1e-12)
        assert difference < 1e-5, f"{name}: {difference:.2e}"
        greatest = max(greatest, difference.item())
    return greatest


def keep(record_property, client, compared, difference):
    metric = f"relative difference {difference:.1e} at most"
    record(record_property, client, "distributed", f"{compared}, two processes against one", metric, package="torch")


def test_ddp_equals_one_process(run, record_property):
    weights, one = run("ddp", 1, "one")
    shared, two = run("ddp", 2, "two")
    assert two["wrapper"] == "DistributedDataParallel" and one["wrapper"] == "HfGptForCausalLM"
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5) and len(set(one["losses"])) == 4
    keep(record_property, "DDP (Trainer, torchrun)", "weights after 4 steps", assert_close(shared, weights))


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_goes_on_within_a_later_epoch_is_the_straight_run(run, processes):
    _, same = run("resumed", processes, "resumed")
    assert same == {"random": True, "group_by_length": True}


def test_smoothed_labels_are_shifted_in_shards_too(run):
    weights, one = run("smoothed", 1, "one")
    shared, two = run("smoothed", 2, "two")
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert_close(shared, weights)


def test_an_evaluation_before_training_in_shards_changes_nothing(run):
    weights, _ = run("evaluated", 1, "one")
    shared, two = run("evaluated", 2, "two")
    assert two["wrapper"] == "FSDPHfGptForCausalLM"
    assert_close(shared, weights)


def test_a_stream_is_shared_by_processes(run, tmp_path):
    weights, one = run("stream", 1, "one")
    shared, two = run("stream", 2, "two")
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert_close(shared, weights)
    positions = [json.loads((tmp_path / name / "positions.json").read_text()) for name in ("one", "two")]
    assert positions[0] == positions[1] and positions[0][0] != positions[0][1]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_loss_that_is_not_finite_in_one_process_changes_no_weight_in_any(run, processes):
    _, found = run("not_finite", processes, "run")
    assert found == {"moved": [False, True, True], "updates": 3}


def test_a_signal_to_one_process_stops_all_at_the_same_step(run):
    _, values = run("signal", 2, "two")
    assert values == {"step": 2, "checkpoints": ["checkpoint-2"]}


def test_fsdp2_equals_one_process(run, record_property):
    expected, one = run("one", 1, "one")
    found, two = run("fsdp2", 2, "two")
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    keep(record_property, "FSDP2 (fully_shard, torchrun)", "gradients", assert_close(found, expected))


def test_tensor_parallel_equals_one_process(run, record_property):
    expected, one = run("one", 1, "one")
    found, two = run("tp", 2, "two")
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    for projection in ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"):
        assert any(projection in name for name in two["sharded"])
    keep(record_property, 'Tensor parallelism (tp_plan="auto", torchrun)', "gradients", assert_close(found, expected))
    assert all(torch.isfinite(tensor).all() for tensor in found.values())


def test_muon_on_shards_is_muon_on_the_matrix(run):
    _, same = run("muon", 2, "two")
    assert same == {"rows": True, "columns": True, "copies": True}
