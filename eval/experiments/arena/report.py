"""Table, plot and verdict of the arena."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from eval.experiments.arena.curves import Point, best, gain, points_of
from eval.experiments.arena.settings import CEILINGS, LIKELIHOOD
from eval.experiments.common.reports import listed, markdown_table, save_panels, spread, write_page
from hf_gpt.reporting.plots import light_colours


Run = Mapping[str, Any]

# The line to reach: nats per token of KL(q || p) below maximum likelihood at equal H(q), in each seed.
LEAST_GAIN = 0.10


def write_report(runs: Sequence[Run], output: Path) -> str:
    """Writes `arena.md` and `arena.png`; returns the table's text."""
    text = write_page(output, "arena", table(runs))
    panels = [partial(_plot, run=run) for run in runs]
    save_panels(output / "arena.png", panels, width=460, height=420, label=text)
    return text


def table(runs: Sequence[Run]) -> str:
    """The runs in Markdown: an arm a row, nats per token."""
    names = [name for name in runs[0]["arms"] if all(name in run["arms"] for run in runs)]
    entropies = [_estimate(run, run["arms"][names[0]]["curve"][0], "entropy_p") for run in runs]
    passed = [name for name in names if name not in (LIKELIHOOD, *CEILINGS) and _passes(name, runs)]
    return "\n\n".join(
        [
            f"Seeds {listed(run['seed'] for run in runs)}; nats per token, mean ± standard deviation over seeds; "
            f"H(p) = {spread(entropies)}.",
            markdown_table([_row(name, runs) for name in names]),
            f"Line: at each arm's best temperature KL(q‖p) is at least {LEAST_GAIN} below that of MLE at equal H(q), "
            f"and the two-sample test's AUC is lower, in each seed. Reached by: {', '.join(passed) or 'none'}.",
        ]
    )


def _row(name: str, runs: Sequence[Run]) -> dict[str, str]:
    arms = [run["arms"][name] for run in runs]
    curves = [_points(run, name) for run in runs]
    bests = [best(curve) for curve in curves]
    ones = [next(point for point in curve if point.temperature == 1) for curve in curves]
    stored = [next(point for point in arm["curve"] if point["temperature"] == 1) for arm in arms]
    temperatures = listed(point.temperature for point in bests)
    return {
        "arm": name,
        "H(q)": spread(point.entropy for point in bests),
        "KL(q‖p), best T": f"{spread(point.kl for point in bests)} (T {temperatures})",
        "gain over MLE at equal H(q), each seed ± s.e.": _gain_texts(name, runs, bests),
        "KL(q‖p), T = 1": spread(point.kl for point in ones),
        "H(q), T = 1": spread(point.entropy for point in ones),
        "gain, T = 1": _gain_texts(name, runs, ones),
        "KL(p‖q), T = 1": spread(_estimate(run, point, "kl_pq") for run, point in zip(runs, stored, strict=True)),
        "perfect AUC, T = 1": spread(point["perfect_auc"] for point in stored),
        "fresh AUC, best T (MLE's at equal H(q))": listed(
            _auc_text(name, run, point.temperature) for run, point in zip(runs, bests, strict=True)
        ),
        "fresh AUC, T = 1": listed(_auc_text(name, run, 1.0) for run in runs),
        "GFLOPs": f"{fmean(arm['cost']['flops'] for arm in arms) / 1e9:.0f}",
        "CPU-s": f"{fmean(arm['cost']['seconds'] for arm in arms):.0f}",
    }


def _points(run: Run, name: str) -> list[Point]:
    return points_of(run["arms"][name], run["settings"]["length"]) if name in run["arms"] else []


def _gain_texts(name: str, runs: Sequence[Run], points: Sequence[Point]) -> str:
    if name == LIKELIHOOD:
        return "–"
    found = [gain(point, _points(run, LIKELIHOOD)) for run, point in zip(runs, points, strict=True)]
    return listed("beyond" if pair is None else f"{pair[0]:+.3f} ± {pair[1]:.3f}" for pair in found)


def _passes(name: str, runs: Sequence[Run]) -> bool:
    for run in runs:
        point = best(_points(run, name))
        found, aucs = gain(point, _points(run, LIKELIHOOD)), _aucs(name, run, point.temperature)
        if found is None or found[0] < LEAST_GAIN or aucs is None or aucs[0] >= aucs[1]:
            return False
    return True


def _aucs(name: str, run: Run, temperature: float) -> tuple[float, float] | None:
    """The two-sample test's AUC for an arm at a temperature, and for MLE at the same entropy."""
    for found in run["arms"][name].get("fresh", ()):
        if found["temperature"] == temperature and found["baseline"] is not None:
            return found["arm"]["auc"], found["baseline"]["auc"]
    return None


def _auc_text(name: str, run: Run, temperature: float) -> str:
    found = _aucs(name, run, temperature)
    if found is None:
        return "beyond"
    return f"{found[0]:.3f}" if name == LIKELIHOOD else f"{found[0]:.3f} ({found[1]:.3f})"


def _estimate(run: Run, point: Mapping[str, Any], name: str) -> float:
    return point[name]["value"] / run["settings"]["length"]


def _plot(axes: Axes, run: Run) -> None:
    colours, marks = light_colours(), ("-o", "--s", ":^")
    for number, name in enumerate(run["arms"]):
        points = sorted(_points(run, name), key=lambda point: point.entropy)
        axes.errorbar(
            [point.entropy for point in points],
            [point.kl for point in points],
            [point.error for point in points],
            fmt=marks[number // len(colours)],
            color=colours[number % len(colours)],
            ms=4,
            lw=1.5,
            label=name,
        )
    axes.set_xlabel(f"H(q), nats per token; seed {run['seed']}")
    axes.set_title("KL(q‖p), nats per token, over temperatures", loc="left", fontsize=12)
    axes.legend(frameon=False, fontsize=9)
