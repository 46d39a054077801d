"""
Fine-tuning without downloaded weights, on real data: pretraining on the texts at hand, then a task, against the task
alone. Every run is `hf-gpt pretrain` or `hf-gpt finetune` in a process of its own; runs that are done are not repeated.

    python -m eval.experiments.finetuning sst2 trec --data DATA --output runs/finetuning --seeds 0 1 2
"""

import argparse
import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_gpt.files.atomic_files import replaces_file, write_json


# Files below the data folder whose texts are pretrained on: the column of the text, and how often each is repeated.
CORPORA = {
    "english": {
        "classification/sst2/train.jsonl": ("text", 2),
        "classification/subj/all.jsonl.gz": ("text", 2),
        "classification/trec/train.jsonl": ("text", 2),
        "classification/ag_news/train.jsonl.gz": ("text", 1),
        "detection/seqxgpt/document.jsonl.gz": ("text", 1),
        "summarization/dialogsum/train.jsonl.gz": ("dialogue", 1),
    },
    "captions": {"translation/multi30k_en_de/train.jsonl.gz": (("en", "de"), 1)},
}
# Sentences of these never become pretraining text: some of the files above share sentences with them.
HELD_OUT_TEXTS = {
    "classification/sst2/dev.jsonl": "text",
    "classification/sst2/test.jsonl": "text",
    "classification/trec/test.jsonl": "text",
}

SHAPE = {"preset": "nano", "config_overrides": {"hidden_size": 192, "num_attention_heads": 6, "chunked_loss": "always"}}
TRAINING = {"save_strategy": "no", "overwrite_output_dir": True, "disable_tqdm": True}
# As many parameters as SHAPE: cross-attention takes what the narrower MLPs leave.
ENCODER_DECODER = {
    "architecture": "encoder_decoder",
    "preset": "nano",
    "config_overrides": {**SHAPE["config_overrides"], "num_hidden_layers": 2, "intermediate_size": 576},
}
PRETRAINING = {
    **SHAPE,
    **TRAINING,
    # Short rows, in a context as long as the longest task's.
    "config_overrides": {**SHAPE["config_overrides"], "max_position_embeddings": 512},
    "max_length": 128,
    "tokenizer_vocab_size": 8192,
    "validation_fraction": 0.01,
    "per_device_train_batch_size": 32,
    "torch_compile": True,
    "max_steps": 400,
    "learning_rate": 3e-3,
    "warmup_steps": 0.02,
    "decay_steps": 0.7,
    "logging_steps": 50,
    "sample_prompts": ["The film is"],
    "sample_max_new_tokens": 40,
}
# What a corpus changes in PRETRAINING.
PRETRAINING_CHANGES = {
    "english": {},
    "captions": {
        "config_overrides": {**ENCODER_DECODER["config_overrides"], "max_position_embeddings": 512},
        "max_steps": 300,
        "sample_prompts": ["Two men", "Zwei Männer"],
    },
}
CLASSIFICATION = {
    **TRAINING,
    "task": "classification",
    "per_device_train_batch_size": 32,
    "learning_rate": 1e-3,
    "eval_strategy": "epoch",
}


@dataclass(frozen=True)
class Task:
    """A task: its files, settings and metric.

    Attributes:
        train: Training file, below the data folder.
        validation: File of the score.
        metric: Name of the score in `metrics.json`.
        aim: Score to reach, or None.
        settings: Options of `hf-gpt finetune`.
        arms: What each arm changes; an arm that names a corpus in `pretraining` begins from a model of that.
        pretraining: The corpus of each arm that begins from a pretrained model.
    """

    train: str
    validation: str
    metric: str
    aim: float | None
    settings: Mapping[str, Any]
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"pretrained": {}, "scratch": SHAPE})
    pretraining: Mapping[str, str] = field(default_factory=lambda: {"pretrained": "english"})


TASKS = {
    "sst2": Task(
        train="classification/sst2/train.jsonl",
        validation="classification/sst2/dev.jsonl",
        metric="eval_accuracy",
        aim=0.82,
        settings={**CLASSIFICATION, "num_train_epochs": 3, "max_length": 128},
        arms={"pretrained": {}, "scratch": {**SHAPE, "num_train_epochs": 4}},
    ),
    "trec": Task(
        train="classification/trec/train.jsonl",
        validation="classification/trec/test.jsonl",
        metric="eval_accuracy",
        aim=0.88,
        settings={**CLASSIFICATION, "num_train_epochs": 4, "max_length": 64},
    ),
    "multi30k": Task(
        train="translation/multi30k_en_de/train.jsonl.gz",
        validation="translation/multi30k_en_de/test_2016_flickr.jsonl",
        metric="eval_sacrebleu",
        aim=25.0,
        settings={
            **TRAINING,
            "task": "translation",
            "per_device_train_batch_size": 96,
            "num_train_epochs": 3,
            "learning_rate": 3e-3,
            "prompt_template": "{source} =",
            "eval_strategy": "no",
        },
        arms={
            "scratch": SHAPE,
            "encoder_decoder": ENCODER_DECODER,
            "from_decoder": {"architecture": "encoder_decoder"},
        },
        pretraining={"from_decoder": "captions"},
    ),
    "dialogsum": Task(
        train="summarization/dialogsum/train.jsonl.gz",
        validation="summarization/dialogsum/dev.jsonl",
        metric="eval_rougeL",
        aim=None,
        settings={
            **TRAINING,
            "task": "summarization",
            "num_train_epochs": 2,
            "max_length": 512,
            "max_new_tokens": 64,
            "eval_strategy": "no",
        },
    ),
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*TASKS, *(f"pretraining_{name}" for name in CORPORA)]
    parser.add_argument("tasks", nargs="+", choices=names, metavar="TASK", help=", ".join(names))
    parser.add_argument("--data", type=Path, required=True, help="folder with classification/, lm/, translation/, ...")
    parser.add_argument("--output", type=Path, default=Path("runs/finetuning"), help="folder of all runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="a run of everything for each")
    parser.add_argument("--arms", nargs="+", help="pretrained, scratch, ...; left out: all of the task")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="options that replace the task's")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    changes = dict(item.split("=", 1) for item in options.set)
    for name in options.tasks:
        for seed in options.seeds:
            if name not in TASKS:
                pretrain(name.removeprefix("pretraining_"), options.data, options.output, seed)
                continue
            for arm in TASKS[name].arms:
                if options.arms is None or arm in options.arms:
                    finetune(name, arm, options.data, options.output, seed, changes)
    print(summary(options.output))
    return 0


