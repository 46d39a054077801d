"""The evaluation itself: every model on every task, then results, files and page."""

import argparse
import dataclasses
import gc
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from hf_gpt.cli.evaluation.cache import Cache
from hf_gpt.cli.evaluation.harness import harness_name, is_harness_task, run_harness_task
from hf_gpt.cli.evaluation.job import Job, facts_of, open_model, progress
from hf_gpt.errors import UserError
from hf_gpt.evaluation.tasks.loading import Candidate, name_models
from hf_gpt.evaluation.tasks.metrics import sample_metrics
from hf_gpt.evaluation.tasks.registry import find_task
from hf_gpt.evaluation.tasks.results import REAL, harness_results, task_results, with_adjusted
from hf_gpt.evaluation.tasks.rows import find_file, read_task_rows
from hf_gpt.evaluation.tasks.runner import Record, real_texts, run_task, sample_count, work_of
from hf_gpt.files.model_paths import check_exists
from hf_gpt.generation.devices import pick_device


RESULTS = "results.json"


def run_evaluation(args: argparse.Namespace) -> list[Path]:
    """Runs every model on every task; returns the files of results that it wrote to `args.output_dir`.

    Raises:
        UserError: what the user can put right.
    """
    _be_quiet_when_piped()
    models = name_models(args.models)
    for path in models.values():
        check_exists(path)
    pick_device(args.device)
    jobs = [_prepare(name, args) for name in args.tasks]
    _check_names(jobs, models)
    _check_output(args, models, jobs)
    judge = None if args.discriminator is None else _open_judge(args)
    cache = Cache(args.output_dir / "cache")
    if args.curve:
        from hf_gpt.cli.evaluation.curve import curve_results

        results = curve_results(args, models, jobs, cache)
    else:
        records = _run(args, models, jobs, cache)
        results = _results(args, jobs, records)
    results = {**_head(args, models, jobs), **results}

    from hf_gpt.cli.evaluation.files import write_files
    from hf_gpt.cli.evaluation.page import write_page

    written = [*write_files(args.output_dir, results), write_page(args.output_dir, results, judge)]
    return written


def _be_quiet_when_piped() -> None:
    if not sys.stderr.isatty():
        import datasets
        from transformers.utils import logging

        logging.disable_progress_bar()
        datasets.disable_progress_bars()


def _run(
    args: argparse.Namespace, models: dict[str, str], jobs: list[Job], cache: Cache
) -> dict[str, dict[str, Record]]:
    """The records of each task and model."""
    records: dict[str, dict[str, Record]] = {job.name: {} for job in jobs}
    for job in jobs:
        if job.spec is not None and job.spec.kind == "unconditional":
            references, held_out = real_texts(job.spec, job.rows)
            held_out = held_out[: sample_count(job.spec, job.rows)]
            position = cache.path(job.name, REAL, [*facts_of(args, job, "real")[:3]])
            record = cache.get(position)
            if record is None:
                record = {"texts": [held_out], "metrics": [sample_metrics(job.spec, held_out, references)], "seeds": []}
                cache.put(position, record)
            records[job.name][REAL] = record
    for name, path in models.items():
        positions = {job.name: cache.path(job.name, name, facts_of(args, job, path)) for job in jobs}
        waiting = []
        for job in jobs:
            record = cache.get(positions[job.name])
            if record is None:
                waiting.append(job)
            else:
                records[job.name][name] = record
        candidate = open_model(args, name, path) if waiting else None
        for job in waiting:
            records[job.name][name] = _record(args, job, candidate)
            cache.put(positions[job.name], records[job.name][name])
        del candidate
        gc.collect()
    return records


def _open_judge(args: argparse.Namespace) -> tuple[Any, Any]:
    """The discriminator that colours samples, and its tokenizer."""
    from transformers import AutoTokenizer

    from hf_gpt.files.checkpoints import find_existing_model
    from hf_gpt.generation.guidance.guided_generate import load_discriminator

    options = {"revision": args.revision, "trust_remote_code": args.trust_remote_code}
    try:
        path = find_existing_model(args.discriminator)
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        return load_discriminator(path, **options).to(pick_device(args.device)), tokenizer
    except ValueError as error:
        raise UserError(f"--discriminator {args.discriminator}: {' '.join(str(error).split())}") from error


def _record(args: argparse.Namespace, job: Job, candidate: Candidate) -> Record:
    if job.spec is None:
        return run_harness_task(job.source, candidate, args.limit, args.batch_size)
    with progress(work_of(job.spec, job.rows, args.seeds), f"{candidate.name}: {job.name}") as bar:
        try:
            record = run_task(job.spec, candidate, job.rows, args.seeds, args.batch_size, bar.update)
        except UserError as error:
            raise UserError(f"task {job.name}, model {candidate.name}: {error}") from error
    if job.spec.kind == "unconditional":
        references, _ = real_texts(job.spec, job.rows)
        record["metrics"] = [sample_metrics(job.spec, texts, references) for texts in record["texts"]]
    return record


def _results(args: argparse.Namespace, jobs: list[Job], records: dict[str, dict[str, Record]]) -> dict[str, Any]:
    rows, compared, samples = [], [], []
    for job in jobs:
        of = records[job.name]
        if job.spec is None:
            found, gaps = harness_results(job.name, of, args.bootstrap)
        else:
            found, gaps = task_results(job.spec, of, args.bootstrap)
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


def _prepare(name: str, args: argparse.Namespace) -> Job:
    if is_harness_task(name):
        held = _digest(Path(name)) if Path(name).is_file() else ""
        return Job(harness_name(name), None, [], json.dumps([args.limit, held]), name)
    spec = find_task(name)
    changed = {key: getattr(args, key) for key in ("samples", "max_new_tokens") if getattr(args, key) is not None}
    spec = dataclasses.replace(spec, **changed)
    path = find_file(spec, args.data)
    rows = read_task_rows(spec, args.data, args.limit)
    where = _digest(path) if path is not None else f"{spec.hub} {spec.subset} {spec.split}"
    return Job(spec.name, spec, rows, f"{where} {len(rows)}", name)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _check_names(jobs: list[Job], models: dict[str, str]) -> None:
    names = [job.name for job in jobs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two tasks are called {twice!r}. Give one of them another 'name:' in its file.")
    if REAL in models:
        raise UserError(f"no model may be called {REAL!r}. Name it with NAME=MODEL.")


def _head(args: argparse.Namespace, models: dict[str, str], jobs: list[Job]) -> dict[str, Any]:
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
        "settings": _settings(args),
        "environment": describe_environment(),
    }


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    kept = ("limit", "seeds", "bootstrap", "samples", "max_new_tokens", "dtype", "revision", "batch_size", "curve")
    if args.curve:
        kept = (*kept, "temperatures", "top_ps", "top_ks", "min_ps")
    return {name: getattr(args, name) for name in kept}


def _check_output(args: argparse.Namespace, models: dict[str, str], jobs: list[Job]) -> None:
    """Refuses a folder that holds results which this evaluation would not have."""
    if args.output_dir.exists() and not args.output_dir.is_dir():
        raise UserError(f"--output_dir {args.output_dir} is a file. Name a folder.")
    path = args.output_dir / RESULTS
    if args.overwrite or not path.exists():
        return
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        same = {entry["name"] for entry in held["models"]} <= set(models) and held["settings"]["curve"] == args.curve
        same = same and set(held["tasks"]) <= {job.name for job in jobs}
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise UserError(
            f"--output_dir {args.output_dir} holds the results of another evaluation. Choose another folder, or "
            "replace them with --overwrite."
        )
