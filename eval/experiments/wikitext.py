"""
WikiText-2 from scratch: our default against transformers' GPT2LMHeadModel, equal in parameters, tokens a step and
computing time, GPT-2 trained by transformers' Trainer at each of several learning rates.

    python -m hf_gpt.eval.experiments.wikitext --data DATA --output runs/wikitext --cpu_minutes 8 --seeds 0 1 2

Time is that of the process's own computation (CPU seconds), so that other programs on the machine do not count. The
steps that a model gets come from its step time, measured in turns with the other's before the first run. Runs that are
done are not repeated.
"""

import argparse
import gzip
import json
import math
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any


CONTEXT, ROWS, VOCAB_SIZE = 256, 16, 8192
SIZES = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 6}
MODELS = ("hf_gpt", "gpt2")
TIMED_STEPS = 6


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds lm/wikitext-2")
    parser.add_argument("--output", type=Path, default=Path("runs/wikitext"), help="folder of the results")
    parser.add_argument("--cpu_minutes", type=float, default=8, help="computing time of a run")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the best rate; the others get the first"
    )
    parser.add_argument("--gpt2_learning_rates", type=float, nargs="+", default=[5e-4, 1.5e-3, 4e-3])
    parser.add_argument("--learning_rate", type=float, default=4e-3, help="ours")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    data = prepare(options.data / "lm" / "wikitext-2")
    steps = plan_steps(options.output / "step_seconds.json", options.cpu_minutes * 60, data)
    first, *others = options.seeds

    def result(kind: str, learning_rate: float, seed: int) -> dict[str, Any]:
        path = options.output / f"{kind}-{learning_rate:g}-{seed}.json"
        if not path.exists():
            path.write_text(json.dumps(train(kind, learning_rate, seed, steps[kind], data)) + "\n")
        found = json.loads(path.read_text())
        print(f"{path.stem}: {json.dumps(found)}", flush=True)
        return found

    ours = [result("hf_gpt", options.learning_rate, first)]
    sweep = {rate: [result("gpt2", rate, first)] for rate in options.gpt2_learning_rates}
    best = min(sweep, key=lambda rate: sweep[rate][0]["validation_perplexity"])
    for seed in others:
        ours.append(result("hf_gpt", options.learning_rate, seed))
        sweep[best].append(result("gpt2", best, seed))
    print(table(ours, options.learning_rate, sweep, best))
    return 0


def prepare(folder: Path) -> dict[str, Any]:
    """Packed rows of the three parts, and the words of validation and test: a line end is one, as is customary."""
    import datasets

    from hf_gpt.training.data import tokenize_and_pack
    from hf_gpt.training.tokenizer import train_tokenizer

    data: dict[str, Any] = {}
    for part in ("train", "valid", "test"):
        with gzip.open(folder / f"{part}.txt.gz", "rt", encoding="utf-8") as file:
            text = file.read()
        articles = list(read_articles(text.splitlines(keepends=True)))
        if part == "train":
            data["tokenizer"] = train_tokenizer(iter(articles), VOCAB_SIZE, model_max_length=CONTEXT)
        data[part] = tokenize_and_pack(datasets.Dataset.from_dict({"text": articles}), data["tokenizer"], CONTEXT)
        data[f"{part}_words"] = len(text.split()) + text.count("\n")
    return data


def read_articles(lines: Iterable[str]) -> Iterator[str]:
    """The articles of WikiText, each of which begins at a heading of one equals sign."""
    article: list[str] = []
    for line in lines:
        if line.startswith(" = ") and not line.startswith(" = = ") and article:
            yield "".join(article).strip()
            article = []
        article.append(line)
    yield "".join(article).strip()


def build(kind: str, seed: int, tokenizer: Any) -> Any:
    """A new model of either kind."""
    from transformers import GPT2Config, GPT2LMHeadModel, set_seed

    from hf_gpt import HfGptConfig, HfGptForCausalLM

    set_seed(seed)
    if kind == "hf_gpt":
        return HfGptForCausalLM(HfGptConfig(vocab_size=VOCAB_SIZE, max_position_embeddings=CONTEXT, **SIZES))
    ends = dict.fromkeys(("bos_token_id", "eos_token_id"), tokenizer.eos_token_id)
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB_SIZE, n_positions=CONTEXT, **ends, **SIZES))


