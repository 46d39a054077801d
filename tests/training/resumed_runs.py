"""Runs of options that are drawn at random, and what must be the same of a straight and a resumed one."""

import random
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, EarlyStoppingCallback

from hf_gpt.data.collators import PaddingCollator
from hf_gpt.data.sources import Source
from hf_gpt.data.streaming import DocumentStream, WindowStream
from hf_gpt.training.run import make_callbacks
from hf_gpt.training.trainer import HfGptTrainer
from hf_gpt.training.training_arguments import HfGptTrainingArguments


VOCAB, LENGTH = 24, 8
# Of an entry of the log: what depends on the clock, and sums over one call of `train`.
CLOCK = ("tokens_per_second", "eta_seconds", "mfu", "runtime", "per_second", "train_loss", "total_flos")


class Numbers(WindowStream):
    """Rows of a stream whose documents are lists of token ids."""

    def encode(self, window):
        return [{"input_ids": ids, "labels": ids, "attention_mask": [1] * len(ids)} for ids in window]


def make_rows(count, seed=0):
    """Rows of different lengths and numbers of targets."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for number in range(count):
        ids = torch.randint(3, VOCAB, (2 + number % (LENGTH - 1),), generator=generator).tolist()
        rows.append({"input_ids": ids, "labels": ids, "attention_mask": [1] * len(ids)})
    return rows


def make_stream(rows, seed):
    def read(position):
        for number in range((position or [0])[0], len(rows)):
            yield rows[number]["input_ids"], [number + 1]

    return Numbers(DocumentStream([Source("rows", read, None)], window_size=5), shuffle_seed=seed)


def make_model(dropout=0.0, adapter=False):
    config = AutoConfig.for_model(
        "hf_gpt",
        vocab_size=VOCAB,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        hidden_dropout=dropout,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    if adapter:
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(1)
        options = LoraConfig(r=2, target_modules="all-linear", lora_dropout=dropout, task_type="CAUSAL_LM")
        model = get_peft_model(model, options)
    return model


def sample(seed):
    """Options of a run, and which of its checkpoints to resume from, as a share of them."""
    chance = random.Random(seed)
    pick = chance.choice
    is_stream = chance.random() < 0.2
    options = {
        **pick(
            [
                {"optimizer": "muon"},
                {"optimizer": "adamw"},
                {"optimizer": "adamw", "optim": "sgd", "optim_args": "momentum=0.9"},
                {"optimizer": "adamw", "optim": "adafactor"},
            ]
        ),
        "lr_scheduler_type": pick(
            ["warmup_stable_decay", "linear", "cosine", "constant_with_warmup", "reduce_lr_on_plateau"]
        ),
        "learning_rate": pick([1e-2, 1e-3, 0.0]),
        "warmup_steps": pick([0, 2, 0.3]),
        "weight_decay": pick([0.0, 0.1]),
        "max_grad_norm": pick([0.0, 1.0]),
        "gradient_accumulation_steps": pick([1, 2, 3]),
        "per_device_train_batch_size": pick([2, 3]),
        "label_smoothing_factor": pick([0.0, 0.1]),
        "ema_decay": pick([None, 0.9]),
        "seed": chance.randrange(100),
        "logging_strategy": pick(["steps", "steps", "epoch"]),
        "logging_steps": pick([1, 2, 3]),
        "save_strategy": pick(["steps", "steps", "epoch"]),
        "save_steps": pick([1, 2]),
        "eval_strategy": pick(["no", "steps", "steps", "epoch"]),
        "eval_steps": pick([1, 2, 3]),
        "eval_on_start": pick([False, True]),
        "train_sampling_strategy": pick(["random", "random", "group_by_length", "sequential"]),
        "include_num_input_tokens_seen": pick(["no", "all"]),
    }
    options |= pick([{"max_steps": chance.randrange(3, 10)}, {"num_train_epochs": pick([1, 1.5, 2, 3])}])
    if is_stream:
        options["max_steps"], options["train_sampling_strategy"] = chance.randrange(3, 10), "random"
    if options["eval_strategy"] == "no":
        options["eval_on_start"] = False
        if options["lr_scheduler_type"] == "reduce_lr_on_plateau":
            options["lr_scheduler_type"] = "linear"
    else:
        options["early_stopping_patience"] = pick([None, 1, 2])
        if options["eval_strategy"] == options["save_strategy"] and chance.random() < 0.5:
            options |= {"load_best_model_at_end": True, "save_steps": options["eval_steps"]}
    return {
        "options": options,
        "rows": chance.randrange(12, 20),
        "stream": is_stream,
        "dropout": pick([0.0, 0.2]),
        "adapter": chance.random() < 0.2,
        "poisoned_call": chance.randrange(1, 12) if chance.random() < 0.3 else None,
        "share": chance.random(),
    }


class Sampled(HfGptTrainer):
    """Remembers what each step saw; the loss of one batch, told by its content, is not finite."""

    poison = None

    def training_step(self, model, inputs, *args, **kwargs):
        self.seen.setdefault(self.state.global_step, []).append(inputs["input_ids"].tolist())
        return super().training_step(model, inputs, *args, **kwargs)

    def compute_loss(self, model, inputs, *args, **kwargs):
        ids = inputs["input_ids"].tolist()
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        if not model.training or ids != self.poison:
            return loss
        return 0.0 * loss + float("nan")


def make_trainer(folder: Path, samples, poison=None, **changes):
    options = {**samples["options"], **changes}
    rows = make_rows(samples["rows"])
    args = HfGptTrainingArguments(
        output_dir=str(folder),
        per_device_eval_batch_size=4,
        save_total_limit=None,
        nan_action="skip",
        disable_tqdm=True,
        report_to="none",
        **options,
    )
    trainer = Sampled(
        model=make_model(samples["dropout"], samples["adapter"]),
        args=args,
        train_dataset=make_stream(rows, 3) if samples["stream"] else rows,
        eval_dataset=make_rows(5, seed=1),
        data_collator=PaddingCollator(0, pad_to_multiple_of=1),
        callbacks=make_callbacks(args)[1:],
    )
    trainer.seen, trainer.poison = {}, poison
    return trainer


def flat(value, name=""):
    """Tensors and numbers of nested containers, by their path."""
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in flat(part, f"{name}.{key}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for key, part in enumerate(value) for k, v in flat(part, f"{name}.{key}").items()}
    return {name: value}


def history(trainer):
    """The log without what depends on the clock, and without the summary of a call."""
    return [
        {name: value for name, value in entry.items() if not any(part in name for part in CLOCK)}
        for entry in trainer.state.log_history
        if "train_runtime" not in entry
    ]


def result(trainer):
    """All that a run leaves."""
    average, state = trainer._average, trainer.state
    stops = [each for each in trainer.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback)]
    return flat(
        {
            "weights": dict(trainer.model.state_dict()),
            "optimizer": trainer.optimizer.state_dict(),
            "rate": [group["lr"] for group in trainer.optimizer.param_groups],
            "last_epoch": trainer.lr_scheduler.last_epoch,
            "average": {} if average is None else dict(average.average.weights),
            "updates": None if average is None else average.average.num_updates,
            "history": history(trainer),
            "step": state.global_step,
            "epoch": state.epoch,
            "max_steps": state.max_steps,
            "best": [state.best_metric, state.best_global_step],
            "best_folder": Path(state.best_model_checkpoint or "none").name,
            "tokens": state.num_input_tokens_seen,
            "counter": [each.early_stopping_patience_counter for each in stops],
            "skipped": trainer._recorder.skipped,
            "random": torch.random.get_rng_state(),
        }
    )


def same_value(one, other):
    if torch.is_tensor(one) or torch.is_tensor(other):
        return torch.is_tensor(one) and torch.is_tensor(other) and torch.equal(one, other)
    return one == other or (one != one and other != other)


def difference(found, expected):
    """Names of what is not the same."""
    missing = sorted(found.keys() ^ expected.keys())
    return missing + [name for name in found.keys() & expected.keys() if not same_value(found[name], expected[name])]


def check(seed, folder: Path):
    """Runs what `seed` draws, straight and resumed; returns what differs, in words."""
    samples = sample(seed)
    poison = None
    if samples["poisoned_call"] is not None:
        probe = make_trainer(folder / "probe", samples, save_strategy="no", load_best_model_at_end=False)
        probe.train()
        calls = [ids for step in probe.seen.values() for ids in step]
        poison = calls[samples["poisoned_call"] % len(calls)]
    straight = make_trainer(folder / "straight", samples, poison)
    straight.train()
    steps = sorted(int(path.name.split("-")[1]) for path in (folder / "straight").glob("checkpoint-*"))
    if not steps:
        return []
    at = steps[int(samples["share"] * len(steps))]
    expected = result(straight)
    resumed = make_trainer(folder / "resumed", samples, poison)
    resumed.train(resume_from_checkpoint=str(folder / "straight" / f"checkpoint-{at}"))
    found = difference(result(resumed), expected)
    seen = {step: batches for step, batches in straight.seen.items() if step >= at}
    if resumed.seen != seen:
        found.append("samples")
    return [f"resumed at {at}: {name}" for name in found]
