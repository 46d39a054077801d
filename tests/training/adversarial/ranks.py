"""What each process of `test_processes.py` does: python -m torch.distributed.run ... ranks.py FOLDER."""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from players import logged, make_discriminator, make_pairs, make_trainer
from safetensors.torch import save_file


WORLD = int(os.environ.get("WORLD_SIZE", 1))

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    trainer = make_trainer(
        folder / "run",
        discriminator=make_discriminator(classifier_dropout=0.0),
        texts=make_pairs(),
        per_device_train_batch_size=16 // WORLD,
        group_size=4,
        mle_warmup_steps=1,
        max_steps=5,
        replay_fraction=0.25,
        advantage_scale="none",
        save_strategy="steps",
        save_steps=5,
    )
    trainer.train()
    if trainer.is_world_process_zero():
        players = {"g": trainer.model, "d": trainer.discriminator}
        tensors = {
            f"{side}.{name}": parameter.detach().clone().contiguous()
            for side, model in players.items()
            for name, parameter in model.named_parameters()
        }
        save_file(tensors, folder / "tensors")
        values = {name: logged(trainer, name) for name in ("loss", "d_loss", "reward_mean", "d_auc_heldout")}
        values["wrapper"] = type(trainer.player.wrapped).__name__
        values["replay"] = len(trainer.rounds.replay)
        (folder / "values.json").write_text(json.dumps(values))
    if dist.is_initialized():
        # gloo aborts in a process that leaves while another still talks to it.
        dist.barrier()
        dist.destroy_process_group()
