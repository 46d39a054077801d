"""Charts as inline SVG or as PNG files.

Colours are written as CSS variables, so that one drawing serves the light and the dark scheme of the page around it.
"""

import html
import math
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from hf_gpt.files.atomic_files import replaces_file
from hf_gpt.reporting.chart import Chart, Line, describe
from hf_gpt.reporting.tooltips import tooltips


if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Stand-ins that matplotlib accepts as colours and that no drawing would use by itself; each becomes a CSS variable.
SERIES: tuple[str, ...] = ("#010201", "#010202", "#010203", "#010204")
AXIS = "#010205"
GRID = "#010206"
# What they are where there is no page to say so: the colours of the report in its light scheme.
_LIGHT = dict(
    zip((*SERIES, AXIS, GRID), ("#2b6cb0", "#c2541b", "#2a7a68", "#7a4fa3", "#5a626d", "#e4e4df"), strict=True)
)
_VARIABLES = {colour: f"var(--series-{n})" for n, colour in enumerate(SERIES)} | {
    AXIS: "var(--axis)",
    GRID: "var(--grid)",
}

# What the variables stand for on a light page.
LIGHT_COLOURS = (
    "--axis:#5a626d;--grid:#e4e4df;--series-0:#2b6cb0;--series-1:#c2541b;--series-2:#2a7a68;--series-3:#7a4fa3"
)

# Up to this many points a line carries a dot at each of them.
_DOTTED = 40
# How wide a group of neighbouring points is drawn, in pixels, where a line has too many to tell apart.
_PIXELS = 4
# A line with more points than carry a dot is smoothed over this share of them.
_SMOOTHED_SHARE = 20


