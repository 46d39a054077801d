"""
Pixels and sound as tokens: digits of 8x8 pixels classified and sampled, and spoken digits of speakers that were never
heard. Every run is `hf-gpt finetune` with the built-in recipe in a process of its own; runs that are done are kept.

    python -m eval.experiments.modalities.digits images drawings speech adapted_speech --seeds 0 1 2

In `speech` each audio clip is judged by itself. In `adapted_speech` what the held-out speaker's 100 audio clips have in
common is taken away from each of them first, without their labels.

The judge of drawings is a support vector machine on the pixels of the real training images. Speech needs the folder of
the data sets (`HF_GPT_DATA`). Six speakers are few: `--more_speech` names files of more to train on.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.experiments.common.data import data_folder
from eval.experiments.common.reports import markdown_table
from eval.experiments.finetuning.__main__ import run


SPEECH = "speech/fsdd_8khz.parquet"
# The last two of the six by name, each held out from a run of its own. Settings were chosen on the other four.
HELD_OUT_SPEAKERS = ("theo", "yweweler")


@dataclass(frozen=True)
class Measurement:
    """What is measured: a built-in recipe, its metric, and the score to reach."""

    title: str
    recipe: str
    metric: str
    aim: float
    settings: Mapping[str, Any] = field(default_factory=dict)


_COLUMNS = {"media_column": "samples", "label_column": "digit", "group_column": "speaker"}
MEASUREMENTS = {
    "images": Measurement("digits, accuracy on held-out images", "digits", "eval_accuracy", 0.97),
    "drawings": Measurement(
        "sampled digits, share that the judge sees as their class", "digits_generation", "eval_recognised", 0.90
    ),
    "speech": Measurement(
        "spoken digits, accuracy on a held-out speaker", "spoken_digits", "eval_accuracy", 0.85, _COLUMNS
    ),
    "adapted_speech": Measurement(
        "spoken digits, the same with all of the speaker's audio clips at hand, unlabelled",
        "spoken_digits",
        "eval_accuracy",
        0.85,
        {**_COLUMNS, "normalize_by_group": True},
    ),
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurements", nargs="+", choices=list(MEASUREMENTS), help="what is measured")
    parser.add_argument("--output", type=Path, default=Path("runs/signals"), help="folder of all runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="a run for each")
    parser.add_argument(
        "--held_out",
        nargs="+",
        default=list(HELD_OUT_SPEAKERS),
        help="speakers, each the test of a run that is trained on the other five",
    )
    parser.add_argument(
        "--more_speech",
        type=Path,
        nargs="+",
        default=[],
        help="files of further speakers to train on, with columns digit, speaker and samples",
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="options that replace the recipe's")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    changes = dict(item.split("=", 1) for item in options.set)
    for name in options.measurements:
        measurement = MEASUREMENTS[name]
        settings = {"config": measurement.recipe, **measurement.settings, "overwrite_output_dir": True}
        parts: dict[str, dict[str, Any]] = {name: {}}
        if "group_column" in measurement.settings:
            files = {"train_file": [data_folder() / SPEECH, *options.more_speech]}
            parts = {f"{name}_{speaker}": {**files, "held_out_groups": [speaker]} for speaker in options.held_out}
        for seed in options.seeds:
            for part, its_settings in parts.items():
                run("finetune", {**settings, **its_settings, **changes}, options.output / f"{part}-{seed}", seed)
    print(summary(options.output))
    return 0


def summary(output: Path) -> str:
    """A Markdown table of the runs below a folder; minutes of one core for a run.

    The score of a seed is the mean over its runs, of which speech has one for each speaker.
    """
    rows = []
    for name, measurement in MEASUREMENTS.items():
        runs = [folder for folder in sorted(output.glob(f"{name}*-*")) if (folder / "cost.json").exists()]
        if not runs:
            continue
        metrics = [json.loads((folder / "metrics.json").read_text(encoding="utf-8")) for folder in runs]
        by_seed: dict[str, list[float]] = {}
        for folder, metric in zip(runs, metrics, strict=True):
            by_seed.setdefault(folder.name.rpartition("-")[2], []).append(metric[measurement.metric])
        scores = [statistics.mean(found) for found in by_seed.values()]
        minutes = [
            json.loads((folder / "cost.json").read_text(encoding="utf-8"))["cpu_seconds"] / 60 for folder in runs
        ]
        judge = [metric["eval_judge_on_real"] for metric in metrics if "eval_judge_on_real" in metric]
        rows.append(
            {
                "name": measurement.title,
                "mean": statistics.mean(scores),
                "range": f"{min(scores):.1%} to {max(scores):.1%}",
                "seeds": len(scores),
                "aim": measurement.aim,
                "judge": statistics.mean(judge) if judge else None,
                "minutes": statistics.mean(minutes),
            }
        )
    return markdown_table(
        rows,
        {
            "measured": "name",
            "mean": "mean:.1%",
            "least to most": "range",
            "seeds": "seeds",
            "aim": "aim:.0%",
            "judge on real images": "judge:.1%",
            "core minutes": "minutes:.1f",
        },
    )


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
