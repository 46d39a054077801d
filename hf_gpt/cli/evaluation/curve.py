"""
`hf-gpt eval --curve`: quality against diversity of each model over its samplers, and each model at its own best one.

The texts of a sampler are halved, and so are the real ones. A sampler is chosen by the first halves and reported on the
second: the choice itself would improve the metrics (https://arxiv.org/abs/1811.02549).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from hf_gpt.cli.evaluation.cache import Cache
from hf_gpt.cli.evaluation.job import facts_of, open_model, progress
from hf_gpt.cli.evaluation.settings import EvaluationSettings
from hf_gpt.errors import UserError
from hf_gpt.evaluation.statistics.curves import Plane, Point, common_reference, hypervolume, super_baseline
from hf_gpt.evaluation.tasks.loading import Candidate
from hf_gpt.evaluation.tasks.metrics import MEANINGS, sample_metrics
from hf_gpt.evaluation.tasks.registry import TaskSpec
from hf_gpt.evaluation.tasks.results import REAL
from hf_gpt.evaluation.tasks.runner import real_texts, run_task, sample_count
from hf_gpt.reporting.report import Section, escape, fold, results_table


QUALITY, DIVERSITY = "bleu_4", "self_bleu_4"
PLANE = Plane("BLEU-4", "self-BLEU-4")
# It tells of preparation, not of quality.
_NOT_CHOSEN_BY = ("shortcut_auc",)
_WIDE, _NARROW = (880, 460), (330, 340)


def samplers(settings: EvaluationSettings) -> dict[str, dict[str, float]]:
    """The samplers that the options ask for: what tables call them, and their settings.

    Raises:
        UserError: there is none.
    """
    lists = {
        "temperature": settings.temperatures,
        "top_p": settings.top_ps,
        "top_k": settings.top_ks,
        "min_p": settings.min_ps,
    }
    found = {
        f"{name}={value:g}": {"temperature": 1.0, name: value} for name, values in lists.items() for value in values
    }
    if not found:
        raise UserError("--curve needs a sampler: --temperatures, --top_ps, --top_ks or --min_ps.")
    return found


def curve_results(
    settings: EvaluationSettings, models: Mapping[str, str], jobs: Sequence[Any], cache: Cache
) -> dict[str, Any]:
    """Samples and measures; the part of the results that this gives.

    Raises:
        UserError: a task is of another kind, or its data too little.
    """
    chosen = samplers(settings)
    for job in jobs:
        if job.spec is None or job.spec.kind != "unconditional":
            raise UserError(f"--curve needs tasks of unconditional samples, such as texts; {job.name} is another kind.")
        if len(job.rows) < 80 or sample_count(job.spec, job.rows) < 40:
            raise UserError(f"task {job.name}: --curve needs 80 real texts and 40 samples at least; more tell more.")
    points = {job.name: _real_point(job) for job in jobs}
    records = {job.name: {} for job in jobs}
    for model, path in models.items():
        candidate = None
        with progress(len(jobs) * len(chosen), model) as bar:
            for job in jobs:
                for setting, sampler in chosen.items():
                    sampled = dataclasses.replace(job, spec=_with_sampler(job.spec, sampler))
                    kept = cache.path(job.name, f"{model}-{setting}", ["curve", facts_of(settings, sampled, path)])
                    record = cache.get(kept)
                    if record is None:
                        candidate = candidate or open_model(settings, model, path)
                        record = _measure(sampled, candidate, settings)
                        cache.put(kept, record)
                    records[job.name][model, setting] = record
                    bar.update(1)
        del candidate
    curves, rows, samples = [], [], []
    for job in jobs:
        curve = _curve(job.name, records[job.name], points[job.name])
        curves.append(curve)
        rows += _rows(job.name, records[job.name], points[job.name], job)
        samples += _samples(job.name, records[job.name], curve)
    return {"results": rows, "comparisons": [], "samples": samples, "curves": curves}


def curve_section(
    uid: str, curve: Mapping[str, Any], heads: Sequence[str] = (), rows: Sequence[Sequence[str]] = ()
) -> Section:
    """A plot of quality and diversity, a table of the best samplers, and one of all (`heads` and `rows`)."""
    from hf_gpt.cli.evaluation.files import best_table
    from hf_gpt.reporting.curve_plots import describe_curves, draw_curves

    points = [Point(**point) for point in curve["points"]]
    try:
        drawings = "\n".join(
            f'<div class="{name}">{draw_curves(points, PLANE, uid=f"{uid}-{name}", width=width, height=height)}</div>'
            for name, (width, height) in (("wide", _WIDE), ("narrow", _NARROW))
        )
    except ImportError:
        drawings = (
            f'<p>{escape(describe_curves(points, PLANE))}</p>\n<p class="muted">Install matplotlib to draw it.</p>'
        )
    note = (
        "Each mark is a sampler. The line joins those that no other beats in both metrics. Samplers are chosen on half "
        "of the texts, by the metric named, and reported on the other half. The hypervolume is the area that a curve "
        "dominates, from the worst of all points."
    )
    plot = f'<figure class="chart">\n{drawings}\n</figure>'
    best = results_table("Best samplers", *best_table(curve))
    numbers = fold("All samplers in numbers", results_table("All samplers", heads, rows)) if rows else ""
    body = f'{plot}\n<div class="after">{best}</div>\n<p class="muted after">{escape(note)}</p>\n{numbers}'
    return Section(uid, f"Quality and diversity: {curve['task']}", body)


def _with_sampler(spec: TaskSpec, sampler: Mapping[str, float]) -> TaskSpec:
    orders = {"orders": [4]}
    metrics = {**spec.wanted_metrics, "ngram_bleu": orders, "self_bleu": orders}
    whole = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, **sampler}
    return dataclasses.replace(spec, metrics=metrics, **whole)


def _halves(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    middle = len(texts) // 2
    return list(texts[:middle]), list(texts[middle : 2 * middle])


def _measure(job: Any, candidate: Candidate, settings: EvaluationSettings) -> dict[str, Any]:
    references = _halves(real_texts(job.spec, job.rows)[0])
    samples = run_task(job.spec, candidate, job.rows, settings.seeds, settings.batch_size, lambda rows: None)
    metrics: dict[str, list[dict[str, float]]] = {"chosen_by": [], "reported": []}
    for texts in samples["texts"]:
        for part, some, real in zip(metrics, _halves(texts), references, strict=True):
            metrics[part].append(sample_metrics(job.spec, some, real))
    return {
        **metrics,
        "seeds": samples["seeds"],
        "count": len(samples["texts"][0]) // 2,
        "texts": samples["texts"][0][:3],
    }


def _real_point(job: Any) -> dict[str, float]:
    """The metrics of as many real texts as a model writes."""
    spec = _with_sampler(job.spec, {})
    references, held_out = real_texts(job.spec, job.rows)
    count = sample_count(job.spec, job.rows) // 2
    return sample_metrics(spec, held_out[:count], _halves(references)[1])


def _curve(
    task: str, records: Mapping[tuple[str, str], Mapping[str, Any]], real: Mapping[str, float]
) -> dict[str, Any]:
    rows: dict[str, list[dict[str, Any]]] = {"chosen_by": [], "reported": []}
    for (model, setting), record in records.items():
        for part, kept in rows.items():
            kept += [{"model": model, "setting": setting, **measured} for measured in record[part]]
    metrics = {
        name: MEANINGS[name].better
        for name in rows["reported"][0]
        if name in MEANINGS and MEANINGS[name].better != "reference" and name not in _NOT_CHOSEN_BY
    }
    points = [
        Point(
            model,
            setting,
            fmean(measured[QUALITY] for measured in record["reported"]),
            fmean(measured[DIVERSITY] for measured in record["reported"]),
        )
        for (model, setting), record in records.items()
    ]
    corner = common_reference(points, PLANE)
    areas = {
        model: hypervolume([point for point in points if point.model == model], corner, PLANE)
        for model in dict.fromkeys(point.model for point in points)
    }
    best = super_baseline(rows["chosen_by"], rows["reported"], metrics) if metrics else []
    return {
        "task": task,
        "points": [dataclasses.asdict(p) for p in (*points, Point(REAL, "", real[QUALITY], real[DIVERSITY]))],
        "reference": corner,
        "hypervolume": areas,
        "best": [dataclasses.asdict(one) for one in best],
    }


def _rows(
    task: str, records: Mapping[tuple[str, str], Mapping[str, Any]], real: Mapping[str, float], job: Any
) -> list[dict[str, Any]]:
    rows = []
    for (model, setting), record in records.items():
        rows += _rows_of(task, f"{model}, {setting}", record["reported"], record["count"], len(record["seeds"]))
    return rows + _rows_of(task, REAL, [real], sample_count(job.spec, job.rows) // 2, 0)


def _rows_of(
    task: str, model: str, runs: Sequence[Mapping[str, float]], items: int, seeds: int
) -> list[dict[str, Any]]:
    """A row for each metric, with its own interval where it has one."""
    rows = []
    for name in runs[0]:
        if name.endswith(("_low", "_high")):
            continue
        mean = {key: fmean(run[key] for run in runs) for key in (name, f"{name}_low", f"{name}_high") if key in runs[0]}
        low, high = mean.get(f"{name}_low"), mean.get(f"{name}_high")
        kind = None if low is None else "metric"
        found = {"value": mean[name], "low": low, "high": high, "interval": kind, "items": items, "seeds": seeds}
        rows.append({"task": task, "model": model, "metric": name, **found})
    return rows


def _samples(task: str, records: Mapping[tuple[str, str], Mapping[str, Any]], curve: Mapping[str, Any]) -> list[Any]:
    """Texts of each model at its best sampler."""
    best: dict[str, str] = {}
    for one in curve["best"]:
        best.setdefault(one["model"], one["setting"])
    texts = {f"{model}, {setting}": records[model, setting]["texts"] for model, setting in best.items()}
    return [
        {"task": task, "prompt": "", "texts": {name: some[n] for name, some in texts.items()}}
        for n in range(min((len(some) for some in texts.values()), default=0))
    ]
