"""
Which switches of the architecture are worth their compute: each variant trained on the same tokens of Tiny Shakespeare,
at its best of the given learning rates, interleaved over seeds.

    python -m eval.experiments.architecture --steps 250 --seeds 0 1
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_gpt.files.atomic_files import write_json


GPT2 = {
    "position_embedding_type": "learned",
    "norm_type": "layernorm",
    "hidden_act": "gelu_new",
    "use_qk_norm": False,
    "attention_bias": True,
    "mlp_bias": True,
}
LLAMA = {
    "hidden_act": "silu",
    "is_gated_act": True,
    "use_qk_norm": False,
    "output_projection_init": "normal",
    "tie_word_embeddings": False,
}

# What each variant changes of the default, and the optimizer it is trained with.
VARIANTS: dict[str, tuple[dict[str, Any], str]] = {
    "default": ({}, "muon"),
    "default, AdamW": ({}, "adamw"),
    "SwiGLU": ({"hidden_act": "silu", "is_gated_act": True}, "muon"),
    "GELU": ({"hidden_act": "gelu"}, "muon"),
    "no QK-norm": ({"use_qk_norm": False}, "muon"),
    "zero init": ({"output_projection_init": "zeros"}, "muon"),
    "untied head": ({"tie_word_embeddings": False}, "muon"),
    "LayerNorm": ({"norm_type": "layernorm"}, "muon"),
    "learned positions": ({"position_embedding_type": "learned"}, "muon"),
    "softcap 15": ({"final_logit_softcapping": 15.0}, "muon"),
    "wider init": ({"initializer_range": 0.06}, "muon"),
    "Llama": (LLAMA, "adamw"),
    "GPT-2": (GPT2, "adamw"),
}
SIZES = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "max_position_embeddings": 256}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=250, help="optimizer steps of 16 rows of 256 tokens")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds of weights and order")
    parser.add_argument("--learning_rates", type=float, nargs="+", default=[4e-3], help="for Muon; AdamW takes half")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(argv)
    data = _prepare()
    runs: dict[str, dict[float, list[dict[str, float]]]] = {name: {} for name in options.variants}
    for seed in options.seeds:
        for learning_rate in options.learning_rates:
            for name in options.variants:
                result = _train(name, learning_rate, seed, options.steps, *data)
                runs[name].setdefault(learning_rate, []).append(result)
                print(f"{name:20} lr {learning_rate:g} seed {seed}: {json.dumps(result)}", flush=True)
    rows = [_summarise(name, results) for name, results in runs.items()]
    print(_table(rows))
    if options.output:
        write_json(options.output, rows)
    return 0


def _prepare():
    from hf_gpt.data.corpus import count_bytes, read_corpus, split_corpus
    from hf_gpt.data.packed_dataset import tokenize_and_pack
    from hf_gpt.data.tokenizer import train_tokenizer

    train, validation = split_corpus(read_corpus(["tinyshakespeare"]), 0.1, 0)
    tokenizer = train_tokenizer(iter(train["text"]), 1024, model_max_length=256)
    rows = [tokenize_and_pack(texts, tokenizer, 256) for texts in (train, validation)]
    return *rows, count_bytes(validation), tokenizer


def _train(name, learning_rate, seed, steps, train_rows, validation_rows, num_bytes, tokenizer) -> dict[str, float]:
    from transformers import set_seed

    from hf_gpt import HfGptConfig, HfGptForCausalLM
    from hf_gpt.data.collators import PackedRowsCollator
    from hf_gpt.training.trainer import HfGptTrainer
    from hf_gpt.training.training_arguments import HfGptTrainingArguments

    changes, optimizer = VARIANTS[name]
    set_seed(seed)
    model = HfGptForCausalLM(HfGptConfig(vocab_size=len(tokenizer), **SIZES, **changes))
    with tempfile.TemporaryDirectory() as folder:
        arguments = HfGptTrainingArguments(
            output_dir=folder,
            max_steps=steps,
            learning_rate=learning_rate if optimizer == "muon" else learning_rate / 2,
            optimizer=optimizer,
            decay_steps=0.6,
            warmup_steps=0.05,
            seed=seed,
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
            logging_first_step=False,
        )
        trainer = HfGptTrainer(
            model=model,
            args=arguments,
            train_dataset=train_rows,
            eval_dataset=validation_rows,
            eval_num_bytes=num_bytes,
            data_collator=PackedRowsCollator(),
        )
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
        metrics = trainer.evaluate()
    return {
        "bits_per_byte": round(metrics["eval_bits_per_byte"], 4),
        "seconds": round(seconds, 1),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _summarise(name: str, results: dict[float, list[dict[str, float]]]) -> dict[str, Any]:
    best = min(results, key=lambda rate: statistics.mean(run["bits_per_byte"] for run in results[rate]))
    scores = [run["bits_per_byte"] for run in results[best]]
    return {
        "variant": name,
        "optimizer": VARIANTS[name][1],
        "learning_rate": best,
        "bits_per_byte": statistics.mean(scores),
        "spread": max(scores) - min(scores),
        "seconds": statistics.median(run["seconds"] for run in results[best]),
        "parameters": results[best][0]["parameters"],
    }


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "",
        "| variant | optimizer | parameters | bits per byte (spread) | time / default |",
        "|---|---|---|---|---|",
    ]
    default = next((row["seconds"] for row in rows if row["variant"] == "default"), rows[0]["seconds"])
    for row in sorted(rows, key=lambda row: row["bits_per_byte"]):
        lines.append(
            f"| {row['variant']} | {row['optimizer']} | {row['parameters'] / 1e6:.2f} M "
            f"| {row['bits_per_byte']:.3f} ({row['spread']:.3f}) | {row['seconds'] / default:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
