"""Table, plot and verdict of `known_answer`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from eval.experiments.common.reports import between, listed, markdown_table, save_panels, signed, spread, write_page
from hf_gpt.reporting.plots import light_colours


Result = Mapping[str, Any]

# The lines to reach: KL(q || p) against maximum likelihood at its best temperature; H(q) against H(p).
MOST_KL_OF_LIKELIHOOD = 0.85
LEAST_ENTROPY_OF_DATA = 0.9


def write_report(results: Mapping[str, Sequence[Result]], output: Path) -> str:
    """Writes `known_answer.md` and `known_answer.png`; returns the former's text."""
    parts = {"gain": (_gain_table, _plot_gain), "collapse": (_collapse_table, _plot_collapse)}
    panels = [partial(plot, runs=results[name]) for name, (_, plot) in parts.items() if name in results]
    text = write_page(output, "known_answer", *(parts[name][0](results[name]) for name in parts if name in results))
    save_panels(output / "known_answer.png", panels, width=620, height=420, label=text)
    return text


def best_likelihood_kl(result: Result) -> float:
    """The least KL(q || p) of maximum likelihood, over its arms and temperatures."""
    return min(point["kl_qp"]["value"] for name in _likelihood_arms(result) for point in result["arms"][name]["curve"])


def kl_ratios(result: Result) -> dict[str, float]:
    """KL(q || p) of each arm at temperature 1, as a share of `best_likelihood_kl`."""
    best = best_likelihood_kl(result)
    return {name: _at_one(arm)["kl_qp"]["value"] / best for name, arm in result["arms"].items()}


def likelihood_nll_at(result: Result, entropy: float) -> float | None:
    """-E_q log p that maximum likelihood has at this H(q), between its temperatures; the better of its arms.

    None where no temperature goes that far.
    """
    curves = [result["arms"][name]["curve"] for name in _likelihood_arms(result)]
    found = [between(((p["entropy_q"]["value"], p["nll_oracle"]["value"]) for p in c), entropy) for c in curves]
    return min((nll for nll in found if nll is not None), default=None)


def _likelihood_arms(result: Result) -> list[str]:
    return [name for name in result["arms"] if name.startswith("MLE")]


def _at_one(arm: Mapping[str, Any]) -> Mapping[str, Any]:
    return next(point for point in arm["curve"] if point["temperature"] == 1)


