"""Damage to any file of a checkpoint is seen, and the run goes on from the one before; nothing in a file is run."""

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from hf_gpt.errors import CheckpointError, ConfigError
from hf_gpt.files import atomic_files, checkpoints
from hf_gpt.files.checkpoint_parts import lack_of
from hf_gpt.files.manifest import MANIFEST_NAME, write_manifest
from hf_gpt.training.resumption import staged
from tests.adversarial.players import make_trainer as make_adversarial
from tests.faults.damage import DAMAGES, files_of
from tests.training.resumed_runs import difference, make_trainer, result


SAMPLES = {
    "options": {
        "optimizer": "adamw",
        "max_steps": 3,
        "learning_rate": 1e-2,
        "ema_decay": 0.9,
        "per_device_train_batch_size": 2,
        "save_strategy": "steps",
        "save_steps": 1,
    },
    "rows": 12,
    "stream": False,
    "dropout": 0.0,
    "adapter": False,
}


def make(kind, folder):
    if kind == "plain":
        return make_trainer(folder, SAMPLES)
    return make_adversarial(folder, max_steps=3, ema_decay=0.9, save_strategy="steps", save_steps=1, save_total_limit=9)


@pytest.fixture(scope="module", params=["plain", "adversarial"])
def straight(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    trainer = make(request.param, folder / "run")
    trainer.train()
    return request.param, folder / "run", trainer


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_is_seen(straight, tmp_path, damage):
    kind, run, trainer = straight
    names = files_of(run / "checkpoint-3")
    wanted = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors", "weight_average.safetensors"}
    if kind == "adversarial":
        wanted |= {"adversarial_state.pt", "adversarial_rank_0.pt", "discriminator/model.safetensors"}
        wanted |= {"adversarial_schedule.json", "discriminator_optimizer.pt", "discriminator/config.json"}
    assert wanted < set(names)
    assert lack_of(run / "checkpoint-3", trainer.needs()) is None
    for name in set(names) - {MANIFEST_NAME}:
        folder = tmp_path / "checkpoint-3"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run / "checkpoint-3", folder)
        DAMAGES[damage](folder / name)
        lack = lack_of(folder, trainer.needs())
        assert lack and Path(name).name.split(".")[0] in (lack + " model" * ("no weights" in lack)), (name, lack)


@pytest.mark.parametrize("name", ["model.safetensors", "weight_average.safetensors", "optimizer.pt", MANIFEST_NAME])
def test_a_run_goes_on_from_the_whole_checkpoint_before(straight, tmp_path, caplog, name):
    kind, run, trainer = straight
    shutil.copytree(run, tmp_path / "run")
    # Of a manifest only the end, so that it is no JSON any more; of other files bytes within.
    DAMAGES["cut" if name == MANIFEST_NAME else "scribble"](tmp_path / "run" / "checkpoint-3" / name)
    again = make(kind, tmp_path / "run")
    again.train(resume_from_checkpoint=True)
    assert f"a {name} that is damaged" in caplog.text or "weights that are damaged" in caplog.text
    assert "going on from checkpoint-2" in caplog.text
    expected = trainer.model.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in again.model.state_dict().items())
    if kind == "plain":
        assert difference(result(again), result(trainer)) == []
    assert lack_of(tmp_path / "run" / "checkpoint-3", again.needs()) is None
    with pytest.raises(CheckpointError, match="not a complete checkpoint of this kind of run"):
        DAMAGES["cut"](tmp_path / "run" / "checkpoint-3" / name)
        make(kind, tmp_path / "run").train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))


def test_a_checkpoint_without_a_manifest_loads_with_a_note(straight, tmp_path, caplog):
    kind, run, trainer = straight
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "checkpoint-2" / MANIFEST_NAME).unlink()
    again = make(kind, tmp_path / "run")
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert "checkpoint-2 has no manifest.json, as in earlier versions" in caplog.text
    expected = trainer.model.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in again.model.state_dict().items())


class Poison:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("listed", [True, False], ids=["in the manifest", "without a manifest"])
def test_nothing_in_a_checkpoint_is_run(straight, tmp_path, listed):
    kind, run, _ = straight
    names = [name for name in files_of(run / "checkpoint-2") if name.endswith((".pt", ".pth", ".bin"))]
    for number, name in enumerate(names):
        folder, sign = tmp_path / str(number) / "checkpoint-2", tmp_path / f"sign-{number}"
        shutil.copytree(run / "checkpoint-2", folder)
        for bare in (False, True):
            if bare:
                (folder / name).write_bytes(pickle.dumps(Poison(sign)))
            else:
                torch.save({"optimizer": Poison(sign), "state": Poison(sign), "python": Poison(sign)}, folder / name)
            (folder / MANIFEST_NAME).unlink(missing_ok=True)
            if listed:
                write_manifest(folder)
            trainer = make(kind, tmp_path / "other")
            if name == "training_args.bin":
                # It is for people to look at: nothing reads it.
                trainer.train(resume_from_checkpoint=str(folder))
            else:
                with pytest.raises((CheckpointError, ConfigError)):
                    trainer.train(resume_from_checkpoint=str(folder))
            assert not sign.exists(), name


@pytest.mark.parametrize("uploads", [False, True], ids=["staged", "in place"])
def test_all_is_on_the_disk_before_an_older_checkpoint_goes(tmp_path, monkeypatch, uploads):
    """The order of what a system is asked to do: each file, each folder, the rename, its folder, the removal."""
    events = []

    def fsync(handle):
        events.append(("sync", os.readlink(f"/proc/self/fd/{handle}")))

    rename, rotate = Path.rename, staged.rotate_checkpoints

    def record_rename(self, target):
        events.append(("rename", str(target)))
        return rename(self, target)

    def record_rotate(**kwargs):
        events.append(("rotate", kwargs["output_dir"]))
        return rotate(**kwargs)

    monkeypatch.setattr(atomic_files.os, "fsync", fsync)
    monkeypatch.setattr(checkpoints.Path, "rename", record_rename)
    monkeypatch.setattr(staged, "rotate_checkpoints", record_rotate)
    run = tmp_path / "run"
    trainer = make_adversarial(run, max_steps=2, ema_decay=0.9, save_strategy="steps", save_steps=1, save_total_limit=1)
    if uploads:
        # As with an upload of checkpoints, without a Hub.
        monkeypatch.setattr(type(trainer), "_push_from_checkpoint", lambda *_: None)
        trainer.args.hub_strategy = staged.HubStrategy.ALL_CHECKPOINTS
        monkeypatch.setattr(trainer.args, "push_to_hub", True)
        monkeypatch.setattr(type(trainer), "init_hf_repo", lambda *_, **__: None)
        monkeypatch.setattr(type(trainer), "_finish_current_push", lambda *_: None)
    trainer.train()
    assert [path.name for path in run.glob("checkpoint-*")] == ["checkpoint-2"]
    end = max(number for number, event in enumerate(events) if event[0] == "rotate")
    begin = max(number for number, event in enumerate(events[:end]) if event[0] == "rotate") + 1
    between = events[begin:end]
    written = str(run / "checkpoint-2") if uploads else str(run / ".checkpoint-2.incomplete")
    named = len(between) if uploads else between.index(("rename", str(run / "checkpoint-2")))
    synced = {path for kind, path in between[:named] if kind == "sync"}
    names = files_of(run / "checkpoint-2")
    folders = {str(Path(written, name).parent) for name in names}
    assert {str(Path(written, name)) for name in names} | folders <= synced
    assert between[-1] == ("sync", str(run)) or ("sync", str(run)) in between[named:]
