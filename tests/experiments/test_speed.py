"""The benchmark: ratios of what is measured in turns, and that every race runs."""

import itertools
import json

import pytest

from eval.benchmarks.speed import __main__ as command
from eval.benchmarks.speed import positions, timing
from eval.benchmarks.speed.timing import Contender, interleave


def contender(name: str, seconds: list[list[float]], **settings) -> Contender:
    found = iter(seconds)
    return Contender(name, lambda: next(found), **settings)


def test_rounds_are_compared_one_by_one_and_the_first_does_not_count():
    ours = contender("ours", [[9.0], [1.0, 2.0, 3.0], [4.0], [4.0]], is_ours=True, work=8)
    peer = contender("peer", [[9.0], [4.0], [4.0], [12.0]], work=8, notes={"parameters": 5})
    first, second = interleave([ours, peer], rounds=3)
    assert first["seconds"] == 4.0 and first["per_second"] == 2.0 and "ratio" not in first
    assert (second["ratio"], second["ratio_least"], second["ratio_most"]) == (2.0, 1.0, 3.0)
    assert second["parameters"] == 5


def test_table_leaves_out_empty_columns_and_shares_are_of_the_machine():
    rows = [
        {"name": "hf-gpt: bf16", "seconds": 2.0, "per_second": 4.0, "cold_seconds": 3.0, "flops": 50.0},
        {"name": "GPT-2", "seconds": 2.0, "per_second": 4.0, "cold_seconds": 3.0, "bytes_read": 20.0},
    ]
    limits = {"flops_float32": 10.0, "flops_bfloat16": 50.0, "bytes_per_second": 20.0}
    command._add_shares(rows, "decode: batch 1, float32", limits)
    assert rows[0]["mfu"] == 0.5 and rows[1]["bandwidth_share"] == 0.5
    lines = command.table(rows).splitlines()
    assert "parameters" not in lines[0] and "peak memory" not in lines[0]
    assert "50%" in lines[2] and len(lines) == 4


def run(names, tmp_path, capsys) -> dict:
    small = ["--size", "tiny", "--vocab_size", "300", "--rounds", "1", "--steps", "1", "--length", "16", "--rows", "8"]
    few = [
        "--new_tokens",
        "4",
        "--text_length",
        "48",
        "--loss_tokens",
        "32",
        "--loss_vocab_size",
        "300",
        "--megabytes",
        "0.1",
    ]
    assert command.main([*names, *small, *few, "--output_dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "bench.json").read_text())
    assert (tmp_path / "bench.md").read_text().strip() == printed.strip()
    for rows in result["benchmarks"].values():
        assert all(row["seconds"] > 0 and row["per_second"] > 0 for row in rows)
    return result["benchmarks"]


def test_decoding_sampling_and_data(tmp_path, capsys):
    found = run(["decode", "rollout", "data"], tmp_path, capsys)
    titles = list(found)
    assert [title.partition(":")[0] for title in titles] == ["decode", "rollout", "data"]
    assert next(row["name"] for row in found[titles[0]]) == "hf-gpt, fast_generate"
    assert all("ratio" in row for row in found[titles[0]][1:])


def test_natural_text_of_ones_own(tmp_path, capsys):
    (tmp_path / "own.txt").write_text(
        "One text.\n \nAnother one, of two lines,\nwhich goes on.\n" * 30, encoding="utf-8"
    )
    (rows,) = run(["data", "--text", str(tmp_path / "own.txt")], tmp_path, capsys).values()
    work = {row["name"]: row["per_second"] * row["seconds"] for row in rows}
    assert 0 < work["tokenising natural text"] < work["tokenising"]
    assert command.main(["data", "--text", str(tmp_path / "none.txt")]) == 2
    assert "--text: there is no file" in capsys.readouterr().err


def test_time_by_position(tmp_path, capsys):
    (rows,) = run(["positions"], tmp_path, capsys).values()
    assert all(list(row["milliseconds"]) == ["16", "32"] for row in rows)
    assert "| ms at 16 |" in (tmp_path / "bench.md").read_text()
    assert command.main(["positions", "--text_length", "20"]) == 2


@pytest.mark.slow
def test_training_losses_and_adversarial_steps(tmp_path, capsys):
    found = run(["train", "loss", "adversarial"], tmp_path, capsys)
    train, loss, adversarial = found.values()
    assert all(row["mfu"] > 0 for row in train)
    assert [row["name"] for row in loss] == ["hf-gpt: in chunks", "full logits"]
    assert all(row["peak_bytes"] > 0 for row in loss)
    assert adversarial[0]["name"] == "hf-gpt: AdversarialTrainer"


def test_positions_are_timed_by_the_clock_of_choice(monkeypatch):
    monkeypatch.setattr(timing, "_clock", itertools.count().__next__)
    contender = positions.contenders("tiny", 300, rows=1, length=48)[0]
    # The clock goes on by one at each look: one a token.
    assert contender.measure() == [41] and contender.notes["milliseconds"] == {16: 1000, 32: 1000}


def test_a_peer_that_there_is_not_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["train", "--peers", "gpt2"])
    assert "gpt2" in capsys.readouterr().err


def test_numbers_below_one_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["data", "--rounds", "0"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
