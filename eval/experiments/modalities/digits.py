"""
Pixels and sound as tokens: digits of 8x8 pixels classified and sampled, and spoken digits of speakers that were never
heard. Every run is `hf-gpt finetune` with the built-in recipe in a process of its own; runs that are done are kept.

    python -m eval.experiments.modalities.digits images drawings speech adapted_speech --seeds 0 1 2

In `speech` each audio clip is judged by itself. In `adapted_speech` what the held-out speaker's 100 audio clips have in
common is taken away from each of them first, without their labels.

The judge of drawings is a support vector machine on the pixels of the real training images. Speech needs the folder of
the data sets (`HF_GPT_DATA`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from eval.experiments.common.command import make_parser, start
from eval.experiments.common.data import data_folder
from eval.experiments.common.processes import core_minutes, finished, run, scored, seed_of
from eval.experiments.common.reports import markdown_table
from eval.experiments.common.results import read_json


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


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__, "signals")
    parser.add_argument("measurements", nargs="+", choices=list(MEASUREMENTS), help="what is measured")
    options = parser.parse_args(argv)
    for name in options.measurements:
        measurement = MEASUREMENTS[name]
        settings = {"config": measurement.recipe, **measurement.settings, "overwrite_output_dir": True}
        parts: dict[str, dict[str, Any]] = {name: {}}
        if "group_column" in measurement.settings:
            files = {"train_file": [data_folder() / SPEECH]}
            parts = {f"{name}_{speaker}": {**files, "held_out_groups": [speaker]} for speaker in HELD_OUT_SPEAKERS}
        for seed in options.seeds:
            for part, its_settings in parts.items():
                run("finetune", {**settings, **its_settings}, options.output_dir / f"{part}-{seed}", seed)
    print(summary(options.output_dir))
    return 0


def summary(output: Path) -> str:
    """A Markdown table of the runs below a folder; minutes of one core for a run.

    The score of a seed is the mean over its runs, of which speech has one for each speaker.
    """
    rows = []
    for name, measurement in MEASUREMENTS.items():
        by_seed: dict[str, list[float]] = {}
        judge: list[float] = []
        runs = finished(output, f"{name}*-*")
        for folder in runs:
            metrics = read_json(folder / "metrics.json")
            by_seed.setdefault(seed_of(folder), []).append(metrics[measurement.metric])
            judge += [metrics[key] for key in ("eval_judge_on_real",) if key in metrics]
        if runs:
            row = scored([fmean(found) for found in by_seed.values()], list(map(core_minutes, runs)), ".1%")
            row |= {"aim": f"{measurement.aim:.0%}", "judge on real images": f"{fmean(judge):.1%}" if judge else None}
            rows.append({"measured": measurement.title, **row})
    return markdown_table(rows)


if __name__ == "__main__":
    start(main)
