"""Adversarial steps: a rollout, its judgement and the updates of both sides, ours against TRL's GRPOTrainer."""

import functools
import importlib.util
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from transformers import PrinterCallback

from eval.benchmarks.speed.machine import default_device
from eval.benchmarks.speed.models import SIZES, build
from eval.benchmarks.speed.timing import Contender
from eval.benchmarks.speed.train import StepTimer
from eval.experiments.common.adversarial import QUIET
from hf_gpt import HfGptConfig, HfGptForSequenceClassification
from hf_gpt.adversarial.config import AdversarialConfig
from hf_gpt.adversarial.trainer import AdversarialTrainer
from hf_gpt.data.tokenizer import train_tokenizer


PROMPT = "to be or"
GROUP_SIZE = 8


def contenders(size: str, vocab_size: int, *, rows: int, new_tokens: int, steps: int) -> list[Contender]:
    """Ours and, where TRL is installed, GRPOTrainer with the same models, batch, group and length.

    In both the discriminator is a transformer as large as the generator, trained once a step on the step's texts; TRL
    has no such thing of its own, so `trl_grpo` gives it one. Monitors, looks at held-out texts and the anchor, which
    TRL lacks, are off. `rows` are completions in a step, a multiple of the group of 8; two steps more do not count.
    """
    races: dict[str, Callable[..., Any]] = {"hf-gpt: AdversarialTrainer": _ours}
    if importlib.util.find_spec("trl"):
        # It comes with gradient checkpointing, which trades time for memory that is not short here.
        races["TRL: GRPOTrainer"] = _trl
        races["TRL: GRPOTrainer, no gradient checkpointing"] = functools.partial(_trl, gradient_checkpointing=False)
    return [_contender(name, make, size, vocab_size, rows, new_tokens, steps) for name, make in races.items()]


def _contender(name, make, size, vocab_size, rows, new_tokens, steps) -> Contender:
    tokenizer = train_tokenizer([PROMPT], 270)
    generator = build("hf_gpt", size, vocab_size, 1024)
    ids = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = HfGptConfig(vocab_size=vocab_size, num_labels=1, max_position_embeddings=1024, **SIZES[size], **ids)
    discriminator = HfGptForSequenceClassification(config).to(default_device())
    timer = StepTimer()
    shared = {
        "max_steps": steps + 2,
        "learning_rate": 1e-5,
        "per_device_train_batch_size": rows,
        **QUIET,
        "use_cpu": not torch.accelerator.is_available(),
        "bf16": False,
    }
    parts = {"train_dataset": _rows(rows), "processing_class": tokenizer, "callbacks": [timer]}

    def measure() -> list[float]:
        timer.seconds.clear()
        settings = {**shared, "output_dir": tempfile.mkdtemp()}
        trainer = make(generator, discriminator, new_tokens, settings, parts)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return timer.seconds[2:]

    notes = {"parameters": generator.num_parameters(), "unit": "tokens"}
    return Contender(name, measure, is_ours=make is _ours, work=rows * new_tokens, notes=notes)


def _ours(generator, discriminator, new_tokens: int, settings: dict[str, Any], parts: dict[str, Any]):
    args = AdversarialConfig(
        **settings,
        discriminator_warmup_steps=0,
        discriminator_steps=1,
        discriminator_texts="shared",
        discriminator_loss="bradley_terry",
        replay_fraction=0.0,
        estimator="grpo",
        advantage_scale="std",
        group_size=GROUP_SIZE,
        max_new_tokens=new_tokens,
        lambda_mle=0.0,
        gate_auc=0.0,
        monitor_steps=1000,
        heldout_steps=1000,
        num_eval_samples=0,
    )
    return AdversarialTrainer(model=generator, discriminator=discriminator, args=args, **parts)


def _trl(generator, discriminator, new_tokens: int, settings: dict[str, Any], parts: dict[str, Any], **more: Any):
    import datasets
    import trl

    from training.trl_grpo import CoTrainedDiscriminator

    texts, tokenizer = parts["train_dataset"], parts["processing_class"]
    real = {row["prompt"]: row["completion"] for row in texts}
    co_trained = CoTrainedDiscriminator(discriminator, tokenizer, real, 1e-5, max_completion_length=new_tokens)
    shape = {"num_generations": GROUP_SIZE, "max_completion_length": new_tokens}
    args = trl.GRPOConfig(**settings, **shape, beta=0.0, **more)
    parts = {**parts, "train_dataset": datasets.Dataset.from_list(texts)}
    parts["callbacks"] = [co_trained.callback, *parts["callbacks"]]
    return trl.GRPOTrainer(generator, reward_funcs=co_trained, args=args, **parts)


def _rows(rows: int) -> list[dict[str, str]]:
    return [{"prompt": f"{PROMPT} {n}", "completion": " not to be, that is the question" * 4} for n in range(4 * rows)]
