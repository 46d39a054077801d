"""Training steps: our defaults against transformers' models in its Trainer, as it comes and at its best settings.

The Trainer comes with sdpa attention and a fused AdamW; what is left to set is the precision and compilation. GPT-2
keeps the dropout of its own defaults.
"""

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from eval.benchmarks.speed.machine import default_device
from eval.benchmarks.speed.models import build
from eval.benchmarks.speed.timing import Contender, now, synchronize
from eval.experiments.common.adversarial import QUIET
from hf_gpt.data.collators import PackedRowsCollator
from hf_gpt.training.monitoring.cost_model import model_flops_per_token
from hf_gpt.training.monitoring.mfu import prefers_bfloat16
from hf_gpt.training.trainer import HfGptTrainer
from hf_gpt.training.training_arguments import HfGptTrainingArguments


def contenders(
    size: str,
    vocab_size: int,
    *,
    length: int,
    rows: int,
    steps: int,
    peers: Sequence[str],
    compile: bool,
    accumulation: int = 1,
) -> list[Contender]:
    """Ours first. A step has `accumulation` batches of `rows`, a round `steps` of them and one that does not count.

    With `compile` the contenders that are compiled take part: compilation takes a minute each.
    """
    # In the precision that the device is quickest in.
    bf16 = prefers_bfloat16(default_device().type)
    suffix, best = (", bf16", {"bf16": True}) if bf16 else ("", {})
    races: list[tuple[str, str, dict[str, Any]]] = [
        (f"hf-gpt: Muon{suffix}", "hf_gpt", best),
        ("GPT-2, Trainer's defaults", "GPT-2", {}),
        (f"Llama{suffix}", "Llama", best),
    ]
    if bf16:
        races.append(("GPT-2, bf16", "GPT-2", best))
    if compile:
        compiled = {**best, "torch_compile": True}
        races.insert(0, (f"hf-gpt: Muon{suffix}, compiled", "hf_gpt", compiled))
        races.append((f"GPT-2{suffix}, compiled", "GPT-2", compiled))
    shared = {"length": length, "rows": rows, "steps": steps, "accumulation": accumulation}
    # Of forward and backward pass of ours, by the formula of `cost_model`.
    flops = float(model_flops_per_token(build("hf_gpt", size, vocab_size, length), length))
    return [
        _contender(name, kind, settings, size, vocab_size, flops, **shared)
        for name, kind, settings in races
        if kind == "hf_gpt" or kind in peers
    ]


class StepTimer(TrainerCallback):
    """Seconds of every optimizer step of a trainer, without what is between them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._begin = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        synchronize()
        self._begin = now()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        synchronize()
        self.seconds.append(now() - self._begin)


class _RandomRows(Dataset):
    def __init__(self, vocab_size: int, length: int, count: int):
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(0, vocab_size, (count, length), generator=generator)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = self.ids[index].tolist()
        return {"input_ids": ids, "labels": ids, "position_ids": list(range(len(ids)))}


def _contender(name, kind, settings, size, vocab_size, flops, *, length, rows, steps, accumulation) -> Contender:
    model = build(kind, size, vocab_size, length)
    timer = StepTimer()
    shared = {
        "output_dir": tempfile.mkdtemp(),
        "max_steps": steps + 1,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulation,
        **QUIET,
        "use_cpu": not torch.accelerator.is_available(),
        **settings,
    }
    if kind == "hf_gpt":
        trainer_class, arguments = HfGptTrainer, HfGptTrainingArguments(**shared)
    else:
        trainer_class, arguments = Trainer, TrainingArguments(**shared)
    trainer = trainer_class(
        model=model,
        args=arguments,
        train_dataset=_RandomRows(vocab_size, length, rows * accumulation * (steps + 1)),
        data_collator=PackedRowsCollator(),
        callbacks=[timer],
    )
    trainer.remove_callback(PrinterCallback)

    def measure() -> list[float]:
        timer.seconds.clear()
        trainer.train()
        return timer.seconds[1:]

    work = rows * length * accumulation
    notes = {"parameters": model.num_parameters(), "unit": "tokens", "flops": flops * work}
    return Contender(name, measure, is_ours=kind == "hf_gpt", work=work, notes=notes)
