"""Charts of values with their intervals."""

import math
import re

from hf_gpt.reporting.intervals import Interval, interval_chart


def test_bars_lie_around_their_values_on_one_scale():
    found = interval_chart("Accuracy ↑", [Interval("one <b>", 0.6, 0.5, 0.7), Interval("two", 0.8)])
    centres = [float(x) for x in re.findall(r'cx="([\d.]+)"', found)]
    ends = [float(x) for x in re.search(r'class="bar" x1="([\d.]+)" x2="([\d.]+)"', found).groups()]
    assert ends[0] < centres[0] < ends[1] < centres[1] and abs(centres[0] * 2 - sum(ends)) < 0.3
    assert "one &lt;b&gt;: 0.6, 95 % interval 0.5 to 0.7" in found and found.count('class="bar"') == 1


def test_what_is_not_finite_is_left_out():
    assert interval_chart("Loss ↓", [Interval("one", math.nan)]) == ""
    assert "one" in interval_chart("Loss ↓", [Interval("one", 0.0)])
