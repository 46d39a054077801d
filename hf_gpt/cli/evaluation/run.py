"""The evaluation itself: every model on every task, then results, files and page."""

import dataclasses
import gc
import hashlib
import json
from pathlib import Path
from typing import Any

from hf_gpt.cli.evaluation.cache import Cache
from hf_gpt.cli.evaluation.harness import harness_name, is_harness_task, run_harness_task
from hf_gpt.cli.evaluation.job import Job, facts_of, open_model, progress
from hf_gpt.cli.evaluation.settings import EvaluationSettings
from hf_gpt.errors import UserError
from hf_gpt.evaluation.tasks.loading import Candidate, name_models
from hf_gpt.evaluation.tasks.metrics import sample_metrics
from hf_gpt.evaluation.tasks.registry import TaskSpec, find_task
from hf_gpt.evaluation.tasks.results import REAL, harness_results, task_results, with_adjusted
from hf_gpt.evaluation.tasks.rows import find_file, read_task_rows
from hf_gpt.evaluation.tasks.runner import Record, real_texts, run_task, sample_count, work_of
from hf_gpt.files.checkpoints import find_model
from hf_gpt.files.model_paths import check_exists
from hf_gpt.generation.devices import pick_device
from hf_gpt.terminal import hide_bars


RESULTS = "results.json"


def run_evaluation(settings: EvaluationSettings) -> list[Path]:
    """Runs every model on every task; returns the files that it wrote to `settings.output_dir`.

    Raises:
        UserError: what the user can put right.
    """
    hide_bars()
    models = name_models(settings.models)
    for path in [*models.values(), *([] if settings.judge is None else [settings.judge])]:
        check_exists(path)
    pick_device(settings.device)
    jobs = [_prepare(name, settings) for name in settings.tasks]
    kinds = [job.spec.kind for job in jobs if job.spec is not None]
    if settings.judge is not None and "unconditional" not in kinds:
        raise UserError("--judge is for unconditional samples, such as those of --tasks texts. Leave it out.")
    _check_names(jobs, models)
    _check_output(settings, models, jobs)
    judge = None if settings.discriminator is None else _open_judge(settings)
    cache = Cache(settings.output_dir / "cache")
    if settings.curve:
        from hf_gpt.cli.evaluation.curve import curve_results

        results = curve_results(settings, models, jobs, cache)
    else:
        records = _run(settings, models, jobs, cache)
        results = _results(settings, jobs, records)
    results = {**_head(settings, models, jobs), **results}

    from hf_gpt.cli.evaluation.files import write_files
    from hf_gpt.cli.evaluation.page import write_page

    written = [*write_files(settings.output_dir, results), write_page(settings.output_dir, results, judge)]
    return written


def _run(
    settings: EvaluationSettings, models: dict[str, str], jobs: list[Job], cache: Cache
) -> dict[str, dict[str, Record]]:
    """The records of each task and model."""
    records: dict[str, dict[str, Record]] = {job.name: {} for job in jobs}
    for job in jobs:
        if job.spec is not None and job.spec.kind == "unconditional":
            references, held_out = real_texts(job.spec, job.rows)
            held_out = held_out[: sample_count(job.spec, job.rows)]
            kept = cache.path(job.name, REAL, [*facts_of(settings, job, "real")[:3]])
            record = cache.get(kept)
            if record is None:
                record = {"texts": [held_out], "metrics": [sample_metrics(job.spec, held_out, references)], "seeds": []}
                cache.put(kept, record)
            records[job.name][REAL] = record
    for name, path in models.items():
        paths = {job.name: cache.path(job.name, name, facts_of(settings, job, path)) for job in jobs}
        waiting = []
        for job in jobs:
            record = cache.get(paths[job.name])
            if record is None:
                waiting.append(job)
            else:
                records[job.name][name] = record
        candidate = open_model(settings, name, path) if waiting else None
        for job in waiting:
            records[job.name][name] = _record(settings, job, candidate)
            cache.put(paths[job.name], records[job.name][name])
        del candidate
        gc.collect()
    return records


def _open_judge(settings: EvaluationSettings) -> tuple[Any, Any]:
    """The discriminator that colours samples, and its tokenizer."""
    from transformers import AutoTokenizer

    from hf_gpt.files.checkpoints import find_existing_model
    from hf_gpt.generation.guidance.guided_generate import load_discriminator

    options = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
    try:
        path = find_existing_model(settings.discriminator)
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        return load_discriminator(path, **options).to(pick_device(settings.device)), tokenizer
    except ValueError as error:
        raise UserError(f"--discriminator {settings.discriminator}: {' '.join(str(error).split())}") from error


def _record(settings: EvaluationSettings, job: Job, candidate: Candidate) -> Record:
    if job.spec is None:
        return run_harness_task(job.source, candidate, settings.limit, settings.batch_size)
    with progress(work_of(job.spec, job.rows, settings.seeds), f"{candidate.name}: {job.name}") as bar:
        try:
            record = run_task(job.spec, candidate, job.rows, settings.seeds, settings.batch_size, bar.update)
        except UserError as error:
            raise UserError(f"task {job.name}, model {candidate.name}: {error}") from error
    if job.spec.kind == "unconditional":
        references, _ = real_texts(job.spec, job.rows)
        record["metrics"] = [sample_metrics(job.spec, texts, references) for texts in record["texts"]]
    return record


def _results(settings: EvaluationSettings, jobs: list[Job], records: dict[str, dict[str, Record]]) -> dict[str, Any]:
    rows, compared, samples = [], [], []
    for job in jobs:
        of = records[job.name]
        if job.spec is None:
            found, gaps = harness_results(job.name, of, settings.bootstrap)
        else:
            found, gaps = task_results(job.spec, of, settings.bootstrap)
        rows += found
        compared += gaps
        if job.spec is not None:
            samples += _samples(job, of)
    return {"results": rows, "comparisons": with_adjusted(compared), "samples": samples}


