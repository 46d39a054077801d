"""Curves of a training run as inline SVG: the drawing half of `hf_gpt.reporting.report`.

Colours are written as CSS variables, so that one drawing serves the light and the dark scheme of the page around it.
"""

import html
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from hf_gpt.files.atomic_files import replaces_file


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

_EVALUATION = "Evaluation"
# A float above this is a run gone astray, and overflows the arithmetic of an axis.
_LARGEST = 1e100
# Up to this many points a line carries a dot at each of them.
_DOTTED = 40
# How wide a group of neighbouring points is drawn, in pixels, where a line has too many to tell apart.
_PIXELS = 4
# An axis turns logarithmic where one value would flatten all the others.
_SPREAD = 20.0


@dataclass(frozen=True)
class Line:
    """One curve: `points` are (x, y), ascending in x; a y that is not finite leaves a gap."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: int = 0

    @property
    def finite(self) -> list[tuple[float, float]]:
        """The points that can be drawn."""
        return [(x, y) for x, y in self.points if math.isfinite(y)]


@dataclass(frozen=True)
class Chart:
    """One or more curves on common axes; `from_zero` starts the vertical axis at zero, `x_range` fixes the other."""

    title: str
    lines: Sequence[Line]
    from_zero: bool = False
    x_label: str = "step"
    x_range: tuple[float, float] | None = None

    @property
    def logarithmic(self) -> bool:
        """Whether the vertical axis is drawn on a logarithmic scale."""
        values = [y for line in self.lines for _, y in line.finite]
        return bool(values) and min(values) > 0 and max(values) > _SPREAD * median(values)


def format_number(value: float) -> str:
    """A number for a reader: four significant digits, thousands set apart."""
    if not math.isfinite(value):
        return "NaN"
    if 1e-4 <= abs(value) < 1000:
        return f"{value:.4g}"
    if value == 0 or 1000 <= abs(value) < 1e15:
        return f"{value:,.0f}"
    digits, exponent = f"{value:.3e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def format_column(values: Sequence[float]) -> list[str]:
    """The numbers of one column, all with the same number of decimals."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest >= 1e9 or 0 < largest < 0.01:
        return [
            format_number(value) if value == 0 or not math.isfinite(value) else _scientific(value) for value in values
        ]
    whole = all(value == int(value) for value in values if math.isfinite(value))
    decimals = 0 if whole or largest >= 1000 else 3 if largest < 100 else 1
    return [f"{value:,.{decimals}f}" if math.isfinite(value) else "NaN" for value in values]


def _scientific(value: float) -> str:
    digits, exponent = f"{value:.2e}".split("e")
    return f"{digits}e{int(exponent)}"


