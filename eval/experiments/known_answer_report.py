"""Table, plot and verdict of `known_answer`."""

import bisect
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from hf_gpt.files.atomic_files import write_text
from hf_gpt.reporting.plots import light_colours, save_png


if TYPE_CHECKING:
    from matplotlib.axes import Axes

Result = Mapping[str, Any]

# The lines to reach: KL(q || p) against likelihood training at its best temperature; H(q) against H(p).
MOST_KL_OF_LIKELIHOOD = 0.85
LEAST_ENTROPY_OF_DATA = 0.9
# What a collapse shows, by the names of the monitors' warnings. "Reward hacking" is not among them: the perfect
# discriminator tells nearly all texts apart from the first step on, so that its AUC has no room to rise.
SIGNS_OF_COLLAPSE = (
    "entropy collapse",
    "likelier than the data",
    "few different n-grams",
    "repeated texts",
    "forgetting",
)


def write_report(results: Mapping[str, Sequence[Result]], output: Path) -> str:
    """Writes `known_answer.md` and `known_answer.png`; returns the former's text."""
    sections = []
    if "gain" in results:
        sections.append(_gain_table(results["gain"]))
    if "collapse" in results:
        sections.append(_collapse_table(results["collapse"]))
    text = "\n\n".join(sections) + "\n"
    write_text(output / "known_answer.md", text)
    panels = [(_draw_gain, results["gain"])] if "gain" in results else []
    panels += [(_draw_collapse, results["collapse"])] if "collapse" in results else []

    def sample(*axes: "Axes") -> None:
        for ax, (panel, runs) in zip(axes, panels, strict=True):
            panel(ax, runs)

    save_png(sample, output / "known_answer.png", width=620 * len(panels), height=420, columns=len(panels), label=text)
    return text


def best_likelihood_kl(result: Result) -> float:
    """The least KL(q || p) of likelihood training, over its arms and temperatures."""
    return min(point["kl_qp"]["value"] for name in _likelihood_arms(result) for point in result["arms"][name]["curve"])


def kl_ratios(result: Result) -> dict[str, float]:
    """KL(q || p) of each arm at temperature 1, as a share of `best_likelihood_kl`."""
    best = best_likelihood_kl(result)
    return {name: _at_one(arm)["kl_qp"]["value"] / best for name, arm in result["arms"].items()}


def likelihood_nll_at(result: Result, entropy: float) -> float | None:
    """-E_q log p that likelihood training has at this H(q), between its temperatures; the better of its arms.

    None where no temperature goes that far.
    """
    found = []
    for name in _likelihood_arms(result):
        points = sorted((p["entropy_q"]["value"], p["nll_oracle"]["value"]) for p in result["arms"][name]["curve"])
        position = bisect.bisect([x for x, _ in points], entropy)
        if 0 < position < len(points):
            (x0, y0), (x1, y1) = points[position - 1 : position + 1]
            found.append(y0 + (y1 - y0) * (entropy - x0) / (x1 - x0))
    return min(found, default=None)


def _likelihood_arms(result: Result) -> list[str]:
    return [name for name in result["arms"] if name.startswith("MLE")]


def _at_one(arm: Mapping[str, Any]) -> Mapping[str, Any]:
    return next(point for point in arm["curve"] if point["temperature"] == 1)