def _samples(job: Job, records: dict[str, Record], count: int = 3) -> list[dict[str, Any]]:
    """A few rows with what each model wrote."""
    from hf_gpt.evaluation.tasks.rows import fill

    spec = job.spec
    first = next(iter(records.values()))
    if "predictions" in first and isinstance(first["predictions"][0], list):
        return [
            {
                "task": job.name,
                "prompt": fill(spec.prompt, job.rows[n]),
                "texts": {model: record["predictions"][0][n] for model, record in records.items()},
                "reference": (first["references"][n] or [""])[0],
            }
            for n in range(min(count, len(job.rows)))
        ]
    if "texts" in first:
        shown = range(min(count, *(len(record["texts"][0]) for record in records.values())))
        return [
            {
                "task": job.name,
                "prompt": "",
                "texts": {model: record["texts"][0][n] for model, record in records.items()},
            }
            for n in shown
        ]
    return []


def _prepare(name: str, settings: EvaluationSettings) -> Job:
    if is_harness_task(name):
        held = _digest(Path(name)) if Path(name).is_file() else ""
        return Job(harness_name(name), None, [], json.dumps([settings.limit, held]), name)
    spec = find_task(name)
    given = {"samples": settings.samples, "max_new_tokens": settings.max_new_tokens}
    if spec.kind == "residual_language_modelling":
        spec = dataclasses.replace(spec, **_as_trained(settings, spec))
    changed = {name: value for name, value in given.items() if value is not None}
    spec = dataclasses.replace(spec, **changed)
    if settings.judge is not None and spec.kind == "unconditional":
        judge = {"judge_nats": {"model": find_model(settings.judge), "batch_size": settings.batch_size}}
        spec = dataclasses.replace(spec, metrics={**spec.wanted_metrics, **judge})
    path = find_file(spec, settings.data)
    rows = read_task_rows(spec, settings.data, settings.limit)
    where = _digest(path) if path is not None else f"{spec.hub} {spec.subset} {spec.split}"
    return Job(spec.name, spec, rows, f"{where} {len(rows)}", name)


def _as_trained(settings: EvaluationSettings, spec: TaskSpec) -> dict[str, int]:
    """The form of texts that the residual models were trained on, the same for all models."""
    from hf_gpt.generation.guidance.residual_model import read_metrics

    found = {}
    for name, path in name_models(settings.models).items():
        metrics = read_metrics(find_model(path), settings.revision)
        if metrics is not None:
            found[name] = metrics.get("prompt_tokens", 0), metrics.get("max_new_tokens", spec.max_new_tokens)
    if not found:
        raise UserError(
            f"task {spec.name}: none of the models is a residual model. Make one: hf-gpt discriminator --objective "
            "residual."
        )
    if len(set(found.values())) > 1:
        forms = ", ".join(f"{name} {prompt} + {new}" for name, (prompt, new) in found.items())
        raise UserError(
            f"task {spec.name}: the models were trained on other lengths of text (tokens of prompt and text: {forms}). "
            "Evaluate them one at a time."
        )
    prompt_tokens, max_new_tokens = next(iter(found.values()))
    given = spec.prompt_tokens
    return {"prompt_tokens": prompt_tokens if given is None else given, "max_new_tokens": max_new_tokens}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _check_names(jobs: list[Job], models: dict[str, str]) -> None:
    names = [job.name for job in jobs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two tasks are called {twice!r}. Give one of them another 'name:' in its file.")
    if REAL in models:
        raise UserError(f"no model may be called {REAL!r}. Name it with NAME=MODEL.")


def _head(settings: EvaluationSettings, models: dict[str, str], jobs: list[Job]) -> dict[str, Any]:
    from hf_gpt.reporting.environment import describe_environment

    tasks = {
        job.name: {"kind": "lm_eval"}
        if job.spec is None
        else {
            key: getattr(job.spec, key)
            for key in ("kind", "description", "file", "hub", "subset", "split", "prompt", "max_new_tokens")
        }
        | {"rows": len(job.rows), "data": job.data}
        for job in jobs
    }
    return {
        "format": 1,
        "models": [{"name": name, "path": path} for name, path in models.items()],
        "tasks": tasks,
        "settings": _settings(settings),
        "environment": describe_environment(),
    }


def _settings(settings: EvaluationSettings) -> dict[str, Any]:
    kept = ("limit", "seeds", "bootstrap", "samples", "max_new_tokens", "dtype", "revision", "batch_size", "curve")
    if settings.curve:
        kept = (*kept, "temperatures", "top_ps", "top_ks", "min_ps")
    return {name: getattr(settings, name) for name in kept}


def _check_output(settings: EvaluationSettings, models: dict[str, str], jobs: list[Job]) -> None:
    """Refuses a folder that holds results which this evaluation would not have."""
    if settings.output_dir.exists() and not settings.output_dir.is_dir():
        raise UserError(f"--output_dir {settings.output_dir} is a file. Name a folder.")
    path = settings.output_dir / RESULTS
    if settings.overwrite or not path.exists():
        return
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        same = {entry["name"] for entry in held["models"]} <= set(models)
        same = same and held["settings"]["curve"] == settings.curve
        same = same and set(held["tasks"]) <= {job.name for job in jobs}
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise UserError(
            f"--output_dir {settings.output_dir} holds the results of another evaluation. Choose another folder, or "
            "replace them with --overwrite."
        )
