"""Table and plot of the honesty board."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from eval.experiments.common.reports import between, listed, markdown_table, signed, spread, write_page
from hf_gpt.reporting.plots import light_colours, save_png


Points = Mapping[str, Mapping[str, Any]]

# Published NLL_oracle at length 20, nats per token, all on SeqGAN's own oracle: method, value, source. MaliGAN's paper
# gives a plot without numbers; what others print under its name was not found at a source.
RELGAN, METAEX = "RelGAN, table 1 (openreview.net/forum?id=rJedV3R5tm)", "README of MetaEx-GAN (TASLP 2023)"
PUBLISHED = (
    ("real text", "5.750", RELGAN),
    ("MLE", "9.038", RELGAN),
    ("SeqGAN (arXiv:1609.05473)", "8.736", RELGAN),
    ("RankGAN (arXiv:1705.11001)", "8.247", RELGAN),
    ("MetaCotGAN", "7.690", METAEX),
    ("LeakGAN (arXiv:1709.08624)", "7.038", RELGAN),
    ("RelGAN", "6.680 ± 0.343", RELGAN),
    ("MetaEx-GAN", "6.321", METAEX),
)


def write_report(points: Points, seeds: Sequence[int], settings: Mapping[str, str], output: Path) -> str:
    """Writes `oracle_board.md` and `oracle_board.png`; returns the former's text."""
    text = write_page(output, "oracle_board", table(points, seeds, settings))
    save_png(lambda axes: _plot(axes, points, seeds), output / "oracle_board.png", width=760, height=520, label=text)
    return text


def table(points: Points, seeds: Sequence[int], settings: Mapping[str, str]) -> str:
    """The board in Markdown: published values, then measured rows by falling NLL_oracle."""

    def height(name: str) -> float:
        return fmean(points[f"{seed}/{name}"]["nll_oracle"] for seed in seeds)

    names = sorted(rows_of(points, seeds), key=height, reverse=True)
    held_out = [points[f"{seed}/held-out text"] for seed in seeds]
    entropy = spread([points[f"{seed}/lookup table"]["data_entropy"] for seed in seeds], 2)
    # The first row has every column.
    real = {
        "generator": "our oracles' own held-out text",
        "NLL_oracle": entropy,
        "H(q)": entropy,
        "KL(q‖p)": "0",
        "KL(q‖p) a text": "0",
        "NLL_oracle against MLE at equal H(q), each seed": "–",
        "NLL_gen, held out": entropy,
        "copied texts": _percent(point["copy_rate"] for point in held_out),
        "copied 4-grams": _percent(point["shared_ngrams"] for point in held_out),
    }
    published = [{"generator": f"*{method}* [{source}]", "NLL_oracle": nll} for method, nll, source in PUBLISHED]
    return "\n\n".join(
        [
            f"Vocabulary {settings['vocab_size']}, length {settings['length']}, {settings['num_train']} texts to train "
            f"on, {settings['num_samples']} a row; seeds {listed(seeds)}, an oracle each; mean ± standard "
            "deviation over seeds; nats per token. Published values (in italics, on SeqGAN's oracle) know NLL_oracle "
            "alone.",
            markdown_table([real, *published, *(_row(points, seeds, name) for name in names)]),
            *_training(points, seeds),
        ]
    )


def rows_of(points: Points, seeds: Sequence[int]) -> list[str]:
    """Names of the rows that every seed has."""
    names = [key.split("/", 1)[1] for key, point in points.items() if "nll_oracle" in point]
    return [name for name in dict.fromkeys(names) if all(f"{seed}/{name}" in points for seed in seeds)]


def likelihood_at(points: Points, seed: int, entropy: float) -> float | None:
    """NLL_oracle of maximum likelihood at an H(q), between its temperatures; None beyond them."""
    own = [point for key, point in points.items() if key.startswith(f"{seed}/MLE T=")]
    return between([(point["entropy"], point["nll_oracle"]) for point in own], entropy)


