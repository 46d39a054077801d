"""Table, plot and verdict of the resampling experiment."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from eval.experiments.common.reports import listed, markdown_table, save_panels, write_page
from eval.experiments.common.results import read_json
from eval.experiments.resampling.stage import CORPORA
from hf_gpt.reporting.plots import light_colours


# Points by "seed/name".
Points = Mapping[str, Mapping[str, Any]]

PASS_LINE = 0.1
# How the names of points begin.
TEMPERATURE, TOP_P, LARGER, REAL = "temperature", "top-p", "larger model", "real"
# Curve that gains are taken over: how the names of its points begin.
CURVES = {
    "gain over temperature": (f"{TEMPERATURE} ",),
    "over temperature and top-p": (f"{TEMPERATURE} ", f"{TOP_P} "),
    "over the larger model's temperature": (f"{LARGER} T",),
}


def write_table(title: str, points: Points, num_samples: int, folder: Path) -> str:
    """Writes `results.md`, every point with its gain over each curve in each seed, and returns its text."""
    seeds = sorted({int(key.split("/", 1)[0]) for key, point in points.items() if "lm_score" in point})
    rows, passed = [], []
    for name in names_of(points):
        found = [points[f"{seed}/{name}"] for seed in seeds if f"{seed}/{name}" in points]
        row: dict[str, Any] = {
            "texts": name,
            "LM score": f"{fmean(point['lm_score'] for point in found):.3f}",
            "reverse-LM score": f"{fmean(point['reverse_lm_score'] for point in found):.3f}",
            "distinct": f"{fmean(point['distinct_share'] for point in found):.1%}",
        }
        gains = {curve: [gain(points, seed, name, prefixes) for seed in seeds] for curve, prefixes in CURVES.items()}
        row |= {curve: _shown(values) if is_choice(name) else None for curve, values in gains.items()}
        over_temperature = gains["gain over temperature"]
        if is_choice(name) and all(isinstance(value, float) and value >= PASS_LINE for value in over_temperature):
            passed.append(name)
        rows.append(row)
    judged = dict.fromkeys(key.split("/", 1)[1] for key, point in points.items() if "unseen_auc" in point)
    aucs = {
        name: [points[f"{seed}/{name}"]["unseen_auc"] for seed in seeds if f"{seed}/{name}" in points]
        for name in judged
    }
    return write_page(
        folder,
        "results",
        f"# Discriminator resampling against temperature, {title}",
        f"{num_samples} texts a point, seeds {listed(seeds)}. LM score and reverse-LM score in nats a word, lower is "
        "better. Gain: how far the LM score lies below a curve at equal reverse-LM score, mean and each seed.",
        markdown_table(rows),
        f"Pass line, at least {PASS_LINE} nats below temperature in every seed: "
        f"{f'passed by {listed(passed)}' if passed else 'not reached'}.",
        "\n".join(
            f"- {name}: AUC on texts that no model has seen {listed(f'{value:.3f}' for value in found)}"
            for name, found in aucs.items()
        ),
    )


def gain(points: Points, seed: int, name: str, prefixes: tuple[str, ...]) -> float | str:
    """How far below a seed's curve the LM score of a point lies, in nats, at its reverse-LM score, or why not.

    At a better diversity than any of the curve's it is held against the curve's most diverse point, which flatters the
    curve. Points of the curve that another one beats in both scores do not count; their names begin with `prefixes`.
    """
    if f"{seed}/{name}" not in points:
        return "not measured"
    reverse, quality = position(points[f"{seed}/{name}"])
    starts = tuple(f"{seed}/{prefix}" for prefix in prefixes)
    curve: list[tuple[float, float]] = []
    for other in sorted(position(point) for key, point in points.items() if key.startswith(starts)):
        if not curve or other[1] < curve[-1][1]:
            curve.append(other)
    if not curve or reverse > curve[-1][0]:
        return "beyond"
    return float(np.interp(reverse, *zip(*curve, strict=True))) - quality


def position(point: Mapping[str, Any]) -> tuple[float, float]:
    """Reverse-LM and LM score."""
    return point["reverse_lm_score"], point["lm_score"]


def names_of(points: Points) -> list[str]:
    """Names of the points on the plane, in the order in which they were measured."""
    return list(dict.fromkeys(key.split("/", 1)[1] for key, point in points.items() if "lm_score" in point))


def is_choice(name: str) -> bool:
    """Whether a discriminator chose these texts."""
    return ":" in name


def _shown(gains: Sequence[float | str]) -> str:
    found = [value for value in gains if isinstance(value, float)]
    each = listed(value if isinstance(value, str) else f"{value:+.2f}" for value in gains)
    return f"{fmean(found):+.3f} ({each})" if found else "beyond"


def write_plot(output: Path) -> None:
    """Writes `resampling.png`: a panel for each corpus that has results in the folder, means over its seeds."""
    found = {corpus.title: output / name / "results.json" for name, corpus in CORPORA.items()}
    panels = [
        partial(_plot, title=title, points=read_json(path)["points"]) for title, path in found.items() if path.exists()
    ]
    label = "LM score against reverse-LM score of samplers and of texts that discriminators chose"
    save_panels(output / "resampling.png", panels, width=480, height=430, label=label)


def _plot(axes: Axes, title: str, points: Points) -> None:
    families: dict[str, list[tuple[float, float]]] = {}
    for name in names_of(points):
        found = [position(point) for key, point in points.items() if key.split("/", 1)[1] == name]
        family = (
            name.split(":")[0] if is_choice(name) else next(f for f in (TEMPERATURE, TOP_P, LARGER, REAL) if f in name)
        )
        families.setdefault(family, []).append(tuple(fmean(scores) for scores in zip(*found, strict=True)))
    palette = iter([*light_colours(), "#b8860b", "#b83280", "#4a5568", "#319795"])
    choices = {name.split(":")[0] for name in names_of(points) if is_choice(name)}
    for family, positions in families.items():
        if family != REAL:
            style = "x" if family in choices else "o-"
            axes.plot(*zip(*sorted(positions), strict=True), style, label=family, ms=5, lw=1.3, color=next(palette))
    axes.set_xlabel("reverse-LM score, nats a word (lower: more diverse)")
    axes.set_title(f"{title}: LM score, nats a word", loc="left", fontsize=12)
    axes.legend(frameon=False, fontsize=9)