def _best(arm: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return min(arm["curve"], key=lambda point: point[key]["value"])


def _at_best_temperature(arms: Sequence[Mapping[str, Any]], key: str) -> str:
    """The figure at the temperature best for it, and that temperature in each seed; – where only 1 was tried."""
    if len(arms[0]["curve"]) == 1:
        return "–"
    best = [_best(arm, key) for arm in arms]
    return f"{_spread([p[key]['value'] for p in best])} (T {', '.join(str(p['temperature']) for p in best)})"


def _spread(values: Sequence[float], digits: int = 3) -> str:
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{deviation}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _gain_table(runs: Sequence[Result]) -> str:
    rows = []
    for name in runs[0]["arms"]:
        arms = [run["arms"][name] for run in runs]
        at_one = [_at_one(arm) for arm in arms]
        rows.append(
            [
                name,
                _spread([point["kl_qp"]["value"] for point in at_one]),
                _at_best_temperature(arms, "kl_qp"),
                ", ".join(f"{kl_ratios(run)[name]:.2f}" for run in runs),
                _spread([point["kl_pq"]["value"] for point in at_one]),
                _spread([point["jsd"]["value"] for point in at_one]),
                _at_best_temperature(arms, "jsd"),
                _spread([point["entropy_q"]["value"] for point in at_one], 2),
                _spread([point["nll_oracle"]["value"] for point in at_one], 2),
                _against_likelihood(runs, name),
                f"{fmean(arm['cpu_seconds'] for arm in arms):.0f}",
            ]
        )
    columns = [
        "arm",
        "KL(q‖p), T=1",
        "KL(q‖p), best T",
        "of MLE's best, each seed",
        "KL(p‖q)",
        "JSD",
        "JSD, best T",
        "H(q)",
        "NLL_oracle",
        "against MLE at equal H(q)",
        "CPU-s",
    ]
    passed = [name for name in runs[0]["arms"] if all(kl_ratios(run)[name] <= MOST_KL_OF_LIKELIHOOD for run in runs)]
    settings, entropies = runs[0]["settings"], [_at_one(run["arms"]["MLE"])["entropy_p"]["value"] for run in runs]
    error = max(point["kl_qp"]["error"] for run in runs for arm in run["arms"].values() for point in arm["curve"])
    return "\n\n".join(
        [
            f"Gain: vocabulary {settings['vocab_size']}, length {settings['length']}, seeds "
            f"{', '.join(str(run['seed']) for run in runs)}, nats a text, mean ± standard deviation over seeds; "
            f"H(p) = {_spread(entropies, 2)}; standard error of a KL at most {error:.3f}.",
            _table(columns, rows),
            f"Line: KL(q‖p) at most {MOST_KL_OF_LIKELIHOOD} of MLE's at its best temperature in each seed. "
            f"Reached by: {', '.join(passed) or 'none'}.",
        ]
    )


def _collapse_table(runs: Sequence[Result]) -> str:
    rows = []
    for name in runs[0]["arms"]:
        arms = [run["arms"][name] for run in runs]
        at_one = [_at_one(arm) for arm in arms]
        rows.append(
            [
                name,
                _spread([point["entropy_q"]["value"] for point in at_one], 1),
                ", ".join(f"{point['entropy_q']['value'] / point['entropy_p']['value']:.2f}" for point in at_one),
                _spread([point["kl_qp"]["value"] for point in at_one], 2),
                _spread([point["nll_oracle"]["value"] for point in at_one], 2),
                _against_likelihood(runs, name),
                _warnings(arms),
                f"{fmean(arm['cpu_seconds'] for arm in arms):.0f}",
            ]
        )
    columns = [
        "arm",
        "H(q)",
        "H(q)/H(p), each seed",
        "KL(q‖p)",
        "NLL_oracle",
        "against MLE at equal H(q)",
        "warnings (first step)",
        "CPU-s",
    ]
    settings, entropies = runs[0]["settings"], [_at_one(run["arms"]["MLE"])["entropy_p"]["value"] for run in runs]
    return "\n\n".join(
        [
            f"Collapse: vocabulary {settings['vocab_size']}, length {settings['length']}, seeds "
            f"{', '.join(str(run['seed']) for run in runs)}, nats a text; H(p) = {_spread(entropies, 1)}.",
            _table(columns, rows),
            _collapse_verdict(runs),
        ]
    )


def _against_likelihood(runs: Sequence[Result], name: str) -> str:
    """In each seed NLL_oracle less that of likelihood training at the same H(q): the gap of KL(q || p), too."""
    cells = []
    for run in runs:
        point = _at_one(run["arms"][name])
        rival = likelihood_nll_at(run, point["entropy_q"]["value"])
        cells.append("beyond" if rival is None else f"{point['nll_oracle']['value'] - rival:+.2f}")
    return "–" if name in _likelihood_arms(runs[0]) else ", ".join(cells)


def _collapse_verdict(runs: Sequence[Result]) -> str:
    """Which lines were reached, arm by arm."""
    sentences = [
        "Lines: without an anchor H(q) falls and each sign of it is warned of; with one no warning stands, H(q) is at "
        f"least {LEAST_ENTROPY_OF_DATA} H(p), and NLL_oracle is below MLE's at equal H(q)."
    ]
    for name, arm in runs[0]["arms"].items():
        if "warnings" not in arm:
            continue
        warned = [set(run["arms"][name]["warnings"]) for run in runs]
        signs = [sign for sign in SIGNS_OF_COLLAPSE if all(sign in names for names in warned)]
        missing = [sign for sign in SIGNS_OF_COLLAPSE if sign not in signs]
        most = max(max(point["repetition_rate"] for point in run["arms"][name]["history"]) for run in runs)
        ends = [_at_one(run["arms"][name]) for run in runs]
        kept = all(p["entropy_q"]["value"] >= LEAST_ENTROPY_OF_DATA * p["entropy_p"]["value"] for p in ends)
        rivals = [likelihood_nll_at(run, p["entropy_q"]["value"]) for run, p in zip(runs, ends, strict=True)]
        better = all(mle is not None and p["nll_oracle"]["value"] < mle for p, mle in zip(ends, rivals, strict=True))
        sentences.append(
            f"{name}: entropy {'kept' if kept else 'lost'}; warned of in each seed: {', '.join(signs) or 'nothing'}; "
            f"not in each: {', '.join(missing) or 'none'} (half repeated: at most {most:.1%} of texts)"
            + (f"; NLL_oracle {'' if better else 'not '}below MLE's at equal H(q) in each seed." if kept else ".")
        )
    return "\n\n".join(sentences)


def _warnings(arms: Sequence[Mapping[str, Any]]) -> str:
    """Each warning with its first step in each seed."""
    if "warnings" not in arms[0]:
        return "–"
    names = dict.fromkeys(name for arm in arms for name in arm["warnings"])
    cells = [f"{name} ({', '.join(str(arm['warnings'].get(name, 'never')) for arm in arms)})" for name in names]
    return "; ".join(cells) or "none"


def _draw_gain(axes: "Axes", runs: Sequence[Result]) -> None:
    colours = light_colours()
    names = list(runs[0]["arms"])
    for row, name in enumerate(names):
        values = [kl_ratios(run)[name] for run in runs]
        best = [_best(run["arms"][name], "kl_qp")["kl_qp"]["value"] / best_likelihood_kl(run) for run in runs]
        colour = colours[0] if name.startswith("MLE") else colours[1]
        axes.plot(
            best, [row] * len(best), "o", mfc="none", mec=colour, ms=8, label="at its best T" if row == 1 else None
        )
        axes.plot(values, [row] * len(values), "o", color=colour, ms=6, label="at T = 1" if row == 1 else None)
    axes.axvline(MOST_KL_OF_LIKELIHOOD, color=colours[2], lw=1.4)
    axes.annotate(f" line: {MOST_KL_OF_LIKELIHOOD}", (MOST_KL_OF_LIKELIHOOD, -0.5), color=colours[2])
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.9)
    axes.set_xlabel("KL(q‖p) as a share of likelihood training's at its best temperature, a dot a seed")
    axes.legend(frameon=False, loc="lower right")
    axes.set_title("The true density ratio as reward", loc="left", fontsize=12)