def make_trainer(kind: str, learning_rate: float, seed: int, steps: int, data: dict[str, Any]) -> Any:
    """Ours with the defaults of hf-gpt; GPT-2 in transformers' Trainer, with warm-up, bf16 and AdamW."""
    import tempfile

    from transformers import Trainer, TrainingArguments

    from hf_gpt.training.collators import PackedRowsCollator
    from hf_gpt.training.trainer import HfGptTrainer
    from hf_gpt.training.training_arguments import HfGptTrainingArguments

    shared = {
        "output_dir": tempfile.mkdtemp(),
        "max_steps": steps,
        "learning_rate": learning_rate,
        "per_device_train_batch_size": ROWS,
        "max_grad_norm": 1.0,
        "bf16": True,
        "seed": seed,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    if kind == "hf_gpt":
        arguments = HfGptTrainingArguments(**shared, warmup_steps=0.03, decay_steps=0.7, logging_first_step=False)
        trainer_class = HfGptTrainer
    else:
        arguments = TrainingArguments(**shared, warmup_steps=0.05, lr_scheduler_type="cosine")
        trainer_class = Trainer
    model = build(kind, seed, data["tokenizer"])
    return trainer_class(model=model, args=arguments, train_dataset=data["train"], data_collator=PackedRowsCollator())


def plan_steps(path: Path, cpu_seconds: float, data: dict[str, Any]) -> dict[str, int]:
    """Steps of each kind that fill the time, from step times measured in turns."""
    if not path.exists():
        times: dict[str, list[float]] = {kind: [] for kind in MODELS}
        for turn in range(4):
            for kind in MODELS:
                trainer = make_trainer(kind, 1e-3, 0, TIMED_STEPS, data)
                began = time.process_time()
                trainer.train()
                if turn:
                    times[kind].append((time.process_time() - began) / TIMED_STEPS)
        path.write_text(json.dumps({kind: statistics.median(found) for kind, found in times.items()}) + "\n")
    return {kind: int(cpu_seconds / seconds) for kind, seconds in json.loads(path.read_text()).items()}


def train(kind: str, learning_rate: float, seed: int, steps: int, data: dict[str, Any]) -> dict[str, Any]:
    """Trains a model and measures its perplexities by word."""
    from hf_gpt.training.likelihood import total_nats

    trainer = make_trainer(kind, learning_rate, seed, steps, data)
    began = time.process_time()
    trainer.train()
    seconds = time.process_time() - began
    perplexities = {}
    for name, part in (("validation", "valid"), ("test", "test")):
        nats, _ = total_nats(trainer.model, data[part], ROWS)
        perplexities[f"{name}_perplexity"] = math.exp(nats / data[f"{part}_words"])
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    return {**perplexities, "steps": steps, "cpu_seconds": seconds, "parameters": parameters}


def table(ours: list[dict], our_rate: float, sweep: dict[float, list[dict]], best: float) -> str:
    """A Markdown table of all runs, and the ratio of test perplexities at GPT-2's best rate."""
    lines = [
        "| model | rate | seeds | test perplexity by word (least to most) | validation | size | steps | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    named = [("hf_gpt", our_rate, ours), *(("GPT-2", rate, runs) for rate, runs in sweep.items())]
    for name, rate, runs in named:
        test = [run["test_perplexity"] for run in runs]
        validation = statistics.mean(run["validation_perplexity"] for run in runs)
        lines.append(
            f"| {name} | {rate:g} | {len(runs)} | {statistics.mean(test):.1f} ({min(test):.1f} to {max(test):.1f}) "
            f"| {validation:.1f} | {runs[0]['parameters'] / 1e6:.2f} M | {runs[0]['steps']} "
            f"| {statistics.mean(run['cpu_seconds'] for run in runs):.0f} |"
        )
    ratios = [
        mine["test_perplexity"] / theirs["test_perplexity"] for mine, theirs in zip(ours, sweep[best], strict=True)
    ]
    lines.append(f"\nOurs / GPT-2 at its best rate, seed by seed: {', '.join(f'{ratio:.3f}' for ratio in ratios)}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
