"""
Time to a given loss: Tiny Shakespeare by characters, nanoGPT's published setting for a CPU in GPT-2's form, and ours.

The reference is GPT2LMHeadModel as nanoGPT's README trains it on a laptop: 4 layers, 128 wide, 64 characters of
context, batches of 12, 2,000 steps of AdamW (1e-3 to 1e-4, cosine), no dropout, float32, eager. Ours is the default
architecture at the same width and context, with as many layers as asked for, trained by `HfGptTrainer` with its default
optimizer and schedule for several numbers of steps, each a run of its own from nothing. The answer is the shortest of
them whose loss on the whole validation part is at most the reference's. Both sides read random windows of the same nine
tenths. Time is wall-clock from making the model to the last step, without evaluation; CPU-seconds stand beside it for
machines that do other work as well. Reference and ours take turns.

    python -m eval.experiments.pretraining.time_to_loss --seeds 0 1 2 --output_dir runs/time_to_loss

Source of the setting: https://github.com/karpathy/nanoGPT, README, "I only have a macbook". Runs that are done are not
repeated.
"""

import functools
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import Any

import torch
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from eval.experiments.common.adversarial import QUIET
from eval.experiments.common.command import make_parser, start
from eval.experiments.common.reports import markdown_table, write_page
from eval.experiments.common.results import kept
from hf_gpt import HfGptConfig, HfGptForCausalLM
from hf_gpt.data.corpus import resolve_file
from hf_gpt.training.trainer import HfGptTrainer
from hf_gpt.training.training_arguments import HfGptTrainingArguments


CONTEXT, WIDTH, LAYERS, HEADS = 64, 128, 4, 4
REFERENCE_STEPS, REFERENCE_ROWS, REFERENCE_RATE = 2000, 12, 1e-3
REFERENCE = "GPT-2, nanoGPT's setting"


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__, "time_to_loss", "of weights and windows")
    parser.add_argument("--steps", type=int, nargs="+", default=[260, 300], help="of ours")
    parser.add_argument("--layers", type=int, default=2, help="of ours")
    parser.add_argument("--rows", type=int, default=12, help="windows in a batch of ours")
    parser.add_argument("--learning_rate", type=float, default=1e-2, help="of ours")
    parser.add_argument("--muon_momentum", type=float, default=0.85, help="of ours")
    parser.add_argument("--reference_steps", type=int, default=REFERENCE_STEPS, help="of GPT-2")
    options = parser.parse_args(argv)
    text, validation, vocab_size = read_characters()
    settings = {"learning_rate": options.learning_rate, "muon_momentum": options.muon_momentum}
    ours_name = f"ours-{options.layers}x{options.rows}-{options.learning_rate:g}-{options.muon_momentum:g}"
    rows = []
    for seed in options.seeds:
        steps = options.reference_steps
        runs = {f"gpt2-{steps}": functools.partial(reference, vocab_size, text, steps, seed)}
        for steps in options.steps:
            sizes = (vocab_size, text, steps, options.layers, options.rows, seed)
            runs[f"{ours_name}-{steps}"] = functools.partial(ours, *sizes, **settings)
        for name, run in runs.items():
            path = options.output_dir / f"{name}-{seed}.json"
            found = kept(path, lambda run=run: measured(run, validation))
            rows.append({"name": name, "seed": seed, "steps": int(name.rpartition("-")[2]), **found})
            print(json.dumps(rows[-1]), flush=True)
    print(write_page(options.output_dir, "results", table(rows)))
    return 0


def measured(run: Callable[[], PreTrainedModel], validation: torch.Tensor) -> dict[str, Any]:
    """Held-out loss of a model that is trained, and what its training took."""
    began, cpu_began = time.perf_counter(), time.process_time()
    model = run()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    found = {"loss": loss_of(model, validation), "seconds": seconds, "cpu_seconds": cpu_seconds}
    return {**found, "parameters": model.num_parameters(), "threads": torch.get_num_threads()}


def read_characters() -> tuple[torch.Tensor, torch.Tensor, int]:
    """Tiny Shakespeare as int64 ids of characters, split as nanoGPT does, and how many characters there are.

    Nine tenths and the last tenth, for likelihoods that compare with published ones: the last tenth is other plays.
    """
    text = resolve_file("tinyshakespeare").read_text(encoding="utf-8")
    numbers = {character: number for number, character in enumerate(sorted(set(text)))}
    ids = torch.tensor([numbers[character] for character in text])
    cut = int(0.9 * len(ids))
    return ids[:cut], ids[cut:], len(numbers)