def _row(points: Points, seeds: Sequence[int], name: str) -> dict[str, str]:
    own = [points[f"{seed}/{name}"] for seed in seeds]
    gaps = [_gap(points, seed, point) for seed, point in zip(seeds, own, strict=True)]
    held_out = [point["nll_test"] for point in own]
    return {
        "generator": name,
        "NLL_oracle": spread((point["nll_oracle"] for point in own), 2),
        "H(q)": spread((point["entropy"] for point in own), 2),
        "KL(q‖p)": spread((point["reverse_kl"] for point in own), 2),
        "KL(q‖p) a text": spread((point["reverse_kl"] * point["length"] for point in own), 1),
        "NLL_oracle against MLE at equal H(q), each seed": (
            "–" if name.startswith("MLE T=") else listed(signed(gap, 2) for gap in gaps)
        ),
        "NLL_gen, held out": "infinite" if None in held_out else spread(held_out, 2),
        "copied texts": _percent(point["copy_rate"] for point in own),
        "copied 4-grams": _percent(point["shared_ngrams"] for point in own),
    }


def _gap(points: Points, seed: int, point: Mapping[str, Any]) -> float | None:
    rival = likelihood_at(points, seed, point["entropy"])
    return None if rival is None else point["nll_oracle"] - rival


def _training(points: Points, seeds: Sequence[int]) -> list[str]:
    """What each training took and what its trainer saw, in each seed."""
    found = [points[f"{seed}/likelihood"] for seed in seeds]
    told = (
        f"Likelihood: {len(found[0]['held_out'])} epochs, the best on held-out text "
        f"{listed(each['best_epoch'] for each in found)}; {fmean(each['seconds'] for each in found):.0f} CPU-s a seed."
    )
    columns = {
        "updates of the generator": "generator_steps",
        "skipped by the gate": "skipped_steps",
        "updates of the discriminator": "discriminator_updates",
        "its AUC on held-out text": "discriminator_auc",
        "CPU-s": "seconds",
    }
    rows = []
    for recipe in dict.fromkeys(key.split("/", 1)[1] for key, point in points.items() if "generator_steps" in point):
        own = [points[f"{seed}/{recipe}"] for seed in seeds if f"{seed}/{recipe}" in points]
        cells = {heading: listed(_shown(each[key]) for each in own) for heading, key in columns.items()}
        warnings = sorted({name for each in own for name in each["warnings"]})
        rows.append({"recipe": recipe, **cells, "warnings": listed(warnings) or "none"})
    return [told, markdown_table(rows)] if rows else [told]


def _plot(axes: Axes, points: Points, seeds: Sequence[int]) -> None:
    colours = light_colours()
    families: dict[str, list[str]] = {}
    for name in rows_of(points, seeds):
        families.setdefault(name.split(" T=")[0], []).append(name)
    palette = iter([*colours, *colours])
    for family, names in families.items():
        if family == "lookup table":
            continue
        colour = next(palette)
        for seed in seeds:
            own = sorted((points[f"{seed}/{name}"] for name in names), key=lambda point: point["temperature"])
            positions = [(point["reverse_kl"], point["nll_oracle"]) for point in own]
            label = family if seed == seeds[0] else None
            # A line between two distant temperatures would show a curve that nobody has measured.
            style = "-o" if len(positions) > 2 else "o"
            axes.plot(*zip(*positions, strict=True), style, ms=4, lw=1.2, color=colour, label=label)
    for method, shown, _ in PUBLISHED:
        nll = float(shown.split()[0])
        axes.axhline(nll, color="#9aa0a6", lw=0.8, ls=":")
        place = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 9}
        axes.annotate(f" {method.split(' (')[0]}", (1.0, nll), **place)
    axes.set_xlabel("KL(q‖p), nats per token; a line a seed, over temperatures")
    axes.set_title("NLL_oracle, nats per token; dotted: published", loc="left", fontsize=12)
    axes.legend(frameon=False, fontsize=10)


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _percent(values: Iterable[float]) -> str:
    return f"{fmean(values):.1%}"