def as_number(value: object) -> float | None:
    """`value` as a float (NaN where no axis could hold it), or None where it is no number at all."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
    return number if abs(number) <= _LARGEST else math.nan


def series(log_history: Iterable[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """The (step, value) pairs logged under `key`, ascending; the last value wins where a step was logged twice."""
    points: dict[float, float] = {}
    for entry in log_history:
        step, value = as_number(entry.get("step")), as_number(entry.get(key))
        if step is not None and value is not None and math.isfinite(step):
            points[step] = value
    return sorted(points.items())


def training_charts(log_history: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """The charts that a Trainer's `log_history` has data for: loss, bits per byte, learning rate, speed, gradients. For
    adversarial training also updates, gate, AUC and loss of the discriminator, reward, entropy and held-out loss.
    """
    # The adversarial loss is another quantity than the negative log-likelihood of warm-up and evaluation.
    adversarial = [entry for entry in log_history if entry.get("phase") == "adversarial"]
    others = [entry for entry in log_history if entry.get("phase") != "adversarial"]
    charts = [
        Chart("Loss", _with_evaluation(others, "loss")),
        Chart("Adversarial loss of the generator", [Line("Generator's loss", series(adversarial, "loss"))]),
        Chart("Bits per byte", _with_evaluation(log_history, "bits_per_byte")),
        Chart("Learning rate", [Line("Learning rate", series(log_history, "learning_rate"), 2)], from_zero=True),
        Chart("Tokens per second", [Line("Tokens per second", series(log_history, "tokens_per_second"), 2)], True),
        Chart("Gradient norm", [Line("Gradient norm", series(log_history, "grad_norm"), 2)], from_zero=True),
        *_pair_charts(log_history),
    ]
    steps = [x for chart in charts for line in chart.lines for x, _ in line.points]
    # One range for all, so that a reader can follow a moment of the run from chart to chart.
    shared = (min(steps), max(steps)) if steps else None
    return [replace(chart, x_range=shared) for chart in charts if any(line.points for line in chart.lines)]


def _pair_charts(log_history: Sequence[Mapping[str, Any]]) -> list[Chart]:
    def lines(*named: tuple[str, str]) -> list[Line]:
        found = [Line(label, series(log_history, name), colour) for colour, (label, name) in enumerate(named)]
        return [line for line in found if line.points]

    updates = lines(("Generator", "generator_updates"), ("Discriminator", "d_updates"))
    return [
        Chart("Updates so far", updates, from_zero=True),
        Chart("Share of steps skipped by the gate", lines(("Skipped", "gate_shut")), from_zero=True),
        Chart("Discriminator's AUC", lines(("Held out", "d_auc_heldout"), ("Training", "d_auc_train"))),
        Chart(
            "AUC of the two-sample test (C2ST)",
            lines(("Real and generated text", "eval_fresh_auc"), ("Real and other real text", "eval_fresh_auc_real")),
        ),
        Chart("Discriminator's loss", lines(("Discriminator's loss", "d_loss"))),
        Chart("Reward", lines(("Mean", "reward_mean"), ("Spread within a prompt", "reward_std_within"))),
        Chart("Entropy and held-out loss", lines(("Entropy", "entropy"), ("Held-out loss", "nll_heldout"))),
    ]


def _with_evaluation(log_history: Sequence[Mapping[str, Any]], measure: str) -> list[Line]:
    """The curve of `measure` in training, and one for each evaluation set that was measured."""
    named = re.compile(rf"eval_(?:(.+)_)?{measure}")
    keys = {key: match for entry in log_history for key in entry if (match := named.fullmatch(str(key)))}
    lines = [Line("Training", series(log_history, measure))]
    for n, (key, match) in enumerate(keys.items()):
        label = f"{_EVALUATION}, {match[1]}" if match[1] else _EVALUATION
        lines.append(Line(label, series(log_history, key), 1 + n % (len(SERIES) - 1)))
    return [line for line in lines if line.points]


def tabulate(
    log_history: Sequence[Mapping[str, Any]], charts: Sequence[Chart], rows: int
) -> tuple[list[str], list[list[str]]]:
    """Column names and at most `rows` rows of the values in the charts, at the evaluations if there are some."""
    columns: dict[str, dict[float, float]] = {}
    epochs = {x: y for x, y in series(log_history, "epoch") if math.isfinite(y)}
    if epochs:
        columns["Epoch"] = epochs
    for chart in charts:
        for line in chart.lines:
            kind = f"{line.label[0].lower()}{line.label[1:]}"
            columns[chart.title if line.label == chart.title else f"{chart.title}, {kind}"] = dict(line.points)
    every = sorted({x for chart in charts for line in chart.lines for x, _ in line.points})
    lines = [line for chart in charts for line in chart.lines if line.label.startswith(_EVALUATION)]
    evaluated = {x for line in lines for x, _ in line.points}
    steps = _spread({every[0], *evaluated, every[-1]} if len(evaluated) > 4 else every, rows)
    cells = [[format_number(step) for step in steps]]
    for column in columns.values():
        known = [step for step in steps if step in column]
        texts = dict(zip(known, format_column([column[step] for step in known]), strict=True))
        cells.append([texts.get(step, "–") for step in steps])
    return ["Step", *columns], [list(row) for row in zip(*cells, strict=True)]


def _spread(values: Iterable[float], count: int) -> list[float]:
    """At most `count` of the values, evenly apart in rank, the least and the greatest among them."""
    ordered = sorted(values)
    if len(ordered) <= count:
        return ordered
    return [ordered[round(n * (len(ordered) - 1) / (count - 1))] for n in range(count)]


def is_condensed(chart: Chart, width: int) -> bool:
    """Whether a drawing of this width shows means and bands in place of single points."""
    return any(len(line.points) > 2 * (width // _PIXELS) for line in chart.lines)


def describe(chart: Chart) -> str:
    """The chart in words, for whoever cannot see it."""
    lines = " ".join(describe_line(line, chart.x_label) for line in chart.lines)
    return f"{chart.title} against {chart.x_label}. {lines}"


def describe_line(line: Line, x_label: str) -> str:
    """One curve in words: where it starts and ends, and its extremes."""
    points = line.finite
    if not points:
        return f"{line.label}: no finite value."
    first, last = [f"{format_number(y)} at {x_label} {format_number(x)}" for x, y in (points[0], points[-1])]
    if len(points) == 1:
        return f"{line.label}: {first}."
    values = [y for _, y in points]
    extremes = f"lowest {format_number(min(values))}, highest {format_number(max(values))}"
    return f"{line.label}: from {first} to {last}; {extremes}."


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

    return render_svg(draw, uid=uid, width=width, height=height, label=describe(chart))


def render_svg(draw: Callable[["Axes"], None], *, uid: str, width: int, height: int, label: str) -> str:
    """Whatever `draw` puts on a pair of axes, as an `<svg>` element fit for any page.

    Args:
        draw: Is handed empty axes; colours are to come from `SERIES`, `AXIS` and `GRID`.
        uid: Prefix of every id in the drawing, unique in the page.
        width: Width in CSS pixels that the letters are sized for.
        height: Height that goes with it.
        label: What the drawing shows, in words.
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
    return _inline(stream.getvalue(), uid, width, height, label)


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
    marker = "o" if len(line.finite) <= _DOTTED else ""
    axes.plot(*zip(*points, strict=True), color=colour, lw=1.8, marker=marker, ms=4, mew=0)


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


def _inline(document: str, uid: str, width: int, height: int, label: str) -> str:
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
    name = html.escape(label)
    return f'<svg role="img" aria-label="{name}" viewBox="0 0 {width} {height}" class="plot">\n{svg}\n</svg>'


def _rounded(numbers: str) -> str:
    """The numbers in an attribute to a hundredth of a pixel, and its lines joined."""
    return re.sub(r"-?\d+\.\d+", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), " ".join(numbers.split()))