def pretrain(corpus: str, data: Path, output: Path, seed: int) -> Path:
    """The run folder of the language model of a corpus and seed, trained if it is not there."""
    texts = output / f"pretraining_{corpus}.jsonl"
    if not texts.exists():
        write_corpus(CORPORA[corpus], data, texts)
    folder = output / f"pretraining_{corpus}-{seed}"
    run("pretrain", {**PRETRAINING, **PRETRAINING_CHANGES[corpus], "train_file": [texts]}, folder, seed)
    return folder


def finetune(name: str, arm: str, data: Path, output: Path, seed: int, changes: Mapping[str, Any]) -> None:
    """Trains and evaluates one arm of a task."""
    task = TASKS[name]
    files = {"train_file": [data / task.train], "validation_file": data / task.validation}
    settings = {**task.settings, **task.arms[arm], **files}
    if arm in task.pretraining:
        settings["model_name_or_path"] = pretrain(task.pretraining[arm], data, output, seed) / "model"
    run("finetune", settings | changes, output / f"{name}-{arm}-{seed}", seed)


def run(command: str, settings: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Runs a command of hf-gpt, in the type that is quicker here, unless its folder holds a result.

    What it took is written to `cost.json` in that folder.
    """
    from hf_gpt.training.monitoring.mfu import prefers_bfloat16

    settings = {"bf16": prefers_bfloat16("cpu"), **settings, "seed": seed, "output_dir": folder}
    words = [word for name, value in settings.items() for word in (f"--{name}", *_words(value))]
    if (folder / "cost.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    print(f"{folder.name}: running, see {log}", flush=True)
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with log.open("w", encoding="utf-8") as file:
        status = subprocess.run([sys.executable, "-m", "hf_gpt", command, *words], stdout=file, stderr=file).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if status:
        raise SystemExit(f"{folder.name} failed:\n{log.read_text(encoding='utf-8')[-2000:]}")
    cost = {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "threads": int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count(),
    }
    write_json(folder / "cost.json", cost)


def summary(output: Path) -> str:
    """A Markdown table of all runs below a folder; minutes of one core, pretraining included."""
    rows = [
        "| task | arm | score (mean) | least to most | seeds | aim | core minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, task in TASKS.items():
        for arm in task.arms:
            scores, minutes = [], []
            for folder in sorted(output.glob(f"{name}-{arm}-*")):
                if (folder / "cost.json").exists():
                    scores.append(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))[task.metric])
                    costs = [folder]
                    if arm in task.pretraining:
                        costs.append(output / f"pretraining_{task.pretraining[arm]}-{folder.name.rpartition('-')[2]}")
                    seconds = [
                        json.loads((path / "cost.json").read_text(encoding="utf-8"))["cpu_seconds"] for path in costs
                    ]
                    minutes.append(sum(seconds) / 60)
            if scores:
                rows.append(
                    f"| {name} | {arm} | {statistics.mean(scores):.4g} | {min(scores):.4g} to {max(scores):.4g} "
                    f"| {len(scores)} | {task.aim or ''} | {statistics.mean(minutes):.1f} |"
                )
    return "\n".join(rows)


def write_corpus(files: Mapping[str, tuple[Any, int]], data: Path, path: Path) -> None:
    """Writes the texts of files as JSON lines, without any sentence of the held-out files."""
    held_out = held_out_keys(data)
    with replaces_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        for name, (columns, times) in files.items():
            for text in _texts(data / name, [columns] if isinstance(columns, str) else columns):
                if _key(text) not in held_out:
                    file.write((json.dumps({"text": text}, ensure_ascii=False) + "\n") * times)


def held_out_keys(data: Path) -> set[str]:
    """The sentences of the held-out files, in a spelling without case, spaces and marks."""
    return {_key(text) for name, column in HELD_OUT_TEXTS.items() for text in _texts(data / name, [column])}


def _texts(path: Path, columns: Sequence[str]) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            yield from (row[column] for column in columns)


def _key(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum())


def _words(value: Any) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [str(item) for item in value]
    return [json.dumps(value) if isinstance(value, (dict, bool)) else str(value)]


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
