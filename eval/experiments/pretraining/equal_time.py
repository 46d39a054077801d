"""
Language models from scratch, equal in parameters, tokens a step and computing time: our default, our LSTM, and
transformers' GPT2LMHeadModel trained by transformers' Trainer, each at the best of several learning rates.

    python -m eval.experiments.pretraining.equal_time wikitext-2 --cpu_minutes 8 --seeds 0 1 2
    python -m eval.experiments.pretraining.equal_time tinyshakespeare --models hf_gpt lstm lstm_adamw
    python -m eval.experiments.pretraining.equal_time wikitext-2 --size 10m --models hf_gpt gpt2 --first_share 0.333

The rate of a model is chosen on the validation text with the first seed; the other seeds are for that rate alone. Time
is that of the process's own computation (CPU seconds), so that other programs on the machine do not count. The steps
that a model gets come from its step time, measured in turns with the others' before the first run. Runs that are done
are not repeated.
"""

import argparse
import json
import math
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from eval.benchmarks.speed.models import SIZES
from eval.experiments.common.adversarial import QUIET
from eval.experiments.common.command import make_parser, start
from eval.experiments.common.data import read_text
from eval.experiments.common.reports import listed, markdown_table
from eval.experiments.common.results import kept, read_json
from hf_gpt import HfGptConfig, HfGptForCausalLM, HfLstmConfig, HfLstmForCausalLM
from hf_gpt.data.collators import PackedRowsCollator
from hf_gpt.data.corpus import resolve_file
from hf_gpt.data.packed_dataset import tokenize_and_pack
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.files.atomic_files import write_json
from hf_gpt.training.monitoring.likelihood import total_nats
from hf_gpt.training.monitoring.mfu import prefers_bfloat16
from hf_gpt.training.trainer import HfGptTrainer
from hf_gpt.training.training_arguments import HfGptTrainingArguments


CONTEXT, ROWS = 256, 16
TIMED_STEPS = 6
ARTICLE = re.compile(r"^(?!\A)(?= = (?!= ))", re.MULTILINE)


@dataclass(frozen=True)
class Corpus:
    """What is trained on.

    Attributes:
        read: The documents of `train`, `valid` and `test`, and the text that their words are counted in.
        vocab_size: Of the byte-level BPE that is trained on the training part.
        sizes: Of the Transformers; the LSTM gets as many parameters.
    """

    read: Callable[[], dict[str, tuple[list[str], str]]]
    vocab_size: int
    sizes: Mapping[str, int]


def read_wikitext() -> dict[str, tuple[list[str], str]]:
    """WikiText-2 by article, each of which begins at a heading of one equals sign."""
    texts = {part: read_text(f"lm/wikitext-2/{part}.txt.gz") for part in ("train", "valid", "test")}
    return {part: (list(map(str.strip, ARTICLE.split(text))), text) for part, text in texts.items()}


def read_tinyshakespeare() -> dict[str, tuple[list[str], str]]:
    """Tiny Shakespeare as nanoGPT splits it: nine tenths to train on, halves of the last tenth to validate and to test.

    For likelihoods that compare with published ones. The last tenth is other plays than the rest: no two-sample test
    may take it for text of the same kind; see `split_corpus`.
    """
    text = resolve_file("tinyshakespeare").read_text(encoding="utf-8")
    first, second = round(0.9 * len(text)), round(0.95 * len(text))
    texts = {"train": text[:first], "valid": text[first:second], "test": text[second:]}
    return {part: ([text], text) for part, text in texts.items()}


