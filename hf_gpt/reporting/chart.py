"""What a training run logged, as charts: curves, their titles and their numbers, without any drawing."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal


# Colours of curves that a chart tells apart.
NUM_COLOURS = 4
_EVALUATION = "Evaluation"
# A float above this is a run gone astray, and overflows the arithmetic of an axis.
_LARGEST = 1e100
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
    """One or more curves on common axes.

    Attributes:
        title: What is drawn.
        lines: The curves.
        from_zero: Whether the vertical axis starts at zero.
        x_label: Of the horizontal axis.
        x_range: Ends of the horizontal axis; None: those of the points.
        better: Which direction is better; None where neither is.
    """

    title: str
    lines: Sequence[Line]
    from_zero: bool = False
    x_label: str = "step"
    x_range: tuple[float, float] | None = None
    better: Literal["lower", "higher"] | None = None

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
        Chart("Loss", better="lower", lines=_with_evaluation(others, "loss")),
        Chart("Adversarial loss of the generator", [Line("Generator's loss", series(adversarial, "loss"))]),
        Chart("Bits per byte", better="lower", lines=_with_evaluation(log_history, "bits_per_byte")),
        Chart("Learning rate", [Line("Learning rate", series(log_history, "learning_rate"), 2)], from_zero=True),
        Chart(
            "Tokens per second",
            [Line("Tokens per second", series(log_history, "tokens_per_second"), 2)],
            True,
            better="higher",
        ),
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
            better="lower",
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
        lines.append(Line(label, series(log_history, key), 1 + n % (NUM_COLOURS - 1)))
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
