"""What goes wrong on machines: a clear error, and nothing lost."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.utils.data import get_worker_info

from hf_gpt.cli import finetune, pretrain
from hf_gpt.data.collators import PackedRowsCollator
from hf_gpt.data.examples import sample_file
from hf_gpt.files.checkpoints import is_complete, last_checkpoint
from hf_gpt.training.monitoring import reload_check
from tests.fine_tuning import called_here


TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@pytest.fixture
def recipe(tmp_path, corpus_file):
    """Writes a recipe for a command and returns its path."""

    def write(command, **changes):
        settings = {
            "config_overrides": TINY,
            "tokenizer_vocab_size": 300,
            "output_dir": str(tmp_path / "run"),
            "max_steps": 6,
            "save_steps": 2,
            "logging_steps": 1,
        }
        if command == "pretrain":
            settings |= {"train_file": [str(corpus_file)], "max_length": 32, "sample_max_new_tokens": 2}
        else:
            settings |= {"task": "classification", "max_length": 64, "max_eval_samples": 4}
        path = tmp_path / f"{command}{len(changes)}.yaml"
        path.write_text(yaml.safe_dump({**settings, **changes}))
        return str(path)

    return write


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr(reload_check, "in_fresh_process", called_here)


def weights(run):
    return load_file(run / "model" / "model.safetensors")


def test_a_dead_worker_is_one_line_and_costs_no_checkpoint(recipe, tmp_path, monkeypatch, capsys, in_process):
    original, calls = PackedRowsCollator.__call__, []

    def fatal(self, rows):
        calls.append(1)
        if get_worker_info() is not None and len(calls) > 4:
            # So that the steps before it are done when it comes.
            time.sleep(1)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, rows)

    monkeypatch.setattr(PackedRowsCollator, "__call__", fatal)
    path = recipe("pretrain", dataloader_num_workers=1, save_steps=1)
    assert pretrain.main(["--config", path]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: a process that prepares batches died at step") and "--resume_from" in error
    assert last_checkpoint(tmp_path / "run") is not None

    monkeypatch.setattr(PackedRowsCollator, "__call__", original)
    assert pretrain.main(["--config", path, "--resume_from_checkpoint"]) == 0
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


# Each file is cut off by the system: the weights (about 40 kB), or the optimizer's state (twice that).
@pytest.mark.parametrize(("limit", "writer"), [(20_000, "safetensors"), (60_000, "PyTorch")])
def test_a_full_disk_while_saving_is_one_line_and_costs_no_checkpoint(recipe, tmp_path, limit, writer):
    script = """
        import resource, sys
        from hf_gpt.cli.pretrain import main
        from hf_gpt.training.trainer import HfGptTrainer

        original = HfGptTrainer._save_checkpoint

        def save(self, *args):
            if self.state.global_step == 4:
                resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
            original(self, *args)

        HfGptTrainer._save_checkpoint = save
        sys.exit(main(["--config", sys.argv[1], "--optimizer", "adamw"]))
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), recipe("pretrain"), str(limit)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=300,
        check=False,
    )
    assert process.returncode == 2, process.stderr[-2000:]
    error = process.stderr.strip().splitlines()[-1]
    assert error.startswith("error: ") and "checkpoint-4 could not be written" in error
    assert "checkpoint-2 is complete: make room" in error and "Traceback" not in process.stderr
    run = tmp_path / "run"
    assert sorted(path.name for path in run.glob("*checkpoint*")) == ["checkpoint-2"]
    assert is_complete(run / "checkpoint-2") and load_file(run / "checkpoint-2" / "model.safetensors")


@pytest.mark.slow
def test_a_full_disk_of_its_own(recipe, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", disk], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        command = [sys.executable, "-m", "hf_gpt", "pretrain", "--config", recipe("pretrain")]
        command += ["--output_dir", str(disk / "run"), "--save_total_limit", "9"]
        process = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=False)
        assert process.returncode == 2, process.stderr[-2000:]
        assert "No space left" in process.stderr and "Traceback" not in process.stderr
        checkpoint = last_checkpoint(disk / "run")
        assert checkpoint is not None and load_file(checkpoint / "model.safetensors")
        assert not list((disk / "run").glob(".*"))
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["pretrain", "finetune", "finetune --streaming"])
def test_resume_after_sigkill_at_a_random_step_is_the_straight_run(command, recipe, tmp_path):
    run, steps = tmp_path / "run", 40
    settings = {"max_steps": steps, "save_steps": 1, "eval_strategy": "no", "per_device_train_batch_size": 4}
    if command.endswith("--streaming"):
        # Passes and windows begin and end in between, and dropout draws numbers.
        settings |= {"streaming": True, "validation_file": [str(sample_file("classification"))]}
        settings |= {"shuffle_buffer_size": 7, "config_overrides": {**TINY, "hidden_dropout": 0.1}}
        command = "finetune"
    call = [sys.executable, "-m", "hf_gpt", command, "--config", recipe(command, **settings)]
    wanted = random.Random().randrange(1, steps - 5)
    with subprocess.Popen(call, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (run / f"checkpoint-{wanted}").is_dir():
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    reached = int(last_checkpoint(run).name.split("-")[1])
    assert wanted <= reached < steps
    for more in (["--resume_from_checkpoint"], ["--output_dir", str(tmp_path / "straight")]):
        subprocess.run([*call, *more], env=ENVIRONMENT, check=True, capture_output=True, timeout=300)
    expected = weights(tmp_path / "straight")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(run).items()), f"killed at {reached}"
    if command == "finetune":
        lines = (run / "predictions.jsonl").read_text()
        assert lines == (tmp_path / "straight" / "predictions.jsonl").read_text() and lines


@pytest.mark.parametrize("task", ["classification", "closed_book_qa"])
def test_resuming_a_run_at_its_end_writes_its_predictions(task, recipe, tmp_path):
    changes = {"task": task, "eval_strategy": "steps", "eval_steps": 6, "max_new_tokens": 4}
    path, predictions = recipe("finetune", **changes), tmp_path / "run" / "predictions.jsonl"
    assert finetune.main(["--config", path]) == 0
    expected, metrics = predictions.read_text(), json.loads((tmp_path / "run" / "metrics.json").read_text())
    predictions.unlink()
    assert finetune.main(["--config", path, "--resume_from_checkpoint"]) == 0
    assert predictions.read_text() == expected
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["eval_loss"] == metrics["eval_loss"]


def test_limits_of_files_are_errors_here():
    # Without this, the tests above would end in a signal.
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN and resource.RLIMIT_FSIZE >= 0
