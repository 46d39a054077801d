"""A folder has one run at a time, and who is told to wait is told for whom."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest
import yaml

from hf_gpt.cli import pretrain
from hf_gpt.errors import CheckpointError
from hf_gpt.files.checkpoints import atomic_directory, check_output_dir
from hf_gpt.files.run_lock import LOCK_NAME, claim_run, refuse_live_run, release_runs, releases_runs


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock of `run`, with a child that outlives it."""
    script = """
        import os, subprocess, sys, time
        from pathlib import Path
        from hf_gpt.files.run_lock import claim_run
        claim_run(Path(sys.argv[1]))
        if os.fork() == 0:
            # As a process that prepares batches.
            time.sleep(60)
            os._exit(0)
        print("held", flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        os.killpg(process.pid, signal.SIGKILL)


def test_a_second_run_is_told_who_holds_the_folder(other, tmp_path, capsys):
    run = tmp_path / "run"
    (run / "checkpoint-3").mkdir()
    words = rf"is in use by a run: process {other.pid} on \S+, since \d{{4}}-"
    for overwrite, resume in ((False, False), (True, False), (False, True)):
        with pytest.raises(CheckpointError, match=words):
            check_output_dir(run, overwrite=overwrite, resume=resume)
    with pytest.raises(CheckpointError, match=words):
        claim_run(run)
    with pytest.raises(CheckpointError, match=words), atomic_directory(run):
        pass
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"output_dir": str(run), "max_steps": 1, "overwrite_output_dir": True}))
    assert pretrain.main(["--config", str(recipe)]) == 2
    assert f"process {other.pid}" in capsys.readouterr().err
    assert (run / "checkpoint-3").is_dir() and (run / LOCK_NAME).is_file()


def test_a_killed_process_holds_nothing(other, tmp_path):
    run = tmp_path / "run"
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    check_output_dir(run, overwrite=False, resume=False)
    with releases_runs():
        claim_run(run)
        assert str(os.getpid()) in (run / LOCK_NAME).read_text()
    assert not (run / LOCK_NAME).exists()


def test_a_lock_leaves_nothing_behind(tmp_path):
    run = tmp_path / "run"
    claim_run(run)
    # One process may begin one run after the other, in a folder that was deleted in between as well.
    refuse_live_run(run)
    claim_run(run)
    shutil.rmtree(run)
    claim_run(run)
    assert [path.name for path in run.iterdir()] == [LOCK_NAME]
    check_output_dir(run, overwrite=False, resume=False)
    release_runs()
    assert not run.exists()
    run.mkdir()
    claim_run(run)
    release_runs()
    assert list(run.iterdir()) == []


def test_a_folder_that_takes_no_lock_is_let_be(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_gpt.files.run_lock.fcntl", None)
    claim_run(tmp_path / "run")
    refuse_live_run(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
