import pytest
import torch
from safetensors.torch import save_file

from hf_gpt.errors import CheckpointError
from hf_gpt.files.checkpoints import (
    atomic_directory,
    check_output_dir,
    clean_run,
    find_checkpoint,
    find_model,
    last_checkpoint,
    start_output_dir,
)


def make_checkpoint(path, complete=True):
    path.mkdir(parents=True)
    save_file({"weight": torch.zeros(2)}, path / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({}, path / name)
    (path / "trainer_state.json").write_text('{"global_step": 1}' if complete else '{"global_st')
    return path


def test_atomic_directory_replaces(tmp_path):
    for content in ("one", "two"):
        with atomic_directory(tmp_path / "model") as folder:
            (folder / "file").write_text(content)
        assert (tmp_path / "model" / "file").read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_error_leaves_the_former_folder(tmp_path):
    with atomic_directory(tmp_path / "model") as folder:
        (folder / "file").write_text("good")
    with pytest.raises(KeyboardInterrupt), atomic_directory(tmp_path / "model") as folder:
        (folder / "file").write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "model" / "file").read_text() == "good"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_kill_between_the_renames_is_settled(tmp_path):
    make_checkpoint(tmp_path / ".model.previous")
    make_checkpoint(tmp_path / ".model.incomplete")
    clean_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_kill_after_the_renames_is_settled(tmp_path):
    new = make_checkpoint(tmp_path / "model")
    (new / "new").touch()
    make_checkpoint(tmp_path / ".model.previous")
    clean_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model"] and (new / "new").exists()


def test_last_checkpoint_is_the_newest_complete_one(tmp_path):
    assert last_checkpoint(tmp_path) is None
    for step in (5, 10, 9):
        make_checkpoint(tmp_path / f"checkpoint-{step}")
    make_checkpoint(tmp_path / "checkpoint-20", complete=False)
    (tmp_path / "checkpoint-30").mkdir()
    make_checkpoint(tmp_path / "checkpoint-best")
    assert last_checkpoint(tmp_path).name == "checkpoint-10"
    assert find_checkpoint("last", tmp_path) == find_checkpoint("True", tmp_path) == tmp_path / "checkpoint-10"
    assert find_checkpoint(str(tmp_path / "checkpoint-5"), tmp_path).name == "checkpoint-5"


def test_checkpoints_that_cannot_be_resumed_from(tmp_path):
    make_checkpoint(tmp_path / "checkpoint-20", complete=False)
    for wanted, message in (
        ("last", "no complete"),
        ("nowhere", "no such folder"),
        ("checkpoint-20", "not a complete"),
    ):
        with pytest.raises(CheckpointError, match=message):
            find_checkpoint(wanted if wanted == "last" else str(tmp_path / wanted), tmp_path)


def test_output_dir_with_contents_is_refused(tmp_path):
    run = tmp_path / "run"
    check_output_dir(run, overwrite=False, resume=False)
    start_output_dir(run, resume=False)
    check_output_dir(run, overwrite=False, resume=False)
    (run / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not empty: choose another folder"):
        check_output_dir(run, overwrite=False, resume=False)
    make_checkpoint(run / "checkpoint-3")
    with pytest.raises(CheckpointError, match="resume_from_checkpoint"):
        check_output_dir(run, overwrite=False, resume=False)
    check_output_dir(run, overwrite=True, resume=False)
    check_output_dir(run, overwrite=False, resume=True)


def test_a_new_run_clears_only_what_a_run_makes(tmp_path):
    for name in ("checkpoint-3", "model", ".checkpoint-6.incomplete"):
        make_checkpoint(tmp_path / name)
    (tmp_path / "notes.txt").write_text("mine")
    start_output_dir(tmp_path, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-3", "model", "notes.txt"]
    start_output_dir(tmp_path, resume=False)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_output_dir_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is a file"):
        check_output_dir(tmp_path / "file", overwrite=True, resume=False)


def test_find_model(tmp_path):
    assert find_model("owner/name") == "owner/name"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").touch()
    assert find_model(str(tmp_path)) == str(tmp_path / "model")
    (tmp_path / "config.json").touch()
    assert find_model(str(tmp_path)) == str(tmp_path)
