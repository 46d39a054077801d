"""Values of a chart that show where the reader points or tabs to, by style sheet alone: the page runs no script."""

import html
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hf_gpt.reporting.chart import Chart, Line, format_number


if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Narrowest strip in pixels, and most strips of a chart that a keyboard stops at.
_STRIP, _STOPS = 16, 8
_LINE_HEIGHT, _LETTER_WIDTH = 15, 6.4

STYLE = """
.tip rect,.tip line,.tip text{visibility:hidden;pointer-events:none}
.tip .hit{visibility:visible;fill:transparent;pointer-events:all}
.tip line{stroke:var(--axis);stroke-width:1}
.tip .box{fill:var(--card);stroke:var(--rule)}
.tip text{fill:var(--ink);font-size:12px}
.tip:hover rect,.tip:hover line,.tip:hover text,.tip:focus rect,.tip:focus line,.tip:focus text{visibility:visible}
.tip:focus{outline:none}
@media print{.tip{display:none}}
"""


def tooltips(axes: "Axes", chart: Chart, width: int, height: int) -> str:
    """SVG over a finished drawing: a strip for each step, that shows a line and the values there.

    Args:
        axes: As drawn, with their final layout.
        chart: What was drawn.
        width, height: Of the drawing, in pixels.
    """
    steps = sorted({x for line in chart.lines for x, _ in line.finite})
    most = width // _STRIP
    if len(steps) > most:
        steps = [steps[round(n * (len(steps) - 1) / (most - 1))] for n in range(most)]
    positions = [float(axes.transData.transform((step, axes.get_ylim()[0]))[0]) for step in steps]
    box = axes.get_window_extent()
    top, bottom = height - box.y1, height - box.y0
    edges = [box.x0, *((a + b) / 2 for a, b in itertools.pairwise(positions)), box.x1]
    every = max(1, -(-len(steps) // _STOPS))
    strips = []
    for number, (step, position) in enumerate(zip(steps, positions, strict=True)):
        left, right = edges[number], edges[number + 1]
        said = [f"{chart.x_label} {format_number(step)}", *_values(chart.lines, steps, number)]
        name = html.escape(", ".join(said))
        is_stop = number % every == 0 or number == len(steps) - 1
        stop = f' role="img" aria-label="{name}" tabindex="0"' if is_stop else ' aria-hidden="true"'
        strips.append(
            f'<g class="tip"{stop}>'
            f'<rect class="hit" x="{left:.0f}" y="{top:.0f}" width="{right - left:.1f}" height="{bottom - top:.0f}"/>'
            f'<line x1="{position:.1f}" x2="{position:.1f}" y1="{top:.0f}" y2="{bottom:.0f}"/>'
            f"{_box(said, position, top, width)}</g>"
        )
    return "\n".join(strips)


def _values(lines: Sequence[Line], steps: Sequence[float], number: int) -> list[str]:
    """Of each line the value nearest to a step, if it is no nearer to the step before or after."""
    step = steps[number]
    neighbours = [steps[n] for n in (number - 1, number + 1) if 0 <= n < len(steps)]
    reach = min((abs(step - other) / 2 for other in neighbours), default=0.0)
    found = []
    for line in lines:
        x, y = min(line.finite, key=lambda point: abs(point[0] - step), default=(step + 2 * reach + 1, 0.0))
        if abs(x - step) <= reach:
            found.append(f"{line.label} {format_number(y)}")
    return found


def _box(said: Sequence[str], position: float, top: float, width: int) -> str:
    wide = max(map(len, said)) * _LETTER_WIDTH + 14
    left = position + 6 if position + 6 + wide <= width else max(0.0, position - 6 - wide)
    rows = "".join(
        f'<tspan x="{left + 7:.0f}" y="{top + 15 + n * _LINE_HEIGHT:.0f}">{html.escape(row)}</tspan>'
        for n, row in enumerate(said)
    )
    high = len(said) * _LINE_HEIGHT + 8
    return (
        f'<rect class="box" x="{left:.0f}" y="{top:.0f}" width="{wide:.0f}" height="{high}" rx="4"/><text>{rows}</text>'
    )
