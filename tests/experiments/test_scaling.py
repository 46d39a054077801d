"""The experiment on how cost grows: its line, and that it runs."""

import pytest

from eval.experiments.pretraining import scaling


def test_line_is_found_and_small_points_count_as_much_as_large_ones():
    slope, offset = scaling.fit_line([1.0, 2.0, 40.0], [5.0, 7.0, 83.0])
    assert (slope, offset) == (pytest.approx(2.0), pytest.approx(3.0))
    slope, offset = scaling.fit_line([1.0, 2.0, 1000.0], [1.0, 2.2, 1000.0])
    assert abs(slope + offset - 1.0) < 0.1 and abs(2 * slope + offset - 2.2) < 0.2


def test_steps_and_tokens_are_measured_and_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scaling, "LAST_POSITION", 64)
    monkeypatch.setattr(scaling, "BINS", (16, 32, 64))
    arguments = ["--size", "tiny", "--vocab_size", "300", "--length", "8", "--rows", "1", "2", "4", "--rounds", "1"]
    assert scaling.main([*arguments, "--output_dir", str(tmp_path)]) == 0
    report = capsys.readouterr().out
    assert "off a line over its tokens" in report and "bfloat16: a token at the last positions" in report
    assert {path.name for path in tmp_path.iterdir()} == {"scaling.json", "scaling.md", "scaling.png"}