CORPORA = {
    "wikitext-2": Corpus(read_wikitext, 8192, {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 6}),
    "tinyshakespeare": Corpus(
        read_tinyshakespeare, 1024, {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
    ),
}


@dataclass(frozen=True)
class Peer:
    """A model, rates that are tried, and the optimizer of `HfGptTrainer`; None: transformers' Trainer with AdamW."""

    title: str
    learning_rates: Sequence[float]
    optimizer: str | None


PEERS = {
    "hf_gpt": Peer("our GPT, Muon with AdamW", (4e-3, 8e-3), "muon"),
    "gpt2": Peer("GPT2LMHeadModel, Trainer's AdamW", (5e-4, 1.5e-3, 4e-3), None),
    "lstm": Peer("our LSTM, Muon with AdamW", (4e-3, 8e-3, 1.6e-2), "muon"),
    "lstm_adamw": Peer("our LSTM, AdamW", (4e-3, 8e-3, 1.6e-2), "adamw"),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__, "equal_time")
    parser.add_argument("corpus", choices=list(CORPORA), help="what is trained on")
    parser.add_argument(
        "--models", nargs="+", choices=list(PEERS), default=list(PEERS), help="the others are compared with the first"
    )
    parser.add_argument("--cpu_minutes", type=float, default=8, help="computing time of a run")
    parser.add_argument("--size", choices=list(SIZES), help="of the models; left out: 3.3 M, 0.9 M on Tiny Shakespeare")
    parser.add_argument(
        "--first_share", type=float, default=1.0, help="of the computing time, for the first model: does less suffice?"
    )
    rates_help = "learning rates that are tried in place of the model's own"
    parser.add_argument("--rates", type=_rates, nargs="+", default=[], metavar="MODEL=RATE,RATE", help=rates_help)
    options = parser.parse_args(argv)
    corpus, output = CORPORA[options.corpus], options.output_dir / options.corpus
    if options.size:
        corpus = replace(corpus, sizes=SIZES[options.size])
        output = output.with_name(f"{options.corpus}-{options.size}")
    data = prepare(corpus)
    steps = plan_steps(output / "step_seconds.json", options.models, options.cpu_minutes * 60, corpus, data)
    measured = options.models[0]
    steps[measured] = round(options.first_share * steps[measured])
    rates = {name: PEERS[name].learning_rates for name in options.models} | dict(options.rates)

    def result(name: str, learning_rate: float, seed: int) -> dict[str, Any]:
        share = f"-{options.first_share:g}" if name == measured and options.first_share != 1 else ""
        path = output / f"{name}-{learning_rate:g}{share}-{seed}.json"
        found = kept(path, lambda: train(name, learning_rate, seed, steps[name], corpus, data))
        print(f"{path.stem}: {json.dumps(found)}", flush=True)
        return found

    first, *others = options.seeds
    runs: dict[tuple[str, float], list[dict[str, Any]]] = {}
    best: dict[str, float] = {}
    for name in options.models:
        for rate in rates[name]:
            runs[name, rate] = [result(name, rate, first)]
        best[name] = min(rates[name], key=lambda rate: runs[name, rate][0]["validation_perplexity"])
    for seed in others:
        for name in options.models:
            runs[name, best[name]].append(result(name, best[name], seed))
    print(table(runs, best))
    return 0


def _rates(text: str) -> tuple[str, list[float]]:
    name, _, rates = text.partition("=")
    try:
        found = [float(rate) for rate in rates.split(",")]
    except ValueError:
        found = []
    if name not in PEERS or not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not MODEL=RATE,RATE with a model of {', '.join(PEERS)}")
    return name, found


def prepare(corpus: Corpus) -> dict[str, Any]:
    """Packed rows of the three parts, the tokenizer, and the words of validation and test: a line end is one."""
    data: dict[str, Any] = {}
    for part, (documents, text) in corpus.read().items():
        if part == "train":
            data["tokenizer"] = train_tokenizer(iter(documents), corpus.vocab_size, model_max_length=CONTEXT)
        data[part] = tokenize_and_pack(datasets.Dataset.from_dict({"text": documents}), data["tokenizer"], CONTEXT)
        data[f"{part}_words"] = len(text.split()) + text.count("\n")
        data[f"{part}_bytes"] = sum(len(document.encode("utf-8")) for document in documents)
    return data


def build(name: str, seed: int, corpus: Corpus, tokenizer: Any) -> Any:
    """A new model."""
    set_seed(seed)
    gpt = partial(HfGptConfig, vocab_size=corpus.vocab_size, max_position_embeddings=CONTEXT, **corpus.sizes)
    if name == "hf_gpt":
        return HfGptForCausalLM(gpt())
    if name == "gpt2":
        ends = dict.fromkeys(("bos_token_id", "eos_token_id"), tokenizer.eos_token_id)
        return GPT2LMHeadModel(GPT2Config(vocab_size=corpus.vocab_size, n_positions=CONTEXT, **ends, **corpus.sizes))
    size = HfGptForCausalLM(gpt()).num_parameters()
    set_seed(seed)
    return HfLstmForCausalLM(lstm_of_size(size, corpus.vocab_size, corpus.sizes["hidden_size"]))


def lstm_of_size(parameters: int, vocab_size: int, hidden_size: int) -> Any:
    """The configuration of an LSTM encoder and decoder whose number of parameters is nearest to this."""

    def config(width: int) -> Any:
        return HfLstmConfig(vocab_size=vocab_size, hidden_size=hidden_size, intermediate_size=width)

    def distance(width: int) -> int:
        with torch.device("meta"):
            return abs(HfLstmForCausalLM(config(width)).num_parameters() - parameters)

    return config(min(range(hidden_size, 8 * hidden_size, 8), key=distance))


def make_trainer(name: str, learning_rate: float, seed: int, steps: int, corpus: Corpus, data: dict[str, Any]) -> Any:
    """Ours with the defaults of hf-gpt; GPT-2 in transformers' Trainer, with warm-up and AdamW.

    Both compute in bfloat16 where this processor is quicker in it.
    """
    shared = {
        "output_dir": tempfile.mkdtemp(),
        "max_steps": steps,
        "learning_rate": learning_rate,
        "per_device_train_batch_size": ROWS,
        "max_grad_norm": 1.0,
        "bf16": prefers_bfloat16("cpu"),
        "seed": seed,
        "use_cpu": True,
        **QUIET,
    }
    optimizer = PEERS[name].optimizer
    if optimizer is None:
        arguments = TrainingArguments(**shared, warmup_steps=0.05, lr_scheduler_type="cosine")
        trainer_class = Trainer
    else:
        arguments = HfGptTrainingArguments(**shared, optimizer=optimizer, warmup_steps=0.03, decay_steps=0.7)
        trainer_class = HfGptTrainer
    model = build(name, seed, corpus, data["tokenizer"])
    return trainer_class(model=model, args=arguments, train_dataset=data["train"], data_collator=PackedRowsCollator())


def plan_steps(
    path: Path, names: Sequence[str], cpu_seconds: float, corpus: Corpus, data: dict[str, Any]
) -> dict[str, int]:
    """Steps of each model that fill the time, from step times measured in turns.

    A model that is new in a folder is timed beside the first one, whose time then stands for what it was before.
    """
    known: dict[str, float] = read_json(path) if path.exists() else {}
    missing = [name for name in names if name not in known]
    if missing:
        timed = list(dict.fromkeys([names[0], *missing]))
        times: dict[str, list[float]] = {name: [] for name in timed}
        for turn in range(4):
            for name in timed:
                trainer = make_trainer(name, 1e-3, 0, TIMED_STEPS, corpus, data)
                began = time.process_time()
                trainer.train()
                if turn:
                    times[name].append((time.process_time() - began) / TIMED_STEPS)
        seconds = {name: statistics.median(found) for name, found in times.items()}
        scale = known.get(names[0], seconds[names[0]]) / seconds[names[0]]
        known |= {name: scale * seconds[name] for name in missing}
        write_json(path, known)
    return {name: int(cpu_seconds / known[name]) for name in names}


def train(
    name: str, learning_rate: float, seed: int, steps: int, corpus: Corpus, data: dict[str, Any]
) -> dict[str, Any]:
    """Trains a model and measures its perplexities by word, and bits per byte."""
    trainer = make_trainer(name, learning_rate, seed, steps, corpus, data)
    began = time.process_time()
    trainer.train()
    found: dict[str, Any] = {"steps": steps, "cpu_seconds": time.process_time() - began}
    for title, part in (("validation", "valid"), ("test", "test")):
        nats, _ = total_nats(trainer.model, data[part], ROWS)
        found[f"{title}_perplexity"] = math.exp(nats / data[f"{part}_words"])
        found[f"{title}_bits_per_byte"] = nats / math.log(2) / data[f"{part}_bytes"]
    found["parameters"] = sum(parameter.numel() for parameter in trainer.model.parameters())
    return found


def table(runs: Mapping[tuple[str, float], Sequence[Mapping[str, Any]]], best: Mapping[str, float]) -> str:
    """A Markdown table of all runs, and each model's test perplexity over the first's, at its best rate, by seed."""
    rows = []
    for (name, rate), found in runs.items():
        test = [run["test_perplexity"] for run in found]
        rows.append(
            {
                "model": PEERS[name].title,
                "rate": f"{rate:g}{' (best)' if best[name] == rate else ''}",
                "seeds": len(found),
                "test perplexity by word (least to most)": (
                    f"{statistics.mean(test):.1f} ({min(test):.1f} to {max(test):.1f})"
                ),
                "bits per byte": f"{statistics.mean(run['test_bits_per_byte'] for run in found):.3f}",
                "validation": f"{statistics.mean(run['validation_perplexity'] for run in found):.1f}",
                "M parameters": f"{found[0]['parameters'] / 1e6:.2f}",
                "steps": found[0]["steps"],
                "CPU s": f"{statistics.mean(run['cpu_seconds'] for run in found):.0f}",
            }
        )
    lines = [markdown_table(rows), ""]
    measure, *others = best
    for name in others:
        pairs = zip(runs[name, best[name]], runs[measure, best[measure]], strict=True)
        ratios = listed(f"{theirs['test_perplexity'] / ours['test_perplexity']:.3f}" for theirs, ours in pairs)
        lines.append(f"{PEERS[name].title} / {PEERS[measure].title}, test perplexity seed by seed: {ratios}")
    return "\n".join(lines)


if __name__ == "__main__":
    start(main)