def _draw_collapse(axes: "Axes", runs: Sequence[Result]) -> None:
    """Entropy against NLL_oracle of the first seed: temperatures of the likelihood arms, the way of the others."""
    colours = light_colours()
    run = runs[0]
    entropy_p = _at_one(run["arms"]["MLE"])["entropy_p"]["value"]
    others = iter(colours[1:])
    for name, arm in run["arms"].items():
        if name == "MLE":
            continue
        if "history" in arm:
            points, colour = [(p["entropy"], p["oracle_nll"]) for p in arm["history"]], next(others, colours[0])
        else:
            points, colour = [(p["entropy_q"]["value"], p["nll_oracle"]["value"]) for p in arm["curve"]], colours[0]
        axes.plot(*zip(*points, strict=True), "-o", ms=3.5, lw=1.6, color=colour, label=name)
    axes.plot([entropy_p], [entropy_p], "*", color="black", ms=13, label="the data")
    limit = max(axes.get_xlim()[1], entropy_p)
    axes.plot([0, limit], [0, limit], "--", color="#9aa0a6", lw=1, label="KL(q‖p) = 0")
    axes.axvline(LEAST_ENTROPY_OF_DATA * entropy_p, color="#9aa0a6", lw=1, ls=":")
    axes.set_xlabel(f"H(q), nats a text (dotted: {LEAST_ENTROPY_OF_DATA} H(p)); seed {run['seed']}")
    axes.set_title("NLL_oracle, nats a text", loc="left", fontsize=12)
    axes.legend(frameon=False, fontsize=10)