def windows(ids: torch.Tensor, rows: int, generator: torch.Generator) -> torch.Tensor:
    """(rows, CONTEXT + 1) random stretches of a text."""
    starts = torch.randint(len(ids) - CONTEXT, (rows,), generator=generator)
    return ids[starts[:, None] + torch.arange(CONTEXT + 1)]


def reference(vocab_size: int, text: torch.Tensor, steps: int, seed: int) -> PreTrainedModel:
    """GPT-2, trained as nanoGPT does it."""
    torch.manual_seed(seed)
    ends = dict.fromkeys(("bos_token_id", "eos_token_id"))
    config = GPT2Config(vocab_size=vocab_size, n_positions=CONTEXT, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, **ends)
    config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = 0.0
    model = GPT2LMHeadModel(config).train()
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=REFERENCE_RATE, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = reference_rate(step, steps)
        batch = windows(text, REFERENCE_ROWS, generator)
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model


def reference_rate(step: int, steps: int, warmup: int = 100) -> float:
    """nanoGPT's learning rate: linear warm-up, cosine down to a tenth."""
    if step < warmup:
        return REFERENCE_RATE * (step + 1) / (warmup + 1)
    share = (step - warmup) / max(1, steps - warmup)
    return REFERENCE_RATE * (0.1 + 0.45 * (1 + math.cos(math.pi * share)))


class _Windows(torch.utils.data.IterableDataset):
    """Random windows without end, as rows for a Trainer."""

    def __init__(self, text: torch.Tensor, rows: int, seed: int):
        self.text, self.rows, self.seed = text, rows, seed

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            for row in windows(self.text, self.rows, generator):
                yield {"input_ids": row}


def ours(
    vocab_size: int, text: torch.Tensor, steps: int, layers: int, rows: int, seed: int, **settings: Any
) -> PreTrainedModel:
    """Our default model, trained by `HfGptTrainer` with its defaults but for `settings`."""
    arguments = HfGptTrainingArguments(
        output_dir=tempfile.mkdtemp(prefix="time-to-loss-"),
        max_steps=steps,
        per_device_train_batch_size=rows,
        decay_steps=0.7,
        use_cpu=True,
        seed=seed,
        **QUIET,
        **settings,
    )
    torch.manual_seed(seed)
    config = HfGptConfig(
        vocab_size=vocab_size,
        hidden_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    model, data = HfGptForCausalLM(config), _Windows(text, rows, seed)
    HfGptTrainer(model=model, args=arguments, train_dataset=data, data_collator=_collate).train()
    return model


def _collate(rows: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    whole = torch.stack([row["input_ids"] for row in rows])
    return {"input_ids": whole[:, :-1].contiguous(), "shift_labels": whole[:, 1:].contiguous()}


@torch.no_grad()
def loss_of(model: PreTrainedModel, ids: torch.Tensor, rows: int = 64) -> float:
    """Nats a character over a whole text, in windows that do not overlap."""
    model.eval()
    count = (len(ids) - 1) // CONTEXT
    inputs, targets = (ids[shift : shift + count * CONTEXT].view(count, CONTEXT) for shift in (0, 1))
    total = 0.0
    for part, wanted in zip(inputs.split(rows), targets.split(rows), strict=True):
        logits = model(input_ids=part).logits.float()
        total += F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum").item()
    return total / (count * CONTEXT)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A row for each number of steps, means over the seeds, and the shortest run that is as good as the reference."""
    lines, answer = [], None
    base = {row["seed"]: row for row in rows if row["name"].startswith("gpt2")}
    for name in dict.fromkeys(row["name"] for row in rows):
        some = [row for row in rows if row["name"] == name]
        share, cpu_share = (
            fmean(row[clock] / base[row["seed"]][clock] for row in some) for clock in ("seconds", "cpu_seconds")
        )
        losses, is_reference = [row["loss"] for row in some], name.startswith("gpt2")
        lines.append(
            {
                "model": REFERENCE if is_reference else "ours",
                "steps": some[0]["steps"],
                "validation loss, nats a character": f"{fmean(losses):.3f}",
                "seeds": f"{min(losses):.3f} to {max(losses):.3f}",
                "seconds": f"{fmean(row['seconds'] for row in some):.1f}",
                "CPU s": f"{fmean(row['cpu_seconds'] for row in some):.1f}",
                "of the reference's seconds": f"{share:.3f}",
                "of its CPU s": f"{cpu_share:.3f}",
            }
        )
        if answer is None and not is_reference and all(row["loss"] <= base[row["seed"]]["loss"] for row in some):
            answer = (
                f"{some[0]['steps']} steps reach the reference's loss in every seed, in {share:.3f} of its time and "
                f"{cpu_share:.3f} of its computing."
            )
    return "\n".join([markdown_table(lines), "", answer or "No run of ours was as good in every seed."])


if __name__ == "__main__":
    start(main)
