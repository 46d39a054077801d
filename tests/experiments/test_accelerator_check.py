"""The one call for a machine with an accelerator, rehearsed on a CPU."""

import json
import subprocess

import pytest
import torch

from eval.benchmarks import accelerator_check


TINY = ["--size", "tiny", "--vocab_size", "300", "--length", "24"]


def test_checks_are_written_down_whatever_becomes_of_them(tmp_path, monkeypatch):
    def breaks(stage):
        raise RuntimeError("no such kernel\nand more")

    monkeypatch.setitem(accelerator_check.CHECKS, "logits, flex attention", breaks)
    monkeypatch.setitem(
        accelerator_check.CHECKS,
        "gradients",
        lambda stage: accelerator_check.largest_difference(torch.ones(2), torch.zeros(2), 0.5),
    )
    names = ["logits, float32", "logits, flex attention", "gradients", "log-probabilities of a rollout"]
    status = accelerator_check.main([*TINY, "--checks", *names, "--benchmarks", "--output_dir", str(tmp_path)])
    found = json.loads((tmp_path / "checks.json").read_text())["checks"]
    assert status == 1
    assert [row["verdict"] for row in found] == ["passed", "broken", "failed", "passed"]
    assert found[1]["told"] == "RuntimeError: no such kernel" and found[2]["told"] == "differs by 1, allowed is 0.5"
    assert "| gradients | failed | differs by 1, allowed is 0.5 |" in (tmp_path / "checks.md").read_text()


def test_what_is_not_a_number_does_not_pass():
    with pytest.raises(AssertionError, match="nan"):
        accelerator_check.largest_difference(torch.tensor([float("nan")]), torch.zeros(1), 1.0)


def test_benchmarks_stop_in_time(tmp_path, monkeypatch):
    assert accelerator_check.run_benchmark("loss", tmp_path, 3.0) == "left out, no time is left"

    def run(command, timeout):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    assert accelerator_check.run_benchmark("loss", tmp_path, 30.0) == "stopped after 30 s"


def test_the_benchmarks_are_commands_of_the_bench():
    from eval.benchmarks.speed.command import make_parser

    for words in accelerator_check.BENCHMARKS.values():
        make_parser().parse_args(words.split())


@pytest.mark.slow
def test_every_check_passes_on_a_cpu(tmp_path):
    command = [*TINY, "--length", "48", "--benchmarks", "--output_dir", str(tmp_path)]
    assert accelerator_check.main(command) == 0
