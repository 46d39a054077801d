"""What each process of `test_processes.py` does: python -m torch.distributed.run ... ranks.py FOLDER JOB."""

import json
import os
import shutil
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from players import logged, make_discriminator, make_generator, make_pairs, make_trainer
from safetensors.torch import save_file

from hf_gpt.adversarial.config import AdversarialConfig
from hf_gpt.adversarial.discriminator.shared_trunk import shared_discriminator
from hf_gpt.training.distributed.sharding import shard_model, whole


WORLD = int(os.environ.get("WORLD_SIZE", 1))
COMMON = {
    "per_device_train_batch_size": 16 // WORLD,
    "group_size": 4,
    "mle_warmup_steps": 1,
    "max_steps": 5,
    "replay_fraction": 0.25,
    "advantage_scale": "none",
    "save_strategy": "steps",
    "save_steps": 5,
}


def frozen(generator):
    torch.manual_seed(1)
    return shared_discriminator(generator, "frozen")


def detached(generator):
    torch.manual_seed(1)
    return shared_discriminator(generator, "detached")


def plain(generator):
    return make_discriminator(classifier_dropout=0.0)


def transformer(generator):
    return make_discriminator("llama")


def mediator(generator):
    return make_generator(seed=1)


BY_TOKEN = {"normalization": "token"}
FSDP2 = {"fsdp_size": WORLD, "monitor_steps": 1, "save_steps": 2, "save_total_limit": 9}
JOBS = {
    "ddp": (plain, {}),
    "detached": (detached, {}),
    "prefix": (transformer, {**BY_TOKEN, "reward_level": "prefix", "gradient_accumulation_steps": 2}),
    "mediator": (mediator, {**BY_TOKEN, "discriminator_loss": "mediator", "estimator": "exact_token", "gamma": 0.0}),
    "density": (
        mediator,
        {
            **BY_TOKEN,
            "discriminator_loss": "density",
            "estimator": "exact_token",
            "token_divergence": "jsd",
            "anchor_soft_targets": 0.5,
        },
    ),
    "fsdp2_cnn": (plain, FSDP2),
    "fsdp2_transformer": (transformer, {**FSDP2, "gradient_accumulation_steps": 2}),
    "fsdp2_frozen": (frozen, FSDP2),
    "fsdp2_bf16": (transformer, {**FSDP2, "bf16": True}),
    "gumbel": (transformer, {"estimator": "gumbel", "lambda_mle": 0.0}),
}


def play(folder, make, settings, checkpoint=None):
    generator = make_generator(num_hidden_layers=2)
    discriminator = make(generator)
    if "fsdp_size" in settings:
        generator = shard_model(generator, AdversarialConfig(output_dir=str(folder), **settings))
    trainer = make_trainer(folder, generator, discriminator, texts=make_pairs(), **settings)
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


def tensors_of(trainer):
    players = {"g": trainer.model, "d": trainer.discriminator}
    return {
        f"{side}.{name}": whole(parameter.detach(), keep=True).clone().contiguous()
        for side, model in players.items()
        for name, parameter in model.named_parameters()
    }


def is_sharded(model):
    """Whether FSDP2 holds every parameter in shards, and this process about its share of them."""
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

    parameters = list(model.parameters())
    if not isinstance(model, FSDPModule) or not all(isinstance(p, DTensor) for p in parameters):
        return False
    return sum(p.to_local().numel() for p in parameters) < 0.6 * sum(p.numel() for p in parameters)


def main(folder, job):
    make, settings = JOBS[job]
    settings = {**COMMON, **settings}
    trainer = play(folder / "run", make, settings)
    tensors = tensors_of(trainer)
    values = {name: logged(trainer, name) for name in ("loss", "d_loss", "reward_mean", "d_auc_heldout")}
    values["wrapper"] = type(trainer.discriminator_trainer.wrapped).__name__
    values["sharded"] = [is_sharded(trainer.model), is_sharded(trainer.discriminator_trainer.wrapped)]
    values["dtypes"] = sorted({str(tensor.dtype) for tensor in tensors.values()})
    values["replay"] = len(trainer.loop.replay)
    if job.startswith("fsdp2"):
        if trainer.is_world_process_zero():
            shutil.copytree(folder / "run" / "checkpoint-2", folder / "resumed" / "checkpoint-2")
        if WORLD > 1:
            dist.barrier()
        resumed = play(folder / "resumed", make, settings, str(folder / "resumed" / "checkpoint-2"))
        again = tensors_of(resumed)
        values["resumed"] = max((again[name] - tensor).abs().max().item() for name, tensor in tensors.items())
    if WORLD > 1:
        parts = [torch.zeros(1) for _ in range(WORLD)]
        dist.all_gather(parts, sum(tensor.double().sum() for tensor in tensors.values()).float().reshape(1))
        values["same"] = all(torch.equal(part, parts[0]) for part in parts)
    if trainer.is_world_process_zero():
        save_file(tensors, folder / "tensors")
        (folder / "values.json").write_text(json.dumps(values))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2])
    if dist.is_initialized():
        # gloo aborts in a process that leaves while another still talks to it.
        dist.barrier()
        dist.destroy_process_group()
