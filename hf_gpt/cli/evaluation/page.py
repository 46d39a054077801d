"""The page of an evaluation: tables with intervals, tests, curves, samples, a discriminator's scores."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_gpt.cli.evaluation.files import (
    DIFFERENCE_NOTE,
    INTERVAL_NOTE,
    OVERVIEW_NOTE,
    difference_table,
    is_judged,
    metric_label,
    overview,
    shown_metrics,
    tables,
)
from hf_gpt.files.atomic_files import write_text
from hf_gpt.reporting.intervals import Interval, interval_chart
from hf_gpt.reporting.report import (
    Section,
    environment_section,
    escape,
    header,
    render_page,
    settings_section,
    side_by_side_section,
    table_section,
)


_SAMPLE_CHARACTERS = 1500
_HEATMAP_TEXTS = 2


def write_page(folder: Path, results: Mapping[str, Any], judge: tuple[Any, Any] | None = None) -> Path:
    """Writes `report.html` and returns its path.

    Args:
        folder: Where to.
        results: As in `results.json`.
        judge: A discriminator and its tokenizer, whose scores colour samples.
    """
    sections = [*_tables(results), *_curves(results), *_samples(results)]
    if judge is not None:
        sections += _heatmaps(results, judge)
    settings = {
        "models": [f"{entry['name']}: {entry['path']}" for entry in results["models"]],
        **{f"{task}.{key}": value for task, facts in results["tasks"].items() for key, value in facts.items() if value},
        **{key: value for key, value in results["settings"].items() if value is not None},
    }
    sections += [settings_section(settings), environment_section(results["environment"])]
    count, tasks = len(results["models"]), len(results["tasks"])
    title = "Evaluation" if count > 1 else f"Evaluation of {results['models'][0]['name']}"
    summary = f"{count} model{'s' * (count > 1)} on {tasks} task{'s' * (tasks > 1)}. {INTERVAL_NOTE}"
    top = header(title, summary, [], eyebrow="Evaluation report")
    return write_text(folder / "report.html", render_page(title, top, [part for part in sections if part is not None]))


def _tables(results: Mapping[str, Any]) -> list[Section]:
    sections = []
    with_curves = {curve["task"] for curve in results.get("curves", ())}
    if len(results["tasks"]) > 1 and not with_curves:
        heads, rows = overview(results)
        sections.append(table_section("overview", "Overview", heads, rows, OVERVIEW_NOTE))
    for number, (task, heads, rows) in enumerate(tables(results)):
        if task in with_curves:
            continue
        description = results["tasks"].get(task, {}).get("description") or ""
        section = table_section(f"task-{number}", task, heads, rows, description)
        sections.append(replace(section, body=f"{section.body}\n{_interval_chart(results, task)}"))
    if results.get("comparisons"):
        heads, rows = difference_table(results["comparisons"])
        sections.append(table_section("differences", "Differences between models", heads, rows, DIFFERENCE_NOTE))
    return sections


def _interval_chart(results: Mapping[str, Any], task: str) -> str:
    """The main metric of a task, with the interval of each model; empty where no metric says who is better."""
    rows = [row for row in results["results"] if row["task"] == task]
    judged = [name for name in shown_metrics(list(dict.fromkeys(row["metric"] for row in rows))) if is_judged(name)]
    if not judged:
        return ""
    intervals = [
        Interval(row["model"], row["value"], row["low"], row["high"]) for row in rows if row["metric"] == judged[0]
    ]
    return interval_chart(metric_label(judged[0]), intervals)


def _curves(results: Mapping[str, Any]) -> list[Section]:
    from hf_gpt.cli.evaluation.curve import curve_section

    numbers = {task: (heads, rows) for task, heads, rows in tables(results)}
    return [
        curve_section(f"curve-{n}", curve, *numbers[curve["task"]]) for n, curve in enumerate(results.get("curves", ()))
    ]


def _samples(results: Mapping[str, Any]) -> list[Section]:
    sections = []
    for number, task in enumerate(dict.fromkeys(sample["task"] for sample in results.get("samples", ()))):
        shown = []
        for sample in results["samples"]:
            if sample["task"] == task:
                texts = [(model, _cut(text)) for model, text in sample["texts"].items()]
                if sample.get("reference"):
                    texts.append(("reference", _cut(sample["reference"])))
                shown.append((_cut(sample["prompt"]), texts))
        sections.append(side_by_side_section(f"samples-{number}", f"Samples: {task}", shown))
    return sections


def _heatmaps(results: Mapping[str, Any], judge: tuple[Any, Any]) -> list[Section]:
    from hf_gpt.cli.score import score_texts
    from hf_gpt.reporting.heatmap import heatmap_section

    texts = [
        (f"{model} ({sample['task']})", text)
        for sample in results.get("samples", ())
        for model, text in sample["texts"].items()
        if text.strip()
    ]
    kept, counts = [], {}
    for name, text in texts:
        counts[name] = counts.get(name, 0) + 1
        if counts[name] <= _HEATMAP_TEXTS:
            kept.append((name, text))
    if not kept:
        note = f'<p class="muted">{escape("No task has texts for the discriminator to score.")}</p>'
        return [Section("heatmap", "Scores of the discriminator", note)]
    try:
        scored = score_texts(*judge, [text for _, text in kept], per_token=True)
    except ValueError as error:
        # The results of a long evaluation are worth more than this section.
        note = f'<p class="muted">{escape(str(error))}</p>'
        return [Section("heatmap", "Scores of the discriminator", note)]
    named = [(name, text) for (name, _), text in zip(kept, scored, strict=True)]
    return [heatmap_section("heatmap", "Scores of the discriminator", named)]


def _cut(text: str) -> str:
    return text if len(text) <= _SAMPLE_CHARACTERS else f"{text[:_SAMPLE_CHARACTERS]} …"
