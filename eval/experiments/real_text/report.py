"""Table, gains and plot of the experiment on real text."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from eval.experiments.common.reports import between, listed, markdown_table, signed
from hf_gpt.reporting.plots import light_colours, save_png


REAL = "real text"
LIKELIHOOD, OURS, DISCRIMINATOR = "MLE, same compute", "adversarial", "its discriminator's samples"
DISTILLED = "distilled from its discriminator, no game"
OURS_CHOSEN, LIKELIHOOD_CHOSEN = "adversarial, its discriminator chooses", "MLE, that discriminator chooses"
OURS_RESAMPLED = "adversarial, its discriminator resamples prefixes"
LIKELIHOOD_RESAMPLED = "MLE, that discriminator resamples prefixes"
# Metrics by name; better is higher for those with 1, lower for those with -1.
QUALITIES = {"bleu5": 1, "auc": -1}
HEADINGS = {"bleu5": "BLEU-5", "auc": "two-sample test's AUC"}

# What is varied along a curve, and the point that all have.
SAMPLERS = {"temperature": "-", "top_p": ":"}
OWN_DISTRIBUTION = "temperature 1"

Row = Mapping[str, Any]


def gain(
    row: Row, rows: Sequence[Row], quality: str, baseline: str = LIKELIHOOD, samplers: Iterable[str] = SAMPLERS
) -> float | None:
    """How much better a point is than a baseline of the same seed at equal self-BLEU-5; positive is better.

    The baseline is taken on the straight lines between its temperatures, or between its values of top-p, whichever is
    better there.

    None beyond the range of the baseline's samplers, of which `samplers` count.
    """
    own = [other for other in rows if other["model"] == baseline and other["seed"] == row["seed"]]
    found = []
    for sampler in samplers:
        line = [(other["self_bleu5"], other[quality]) for other in own if _is_sampled_by(sampler, other)]
        height = between(line, row["self_bleu5"])
        if height is not None:
            found.append(QUALITIES[quality] * (row[quality] - height))
    return min(found, default=None)


def _is_sampled_by(sampler: str, row: Row) -> bool:
    """Whether a point is on the curve of a sampler, of which each begins with the model's own distribution."""
    return row["setting"].startswith(sampler) or row["setting"] == OWN_DISTRIBUTION


def report(corpus: str, rows: Sequence[Row]) -> str:
    """Markdown: every point with its gains in each seed, how many points of each model gain, of all and of those that
    are at most as diverse as real text, and what adversarial training gains beside the distillation before it.
    """
    own = [row for row in rows if row["corpus"] == corpus]
    seeds = sorted({row["seed"] for row in own})
    table, gained = [], {}
    for model, setting in dict.fromkeys((row["model"], row["setting"]) for row in own):
        some = [row for row in own if (row["model"], row["setting"]) == (model, setting)]
        shown = {"model": model, "setting": setting}
        shown |= {key: fmean(row[key] for row in some) for key in (*QUALITIES, "self_bleu5")}
        if model not in (LIKELIHOOD, REAL):
            for quality in QUALITIES:
                found = [gain(row, own, quality) for row in some]
                shown[f"{quality}_gain"] = listed(map(signed, found))
                by = f"{model} by {setting.split()[0].replace('_', '-')}"
                gained.setdefault((by, quality), []).extend(found)
        table.append(shown)
    columns = {
        "model": "model",
        "sampler": "setting",
        "self-BLEU-5": "self_bleu5:.3f",
        "BLEU-5": "bleu5:.3f",
        "gained, each seed": "bleu5_gain",
        "AUC": "auc:.3f",
        "gained, each seed ": "auc_gain",
    }
    lines = [f"## {corpus}, seeds {', '.join(map(str, seeds))}", "", markdown_table(table, columns), ""]
    for (by, quality), found in gained.items():
        lines += _verdict(f"{by}, {HEADINGS[quality]} at equal self-BLEU-5", found)
    real = {row["seed"]: row["self_bleu5"] for row in own if row["model"] == REAL}
    ours = [row for row in own if row["model"] == OURS and row["setting"].startswith("temperature")]
    nuclei = [row for row in own if row["model"] == OURS and row["setting"].startswith("top_p")]
    for quality in QUALITIES:
        beside = [gain(row, own, quality, samplers=["top_p"]) for row in nuclei]
        lines += _verdict(f"{OURS} by top-p, {HEADINGS[quality]}, beside top-p alone", beside)
        near = [gain(row, own, quality) for row in ours if row["self_bleu5"] >= real.get(row["seed"], 1)]
        lines += _verdict(f"{OURS} by temperature, {HEADINGS[quality]}, where at most as diverse as real text", near)
        if any(row["model"] == DISTILLED for row in own):
            beside = [gain(row, own, quality, DISTILLED) for row in ours]
            lines += _verdict(f"{OURS} beside {DISTILLED}, {HEADINGS[quality]}", beside)
    return "\n".join([*lines, ""])


def _verdict(what: str, gains: Sequence[float | None]) -> list[str]:
    """A line that says how many points gain, and what; none where nothing can be compared."""
    found = [value for value in gains if value is not None]
    if not found:
        return []
    told = f"{fmean(found):+.3f} on the mean ({min(found):+.3f} to {max(found):+.3f})"
    return [f"- {what}: better at {sum(value > 0 for value in found)} of {len(found)}, {told}"]


def plot(corpus: str, rows: Sequence[Row], path: Path) -> None:
    """Writes a PNG: both qualities against self-BLEU-5, a curve a model, means over seeds."""
    own = [row for row in rows if row["corpus"] == corpus]
    models = list(dict.fromkeys(row["model"] for row in own if row["model"] != REAL))
    colours = dict(zip(models, [*light_colours(), "#b8860b", "#b83280", "#4a5568", "#319795"], strict=False))

    def fill(*panels: Axes) -> None:
        for axes, quality in zip(panels, QUALITIES, strict=True):
            for model in models:
                for sampler, line in SAMPLERS.items():
                    label = model if sampler == "temperature" else f"{model}, top-p"
                    points = _means(own, model, quality, sampler)
                    if len(points) > 1:
                        axes.plot(
                            *zip(*points, strict=True), f"o{line}", label=label, ms=3, lw=1.3, color=colours[model]
                        )
            axes.plot(*zip(*_means(own, REAL, quality), strict=True), "k*", label=REAL, ms=9)
            axes.set_xlabel("self-BLEU-5 (lower: more diverse)")
            better = "higher" if QUALITIES[quality] > 0 else "lower"
            axes.set_title(f"{corpus}: {HEADINGS[quality]} ({better} is better)", loc="left", fontsize=12)
        panels[0].legend(frameon=False, fontsize=8)

    save_png(fill, path, width=960, height=430, columns=2, label=f"Quality against diversity, {corpus}")


def _means(rows: Sequence[Row], model: str, quality: str, sampler: str = "") -> list[tuple[float, ...]]:
    """The points of a curve, by rising position; one setting of the sampler a point."""
    own = [row for row in rows if row["model"] == model and _is_sampled_by(sampler, row)]
    points = []
    for setting in dict.fromkeys(row["setting"] for row in own):
        some = [row for row in own if row["setting"] == setting]
        points.append(tuple(fmean(row[key] for row in some) for key in ("self_bleu5", quality)))
    return sorted(points)
