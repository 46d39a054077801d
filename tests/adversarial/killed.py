"""A run for `test_resume.py`: killed.py FOLDER straight|kill|resume."""

import os
import signal
import sys
from pathlib import Path

import torch
from players import make_trainer
from safetensors.torch import save_file
from transformers import TrainerCallback


class Kill(TrainerCallback):
    """Ends the process where no handler of it can do anything, in the middle of a step after a checkpoint."""

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, mode = Path(sys.argv[1]), sys.argv[2]
    callbacks = [Kill()] if mode == "kill" else []
    trainer = make_trainer(folder, max_steps=5, save_strategy="steps", save_steps=2, callbacks=callbacks)
    trainer.train(resume_from_checkpoint=True if mode == "resume" else None)
    for name, model in (("generator", trainer.model), ("discriminator", trainer.discriminator)):
        tensors = {key: tensor.contiguous().clone() for key, tensor in model.named_parameters()}
        save_file(tensors, folder / f"{name}.safetensors")