def _best(arm: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return min(arm["curve"], key=lambda point: point[key]["value"])


def _at_best_temperature(arms: Sequence[Mapping[str, Any]], key: str) -> str:
    """The metric at the temperature best for it, and that temperature in each seed; – where only 1 was tried."""
    if len(arms[0]["curve"]) == 1:
        return "–"
    best = [_best(arm, key) for arm in arms]
    return f"{spread(p[key]['value'] for p in best)} (T {listed(p['temperature'] for p in best)})"


def _gain_table(runs: Sequence[Result]) -> str:
    def cells(name: str, arms: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        return {
            "KL(q‖p), T=1": _spread_at_one(arms, "kl_qp"),
            "KL(q‖p), best T": _at_best_temperature(arms, "kl_qp"),
            "of MLE's best, each seed": listed(f"{kl_ratios(run)[name]:.2f}" for run in runs),
            "KL(p‖q)": _spread_at_one(arms, "kl_pq"),
            "JSD": _spread_at_one(arms, "jsd"),
            "JSD, best T": _at_best_temperature(arms, "jsd"),
            "H(q)": _spread_at_one(arms, "entropy_q", 2),
        }

    passed = [name for name in runs[0]["arms"] if all(kl_ratios(run)[name] <= MOST_KL_OF_LIKELIHOOD for run in runs)]
    error = max(point["kl_qp"]["error"] for run in runs for arm in run["arms"].values() for point in arm["curve"])
    about = (
        f"{_head('Gain', runs, 2)}; mean ± standard deviation over seeds; standard error of a KL at most {error:.3f}."
    )
    line = f"Line: KL(q‖p) at most {MOST_KL_OF_LIKELIHOOD} of MLE's at its best temperature in each seed. "
    return "\n\n".join([about, _table(runs, cells), line + f"Reached by: {', '.join(passed) or 'none'}."])


def _collapse_table(runs: Sequence[Result]) -> str:
    def cells(name: str, arms: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        ends = [_at_one(arm) for arm in arms]
        return {
            "H(q)": _spread_at_one(arms, "entropy_q", 1),
            "H(q)/H(p), each seed": listed(f"{p['entropy_q']['value'] / p['entropy_p']['value']:.2f}" for p in ends),
            "KL(q‖p)": _spread_at_one(arms, "kl_qp", 2),
            "half repeated, most in each seed": listed(map(_most_repeated, arms)),
            "warnings (first step)": _warnings(arms),
        }

    line = (
        "Lines: without an anchor H(q) falls and each sign of it is warned of; with one no warning stands, H(q) is at "
        f"least {LEAST_ENTROPY_OF_DATA} H(p), and NLL_oracle is below MLE's at equal H(q)."
    )
    return "\n\n".join([f"{_head('Collapse', runs, 1)}.", _table(runs, cells), line])


def _table(runs: Sequence[Result], cells: Callable[[str, Sequence[Mapping[str, Any]]], dict[str, str]]) -> str:
    """An arm a row: the experiment's own cells, and those of both."""
    rows = []
    for name in runs[0]["arms"]:
        arms = [run["arms"][name] for run in runs]
        shared = {
            "NLL_oracle": _spread_at_one(arms, "nll_oracle", 2),
            "against MLE at equal H(q)": _against_likelihood(runs, name),
            "CPU-s": f"{fmean(arm['cpu_seconds'] for arm in arms):.0f}",
        }
        rows.append({"arm": name, **cells(name, arms), **shared})
    return markdown_table(rows)


def _head(title: str, runs: Sequence[Result], digits: int) -> str:
    settings, seeds = runs[0]["settings"], listed(run["seed"] for run in runs)
    entropy = _spread_at_one([run["arms"]["MLE"] for run in runs], "entropy_p", digits)
    sizes = f"vocabulary {settings['vocab_size']}, length {settings['length']}"
    return f"{title}: {sizes}, seeds {seeds}, nats a text; H(p) = {entropy}"


def _spread_at_one(arms: Sequence[Mapping[str, Any]], key: str, digits: int = 3) -> str:
    return spread((_at_one(arm)[key]["value"] for arm in arms), digits)


def _against_likelihood(runs: Sequence[Result], name: str) -> str:
    """In each seed NLL_oracle less that of maximum likelihood at the same H(q): the gap of KL(q || p), too."""
    if name in _likelihood_arms(runs[0]):
        return "–"
    return listed(signed(_gap(run, name), 2) for run in runs)


def _gap(run: Result, name: str) -> float | None:
    point = _at_one(run["arms"][name])
    rival = likelihood_nll_at(run, point["entropy_q"]["value"])
    return None if rival is None else point["nll_oracle"]["value"] - rival


def _most_repeated(arm: Mapping[str, Any]) -> str:
    """The largest share of texts of which half stands in another one, where the monitors looked."""
    return f"{max(p['repetition_rate'] for p in arm['history']):.1%}" if "history" in arm else "–"


def _warnings(arms: Sequence[Mapping[str, Any]]) -> str:
    """Each warning with its first step in each seed."""
    if "warnings" not in arms[0]:
        return "–"
    names = dict.fromkeys(name for arm in arms for name in arm["warnings"])
    return "; ".join(f"{n} ({listed(arm['warnings'].get(n, 'never') for arm in arms)})" for n in names) or "none"


def _plot_gain(axes: Axes, runs: Sequence[Result]) -> None:
    colours = light_colours()
    names = list(runs[0]["arms"])
    for row, name in enumerate(names):
        values = [kl_ratios(run)[name] for run in runs]
        best = [_best(run["arms"][name], "kl_qp")["kl_qp"]["value"] / best_likelihood_kl(run) for run in runs]
        colour = colours[0] if name.startswith("MLE") else colours[1]
        labels = ("at its best T", "at T = 1") if row == 1 else (None, None)
        axes.plot(best, [row] * len(best), "o", mfc="none", mec=colour, ms=8, label=labels[0])
        axes.plot(values, [row] * len(values), "o", color=colour, ms=6, label=labels[1])
    axes.axvline(MOST_KL_OF_LIKELIHOOD, color=colours[2], lw=1.4)
    axes.annotate(f" line: {MOST_KL_OF_LIKELIHOOD}", (MOST_KL_OF_LIKELIHOOD, -0.5), color=colours[2])
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.9)
    axes.set_xlabel("KL(q‖p) as a share of maximum likelihood's at its best temperature, a dot a seed")
    axes.legend(frameon=False, loc="lower right")
    axes.set_title("The true density ratio as reward", loc="left", fontsize=12)


def _plot_collapse(axes: Axes, runs: Sequence[Result]) -> None:
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
