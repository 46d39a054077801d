"""What each process of `test_processes.py` does: python -m torch.distributed.run ... ranks.py JOB FOLDER."""

import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback

from hf_gpt.data.collators import PackedRowsCollator
from hf_gpt.data.sources import Source
from hf_gpt.data.streaming import DocumentStream, RowStream
from hf_gpt.data.tokenizer import train_tokenizer
from hf_gpt.training.distributed.sharding import shard_model, whole
from hf_gpt.training.monitoring.callbacks import StopOnSignalCallback
from hf_gpt.training.trainer import HfGptTrainer
from hf_gpt.training.training_arguments import HfGptTrainingArguments


RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
ROWS, LENGTH = 4, 16


def make_model():
    config = AutoConfig.for_model(
        "hf_gpt",
        vocab_size=320,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        output_projection_init="normal",
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)


def make_batch():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 320, (ROWS, LENGTH), generator=generator)
    return {"input_ids": ids, "labels": ids, "position_ids": torch.arange(LENGTH).expand(ROWS, LENGTH)}


def own_rows(batch):
    rows = ROWS // WORLD
    return {name: tensor[RANK * rows : (RANK + 1) * rows] for name, tensor in batch.items()}


def save(folder, tensors, **values):
    """Rank 0 writes what the test reads."""
    if RANK == 0:
        save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, folder / "tensors")
        (folder / "values.json").write_text(json.dumps(values))