def is_condensed(chart: Chart, width: int) -> bool:
    """Whether a drawing of this width shows means and bands in place of single points."""
    return any(len(line.points) > 2 * (width // _PIXELS) for line in chart.lines)


def is_smoothed(chart: Chart, width: int) -> bool:
    """Whether a drawing of this width shows a smoothed line over the points."""
    return any(_DOTTED < len(line.finite) <= 2 * (width // _PIXELS) for line in chart.lines)


def draw_chart(chart: Chart, *, uid: str, width: int, height: int) -> str:
    """The chart as an `<svg>` element of `width` by `height` CSS pixels, which the page may scale.

    Args:
        chart: What to draw; at least one of its lines has a finite value.
        uid: Prefix of every id in the drawing, unique in the page.
        width: Width that the letters are sized for.
        height: Height that goes with it.
    """

    def draw(axes: "Axes") -> None:
        from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

        for line in chart.lines:
            _draw_line(axes, line, buckets=width // _PIXELS)
        axes.set_xlabel(chart.x_label, color=AXIS)
        axes.margins(x=0.02, y=0.08)
        if chart.x_range and chart.x_range[0] < chart.x_range[1]:
            room = 0.02 * (chart.x_range[1] - chart.x_range[0])
            axes.set_xlim(chart.x_range[0] - room, chart.x_range[1] + room)
        axes.xaxis.set_major_locator(MaxNLocator(max(3, width // 84), integer=True, steps=[1, 2, 5, 10]))
        if chart.logarithmic:
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            axes.yaxis.set_major_locator(LogLocator(subs=_log_steps(high / low), numticks=6))
            axes.yaxis.set_minor_locator(NullLocator())
        else:
            axes.yaxis.set_major_locator(MaxNLocator(max(3, height // 44), steps=[1, 2, 2.5, 5, 10]))
            if chart.from_zero and not _below_zero(chart):
                axes.set_ylim(bottom=0.0)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))

    return render_svg(
        draw,
        uid=uid,
        width=width,
        height=height,
        label=describe(chart),
        overlay=lambda axes: tooltips(axes, chart, width, height),
    )


def render_svg(
    draw: Callable[["Axes"], None],
    *,
    uid: str,
    width: int,
    height: int,
    label: str,
    overlay: Callable[["Axes"], str] | None = None,
) -> str:
    """Whatever `draw` puts on a pair of axes, as an `<svg>` element fit for any page.

    Args:
        draw: Is handed empty axes; colours are to come from `SERIES`, `AXIS` and `GRID`.
        uid: Prefix of every id in the drawing, unique in the page.
        width: Width in CSS pixels that the letters are sized for.
        height: Height that goes with it.
        label: What the drawing shows, in words.
        overlay: From the axes, as laid out, to SVG that goes on top.
    """
    import io

    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    stream = io.StringIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": uid, "font.size": 12})
        # 72 dots an inch make a point of the drawing a pixel of the page.
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        _style(axes)
        draw(axes)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    return _inline(stream.getvalue(), uid, width, height, label, "" if overlay is None else overlay(axes))


def save_png(
    draw: Callable[..., None], path: Path, *, width: int, height: int, columns: int = 1, label: str = ""
) -> None:
    """Whatever `draw` puts on axes side by side, as a PNG file with two dots to a pixel.

    Args:
        draw: Is handed `columns` empty pairs of axes; colours are to come from `light_colours`.
        path: Of the file; replaced whole.
        width: In CSS pixels that the letters are sized for.
        height: That goes with it.
        columns: Number of axes.
        label: What the drawing shows, in words, kept in the file.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), replaces_file(path) as draft:
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.size": 12})
        figure = Figure(figsize=(width / 72, height / 72), dpi=144, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, columns, squeeze=False)[0]
        for axes in panels:
            _style(axes, _LIGHT[AXIS], _LIGHT[GRID])
        draw(*panels)
        figure.savefig(draft, format="png", metadata={"Software": None, "Description": label})


def light_colours() -> tuple[str, ...]:
    """The colours of series on a white ground."""
    return tuple(_LIGHT[colour] for colour in SERIES)


def _style(axes: "Axes", axis: str = AXIS, grid: str = GRID) -> None:
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(grid)
    axes.tick_params(length=0, pad=5, labelcolor=axis)
    axes.grid(axis="y", color=grid, linewidth=0.8)
    axes.set_axisbelow(True)


def _draw_line(axes: "Axes", line: Line, buckets: int) -> None:
    """One curve; where it has more points than pixels, the mean of neighbours and a band of their extremes."""
    colour = SERIES[line.colour % len(SERIES)]
    points = line.points
    if len(points) > 2 * buckets:
        groups = _groups(points, buckets)
        xs = [fmean(x for x, _ in group) for group in groups]
        finite = [[y for _, y in group if math.isfinite(y)] or [math.nan] for group in groups]
        axes.fill_between(xs, [min(g) for g in finite], [max(g) for g in finite], color=colour, alpha=0.22, lw=0)
        axes.plot(xs, [fmean(g) for g in finite], color=colour, lw=1.8)
        return
    if len(line.finite) <= _DOTTED:
        axes.plot(*zip(*points, strict=True), color=colour, lw=1.8, marker="o", ms=4, mew=0)
        return
    axes.plot(*zip(*points, strict=True), color=colour, lw=1, alpha=0.35)
    axes.plot(*zip(*smoothed(line.finite), strict=True), color=colour, lw=1.8)


def smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Each point's mean with its neighbours, a twentieth of all; fewer at the ends, as many on either side."""
    reach = max(1, len(points) // _SMOOTHED_SHARE // 2)
    found = []
    for number, (x, _) in enumerate(points):
        near = min(reach, number, len(points) - 1 - number)
        found.append((x, fmean(y for _, y in points[number - near : number + near + 1])))
    return found


def _groups(points: Sequence[tuple[float, float]], count: int) -> list[Sequence[tuple[float, float]]]:
    """`points` in `count` runs of nearly the same length."""
    bounds = [len(points) * n // count for n in range(count + 1)]
    return [points[start:stop] for start, stop in pairwise(bounds)]


def _below_zero(chart: Chart) -> bool:
    return any(y < 0 for line in chart.lines for _, y in line.finite)


def _log_steps(ratio: float) -> tuple[float, ...]:
    """Which multiples of a power of ten to label, for an axis whose ends have this ratio."""
    if ratio < 100:
        return (1.0, 2.0, 5.0)
    return (1.0, 3.0) if ratio < 1000 else (1.0,)


def _tick(value: float) -> str:
    """A short label for a tick: 25k, 0.5, 3e-4."""
    size = abs(value)
    if size >= 1e12 or 0 < size < 1e-3:
        digits, exponent = f"{value:.3e}".split("e")
        return f"{float(digits):g}e{int(exponent)}"
    for limit, unit, divisor in ((1e9, "G", 1e9), (1e6, "M", 1e6), (1e5, "k", 1e3)):
        if size >= limit:
            return f"{value / divisor:g}{unit}"
    return f"{value:,.0f}" if size >= 1000 and value == int(value) else f"{value:g}"


def _inline(document: str, uid: str, width: int, height: int, label: str, overlay: str = "") -> str:
    """matplotlib's SVG file as an element of an HTML page: own ids, own colours, the page's fonts, fewer digits."""
    body = re.search(r"<svg[^>]*>(.*)</svg>", document, re.DOTALL)
    if body is None:
        raise ValueError("the drawing holds no <svg> element")
    # The style sheet in the drawing would reach every element of the page.
    svg = re.sub(r"<style\b.*?</style>|<metadata\b.*?</metadata>", "", body[1], flags=re.DOTALL)
    svg = svg.replace("xlink:href=", "href=")
    used = dict.fromkeys(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg))
    names = {first or second: f"{uid}-{n}" for n, (first, second) in enumerate(used)}
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{names[m[1]]}"' if m[1] in names else "", svg)
    svg = re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#{names[m[1]]})", svg)
    svg = re.sub(r'href="#([^"]+)"', lambda m: f'href="#{names[m[1]]}"', svg)
    svg = re.sub(r" font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r' transform="rotate\(-?0 [^"]*\)"', "", svg)
    svg = re.sub(r'\b(d|x|y|width|height)="([^"]*)"', lambda m: f'{m[1]}="{_rounded(m[2])}"', svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r"<defs>\s*</defs>", "", svg)
    svg = re.sub(r"\s*\n\s*", "\n", svg).strip()
    name, size = html.escape(label), f'viewBox="0 0 {width} {height}" class="plot"'
    if not overlay:
        return f'<svg role="img" aria-label="{name}" {size}>\n{svg}\n</svg>'
    # An image may hold nothing that a keyboard stops at.
    return f'<svg role="group" aria-label="{name}" {size}>\n<g aria-hidden="true">\n{svg}\n</g>\n{overlay}\n</svg>'


def _rounded(numbers: str) -> str:
    """The numbers in an attribute to a hundredth of a pixel, and its lines joined."""
    return re.sub(r"-?\d+\.\d+", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), " ".join(numbers.split()))
