"""The race to a loss: both sides train, runs are kept, and the shortest run that is as good is named."""

import torch

from eval.experiments.pretraining import time_to_loss


def test_both_sides_train_and_runs_are_kept(tmp_path, monkeypatch, capsys):
    ids = torch.randint(0, 9, (2000,), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(time_to_loss, "read_characters", lambda: (ids[:1800], ids[1800:], 9))
    monkeypatch.setattr(time_to_loss, "WIDTH", 16)
    few = ["--seeds", "0", "--steps", "2", "3", "--rows", "2", "--reference_steps", "2", "--output_dir", str(tmp_path)]
    assert time_to_loss.main(few) == 0
    kept = sorted(path.name for path in tmp_path.glob("*.json"))
    assert kept == ["gpt2-2-0.json", "ours-2x2-0.01-0.85-2-0.json", "ours-2x2-0.01-0.85-3-0.json"]
    first = capsys.readouterr().out
    assert time_to_loss.main(few) == 0
    assert capsys.readouterr().out == first


def test_the_shortest_run_that_is_as_good_in_every_seed_is_the_answer():
    def row(name, seed, loss, seconds):
        steps = int(name.rpartition("-")[2])
        return {"name": name, "seed": seed, "steps": steps, "loss": loss, "seconds": seconds, "cpu_seconds": seconds}

    rows = [row("gpt2-100", 0, 2.0, 50.0), row("gpt2-100", 1, 1.9, 50.0)]
    rows += [row("ours-10", 0, 1.9, 5.0), row("ours-10", 1, 1.95, 5.0)]
    rows += [row("ours-20", 0, 1.8, 10.0), row("ours-20", 1, 1.9, 10.0)]
    assert "20 steps reach the reference's loss in every seed, in 0.200 of its time" in time_to_loss.table(rows)
    assert "No run of ours" in time_to_loss.table(rows[:4])