def make_trainer(folder, dataset, callbacks=(), trainer_class=HfGptTrainer, **overrides):
    settings = {
        "output_dir": str(folder / "run"),
        "per_device_train_batch_size": ROWS // WORLD,
        "optimizer": "adamw",
        "max_steps": 4,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    args = HfGptTrainingArguments(**{**settings, **overrides})
    return trainer_class(
        model=shard_model(make_model(), args),
        args=args,
        train_dataset=dataset,
        data_collator=PackedRowsCollator(),
        callbacks=list(callbacks),
    )


def rows_of_different_lengths():
    generator = torch.Generator().manual_seed(2)
    rows = []
    for number in range(24):
        ids = torch.randint(0, 320, (LENGTH,), generator=generator)
        # Each row has another number of targets, so that a mean of means would differ.
        labels = torch.where(torch.arange(LENGTH) > number % (LENGTH - 4), ids, -100)
        rows.append({"input_ids": ids, "labels": labels, "position_ids": torch.arange(LENGTH)})
    return rows


def finish(folder, trainer):
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    save(folder, dict(trainer.model.named_parameters()), losses=losses, wrapper=type(trainer.model_wrapped).__name__)


def job_ddp(folder):
    trainer = make_trainer(folder, rows_of_different_lengths(), ema_decay=0.9)
    trainer.train()
    finish(folder, trainer)


def job_resumed(folder):
    """A run that goes on within its second epoch; whether it sees what the straight run does."""
    same = {}
    for strategy in ("random", "group_by_length"):
        options = {"max_steps": 9, "save_strategy": "steps", "save_steps": 8, "train_sampling_strategy": strategy}
        straight, resumed = (make_trainer(folder / strategy, rows_of_different_lengths(), **options) for _ in range(2))
        straight.train()
        resumed.train(resume_from_checkpoint=str(folder / strategy / "run" / "checkpoint-8"))
        pairs = zip(straight.model.parameters(), resumed.model.parameters(), strict=True)
        same[strategy] = all(torch.equal(one, other) for one, other in pairs)
    save(folder, {"nothing": torch.zeros(1)}, **same)


def job_smoothed(folder):
    """The library knows by the name of a model whether to shift labels, and weights in shards have another class."""
    trainer = make_trainer(folder, rows_of_different_lengths(), label_smoothing_factor=0.1, fsdp_size=WORLD)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    save(folder, whole(dict(trainer.model.named_parameters()), keep=True), losses=losses)


def job_evaluated(folder):
    """An evaluation before training leaves weights gathered, which are not those to train and to average."""
    trainer = make_trainer(folder, rows_of_different_lengths(), ema_decay=0.9, fsdp_size=WORLD)
    trainer.evaluate(trainer.train_dataset)
    trainer.train()
    average = {f"average.{name}": weight for name, weight in trainer._average.average.weights.items()}
    weights = whole({**dict(trainer.model.named_parameters()), **average}, keep=True)
    save(folder, weights, wrapper=type(trainer.model_wrapped).__name__)


def job_stream(folder):
    texts = [f"Text {number}, of {'many ' * (number % 9)}words." for number in range(60)]

    def read(position):
        for number in range((position or [0])[0], len(texts)):
            yield texts[number], [number + 1]

    stream = RowStream(DocumentStream([Source("texts", read, None)]), train_tokenizer(texts, 300), LENGTH)
    trainer = make_trainer(folder, stream, save_strategy="steps", save_steps=2)
    trainer.train()
    finish(folder, trainer)
    positions = [json.loads(path.read_text()) for path in sorted((folder / "run").glob("*/stream_position.json"))]
    if RANK == 0:
        (folder / "positions.json").write_text(json.dumps(positions))


def job_not_finite(folder):
    """A loss of the last process is no number and has a gradient of zero: which steps change a weight, here."""

    class Poisoned(HfGptTrainer):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            is_bad = self.state.global_step == 1 and RANK == WORLD - 1
            return 0.0 * loss + float("nan") if is_bad else loss

    class Copies(TrainerCallback):
        found = []

        def on_step_end(self, args, state, control, model=None, **kwargs):
            self.found.append([parameter.detach().clone() for parameter in model.parameters()])

    options = {"nan_action": "skip", "weight_decay": 0.5, "ema_decay": 0.9}
    trainer = make_trainer(folder, rows_of_different_lengths(), [Copies()], trainer_class=Poisoned, **options)
    trainer.train()
    pairs = zip(Copies.found, Copies.found[1:], strict=False)
    moved = [not all(map(torch.equal, one, other)) for one, other in pairs]
    save(folder, {"nothing": torch.zeros(1)}, moved=moved, updates=trainer._average.average.num_updates)


def job_signal(folder):
    class Interrupt(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            # To the last process alone: the others hear of it from there.
            if state.global_step == 1 and RANK == WORLD - 1:
                os.kill(os.getpid(), signal.SIGTERM)

    trainer = make_trainer(folder, rows_of_different_lengths(), [StopOnSignalCallback(), Interrupt()])
    trainer.train()
    checkpoints = [path.name for path in (folder / "run").glob("checkpoint-*")]
    save(folder, {}, step=trainer.state.global_step, checkpoints=checkpoints)


def gradients(model):
    return {
        name: parameter.grad.full_tensor() if hasattr(parameter.grad, "full_tensor") else parameter.grad
        for name, parameter in model.named_parameters()
    }


def job_one(folder):
    model = make_model()
    loss = model(**make_batch(), use_cache=False).loss
    loss.backward()
    save(folder, gradients(model), loss=loss.item())


def job_fsdp2(folder):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard
    from torch.distributed.tensor import DTensor, Shard

    dist.init_process_group("gloo")
    mesh, model = init_device_mesh("cpu", (WORLD,)), make_model()
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert isinstance(model, FSDPModule) and all(isinstance(layer, FSDPModule) for layer in model.model.layers)
    for parameter in model.parameters():
        assert isinstance(parameter, DTensor) and parameter.placements == (Shard(0),)
        assert parameter.to_local().numel() < parameter.numel()
    loss = model(**own_rows(make_batch()), use_cache=False).loss
    loss.backward()
    loss = loss.detach()
    dist.all_reduce(loss)
    save(folder, gradients(model), loss=loss.item() / WORLD)


def job_muon(folder):
    """Whether steps on shards are those on whole matrices, bit for bit, given the same gradients."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    from hf_gpt.training.optim.muon_adamw import MuonAdamW

    dist.init_process_group("gloo")
    mesh, same = init_device_mesh("cpu", (WORLD,)), {}
    options = {"lr": 0.1, "momentum": 0.95, "weight_decay": 0.1}
    for name, placement in (("rows", Shard(0)), ("columns", Shard(1)), ("copies", Replicate())):
        generator = torch.Generator().manual_seed(3)
        weights = [torch.randn(6, 10, generator=generator), torch.randn(9, 5, generator=generator)]
        whole = [torch.nn.Parameter(weight.clone()) for weight in weights]
        parts = [torch.nn.Parameter(distribute_tensor(weight.clone(), mesh, [placement])) for weight in weights]
        optimizers = [MuonAdamW([{"params": parameters, **options}], []) for parameters in (whole, parts)]
        for _ in range(3):
            for first, second in zip(whole, parts, strict=True):
                gradient = torch.randn(first.shape, generator=generator)
                first.grad, second.grad = gradient, distribute_tensor(gradient, mesh, [placement])
            for optimizer in optimizers:
                optimizer.step()
        same[name] = all(torch.equal(a, b.full_tensor()) for a, b in zip(whole, parts, strict=True))
        assert not torch.equal(whole[0], weights[0])
    save(folder, {"nothing": torch.zeros(1)}, **same)


def job_tp(folder):
    dist.init_process_group("gloo")
    if RANK == 0:
        make_model().save_pretrained(folder / "model")
    dist.barrier()
    model = AutoModelForCausalLM.from_pretrained(folder / "model", tp_plan="auto").train()
    whole = dict(make_model().named_parameters())
    loss = model(**make_batch(), use_cache=False).loss
    loss.backward()
    found, sharded = {}, []
    for name, parameter in model.named_parameters():
        gradient = gradients(model)[name]
        if gradient.shape != whole[name].shape:
            (axis,) = (i for i in range(2) if gradient.shape[i] != whole[name].shape[i])
            parts = [torch.empty_like(gradient) for _ in range(WORLD)]
            dist.all_gather(parts, gradient.contiguous())
            gradient = torch.cat(parts, axis)
        local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
        sharded += [name] if local.numel() < whole[name].numel() else []
        found[name] = gradient
    save(folder, found, loss=loss.item(), sharded=sharded)


if __name__ == "__main__":
    torch.set_num_threads(1)
    globals()[f"job_{sys.argv[1]}"](Path(sys.argv[2]))
    if dist.is_initialized():
        # gloo aborts in a process that leaves while another still talks to it.
        dist.barrier()
        dist.destroy_process_group()
