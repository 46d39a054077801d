"""Two processes play the game that one plays: gloo on a CPU, started by torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file


pytestmark = pytest.mark.slow


def run(folder, processes):
    folder.mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    script = [str(Path(__file__).with_name("ranks.py")), str(folder)]
    command = [sys.executable, *(launcher if processes > 1 else []), *script]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    assert process.returncode == 0, process.stderr[-3000:]
    return load_file(folder / "tensors"), json.loads((folder / "values.json").read_text())


def test_ddp_equals_one_process(tmp_path):
    weights, one = run(tmp_path / "one", 1)
    shared, two = run(tmp_path / "two", 2)
    assert one["wrapper"] == "Scorer" and two["wrapper"] == "DistributedDataParallel"
    assert one["replay"] == two["replay"] > 0
    for name in ("loss", "d_loss", "reward_mean"):
        assert two[name] == pytest.approx(one[name], rel=1e-4, abs=1e-5), name
    # Rounding breaks ties between scores.
    assert two["d_auc_heldout"] == pytest.approx(one["d_auc_heldout"], abs=2e-3)
    for name, tensor in weights.items():
        difference = (shared[name] - tensor).norm() / tensor.norm().clamp_min(1e-12)
        assert difference < 1e-4, f"{name}: {difference:.2e}"
