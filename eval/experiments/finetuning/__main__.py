"""
Fine-tuning without downloaded weights, on real data: pretraining on the texts at hand, then a task, against the task
alone. Every run is `hf-gpt pretrain` or `hf-gpt finetune` in a process of its own; runs that are done are not repeated.

    python -m eval.experiments.finetuning sst2 trec --output_dir runs/finetuning --seeds 0 1 2
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.experiments.common.command import make_parser, start
from eval.experiments.common.data import data_folder, read_lines
from eval.experiments.common.processes import core_minutes, finished, run, scored, seed_of
from eval.experiments.common.reports import markdown_table
from eval.experiments.common.results import read_json
from hf_gpt.files.atomic_files import write_text


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
    """A task: files below the data folder, options of `hf-gpt finetune`, and the score of `metrics.json` with its aim.

    Attributes:
        arms: What each arm changes.
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
            "max_train_samples": 2000,
            "max_length": 512,
            "max_new_tokens": 64,
            "eval_strategy": "no",
        },
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__, "finetuning")
    names = [*TASKS, *(f"pretraining_{name}" for name in CORPORA)]
    parser.add_argument("tasks", nargs="+", choices=names, metavar="TASK", help=", ".join(names))
    parser.add_argument("--arms", nargs="+", help="pretrained, scratch, ...; left out: all of the task")
    options = parser.parse_args(argv)
    for name in options.tasks:
        for seed in options.seeds:
            if name not in TASKS:
                pretrain(name.removeprefix("pretraining_"), options.output_dir, seed)
                continue
            for arm in TASKS[name].arms:
                if options.arms is None or arm in options.arms:
                    finetune(name, arm, options.output_dir, seed)
    print(summary(options.output_dir))
    return 0


def pretrain(corpus: str, output: Path, seed: int) -> Path:
    """The run folder of the language model of a corpus and seed, trained if it is not there."""
    texts, folder = output / f"pretraining_{corpus}.jsonl", output / f"pretraining_{corpus}-{seed}"
    if not texts.exists():
        write_corpus(CORPORA[corpus], texts)
    run("pretrain", {**PRETRAINING, **PRETRAINING_CHANGES.get(corpus, {}), "train_file": [texts]}, folder, seed)
    return folder


def finetune(name: str, arm: str, output: Path, seed: int) -> None:
    """Trains and evaluates one arm of a task."""
    task, data = TASKS[name], data_folder()
    files = {"train_file": [data / task.train], "validation_file": data / task.validation}
    settings = {**task.settings, **task.arms[arm], **files}
    if arm in task.pretraining:
        settings["model_name_or_path"] = pretrain(task.pretraining[arm], output, seed) / "model"
    run("finetune", settings, output / f"{name}-{arm}-{seed}", seed)


def summary(output: Path) -> str:
    """A Markdown table of all runs below a folder; minutes of one core, pretraining included."""
    rows = []
    for name, task in TASKS.items():
        for arm in task.arms:
            folders = finished(output, f"{name}-{arm}-*")
            minutes = list(map(core_minutes, folders))
            if arm in task.pretraining:
                begun = [output / f"pretraining_{task.pretraining[arm]}-{seed_of(folder)}" for folder in folders]
                minutes = [own + core_minutes(folder) for own, folder in zip(minutes, begun, strict=True)]
            if folders:
                scores = [read_json(folder / "metrics.json")[task.metric] for folder in folders]
                rows.append({"task": name, "arm": arm, "aim": task.aim, **scored(scores, minutes, ".4g")})
    return markdown_table(rows)


def write_corpus(files: Mapping[str, tuple[Any, int]], path: Path) -> None:
    """Writes the texts of files as JSON lines, without any sentence of the held-out files."""
    held_out = {_key(text) for name, column in HELD_OUT_TEXTS.items() for text in _texts(name, [column])}
    lines = []
    for name, (columns, times) in files.items():
        for text in _texts(name, [columns] if isinstance(columns, str) else columns):
            if _key(text) not in held_out:
                lines += [json.dumps({"text": text}, ensure_ascii=False) + "\n"] * times
    write_text(path, "".join(lines))


def _texts(path: str, columns: Sequence[str]) -> Iterator[str]:
    for row in map(json.loads, read_lines(path)):
        yield from (row[column] for column in columns)


def _key(text: str) -> str:
    """A sentence without case, spaces and marks."""
    return "".join(character for character in text.lower() if character.isalnum())


if __name__ == "__main__":
    start(main)
