"""Table, plot and verdict of the resampling experiment."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.experiments.common.reports import markdown_table
from eval.experiments.resampling.curves import PASS_LINE, Points, passes, position, seeds_of, summarise
from eval.experiments.resampling.stage import CORPORA
from hf_gpt.files.atomic_files import write_text
from hf_gpt.reporting.plots import light_colours, save_png


if TYPE_CHECKING:
    from matplotlib.axes import Axes

# How the names of points begin.
TEMPERATURE, TOP_P, LARGER, REAL = "temperature", "top-p", "larger model", "real"
CURVES = {"temperature": (f"{TEMPERATURE} ",), "samplers": (f"{TEMPERATURE} ", f"{TOP_P} "), "larger": (f"{LARGER} T",)}
HEADINGS = {
    "temperature": "gain over temperature",
    "samplers": "over temperature and top-p",
    "larger": "over the larger model's temperature",
}


def write_table(title: str, points: Points, num_samples: int, folder: Path) -> str:
    """Writes `results.md` and returns its text."""
    text = table(title, points, num_samples)
    write_text(folder / "results.md", text)
    return text


def write_plot(output: Path) -> None:
    """Writes `resampling.png`: a panel for each corpus that has results in the folder, means over its seeds."""
    panels = {}
    for name, corpus in CORPORA.items():
        file = output / name / "results.json"
        if file.exists():
            panels[corpus.title] = json.loads(file.read_text(encoding="utf-8"))["points"]

    def plot(*axes: "Axes") -> None:
        for own, (title, points) in zip(axes, panels.items(), strict=True):
            _plot(own, title, points)

    label = "LM score against reverse-LM score of samplers and of texts that discriminators chose"
    path = output / "resampling.png"
    save_png(plot, path, width=480 * len(panels), height=430, columns=len(panels), label=label)


def table(title: str, points: Points, num_samples: int) -> str:
    """Every point with its gain over each curve in each seed, and which ways of choosing pass."""
    seeds = seeds_of(points)
    summary = summarise(points, seeds, CURVES)
    columns = {
        "texts": "name",
        "LM score": "lm_score:.3f",
        "reverse-LM score": "reverse_lm_score:.3f",
        "distinct": "distinct_share:.1%",
    } | {heading: f"shown_{curve}" for curve, heading in HEADINGS.items()}
    rows = [row | {f"shown_{curve}": _shown(row, curve, seeds) for curve in CURVES} for row in summary]
    chosen = [row for row in rows if is_choice(row["name"])]
    passed = [row["name"] for row in chosen if passes(row["gain_temperature"])]
    verdict = f"passed by {', '.join(passed)}" if passed else "not reached"
    return "\n".join(
        [
            f"# Discriminator resampling against temperature, {title}",
            "",
            f"{num_samples} texts a point, seeds {', '.join(map(str, seeds))}. LM score and reverse-LM score in nats a "
            "word, lower is better. Gain: how far the LM score lies below a curve at equal reverse-LM score, mean and "
            "each seed.",
            "",
            markdown_table(rows, columns),
            "",
            f"Pass line, at least {PASS_LINE} nats below temperature in every seed: {verdict}.",
            "",
            *_discriminators(points, seeds),
            "",
        ]
    )


def is_choice(name: str) -> bool:
    """Whether a discriminator chose these texts."""
    return not name.startswith((f"{TEMPERATURE} ", f"{TOP_P} ", f"{LARGER} T", REAL))


def _plot(axes: "Axes", title: str, points: Points) -> None:
    rows = {row["name"]: position(row) for row in summarise(points, seeds_of(points), {})}
    colours = light_colours()
    chosen = {_family(name) for name in rows if is_choice(name)}
    families: dict[str, list[tuple[float, float]]] = {}
    for name, found in rows.items():
        families.setdefault(_family(name), []).append(found)
    palette = iter([*colours, "#b8860b", "#b83280", "#4a5568", "#319795"])
    for family, positions in families.items():
        if family == REAL:
            continue
        style = "x" if family in chosen else "o-"
        axes.plot(*zip(*sorted(positions), strict=True), style, label=family, ms=5, lw=1.3, color=next(palette))
    axes.set_xlabel("reverse-LM score, nats a word (lower: more diverse)")
    axes.set_title(f"{title}: LM score, nats a word", loc="left", fontsize=12)
    axes.legend(frameon=False, fontsize=9)


def _family(name: str) -> str:
    if ":" in name:
        return name.split(":")[0]
    return next(family for family in (TEMPERATURE, TOP_P, LARGER, REAL) if name.startswith(family))


def _shown(row: Mapping[str, Any], curve: str, seeds: Sequence[int]) -> str | None:
    if not is_choice(row["name"]):
        return None
    gains = dict(zip(seeds, row[f"gain_{curve}"], strict=True))
    found = [gain for gain in gains.values() if gain is not None]
    missing = {seed: "beyond" if seed in row["seeds"] else "not measured" for seed in seeds}
    each = ", ".join(missing[seed] if gain is None else f"{gain:+.2f}" for seed, gain in gains.items())
    return f"{statistics.fmean(found):+.3f} ({each})" if found else "beyond"


def _discriminators(points: Points, seeds: Sequence[int]) -> list[str]:
    names = dict.fromkeys(key.split("/", 1)[1] for key, point in points.items() if "unseen_auc" in point)
    lines = []
    for name in names:
        found = [points[f"{seed}/{name}"]["unseen_auc"] for seed in seeds if f"{seed}/{name}" in points]
        lines.append(f"- {name}: AUC on texts that no model has seen {', '.join(f'{value:.3f}' for value in found)}")
    return lines
