"""What a checkpoint holds beside the generator: the discriminator, its optimizer, and the adversarial state."""

import json
from pathlib import Path
from typing import Any

import torch

from hf_gpt.adversarial.generator.experience import GeneratorStep
from hf_gpt.adversarial.generator.update import Experience
from hf_gpt.adversarial.schedule import Schedule
from hf_gpt.files.checkpoint_parts import SCHEDULE_FILE, STATE_FILE
from hf_gpt.generation.sampling.rollout import Rollout


def save_adversarial_state(
    folder: Path,
    generator_step: GeneratorStep,
    schedule: Schedule,
    experiences: list[Experience],
    metrics: dict[str, list[float]],
    *,
    is_main: bool,
    process_index: int,
) -> None:
    """Writes everything but the weights of the two models. All processes call it.

    Args:
        folder: The checkpoint, which is there already.
        generator_step: The state of both models' training, the same in every process.
        schedule: What has been done.
        experiences: Texts for further updates, each process's own.
        metrics: What has been measured since the last log.
        is_main: Whether this process writes the common files.
        process_index: Its number.
    """
    # The main process may not have made it yet.
    folder.mkdir(parents=True, exist_ok=True)
    loop, discriminator_trainer = generator_step.loop, generator_step.discriminator_trainer
    if discriminator_trainer is not None:
        discriminator_trainer.save_optimizer(folder, is_main)
    own = {"experiences": [_to_state(experience) for experience in experiences], "noise": loop.noise.get_state()}
    torch.save(own, folder / f"adversarial_rank_{process_index}.pt")
    if is_main:
        state = {**loop.state_dict(), **generator_step.state_dict()}
        torch.save({"loop": state, "metrics": dict(metrics)}, folder / STATE_FILE)
        text = json.dumps(schedule.state_dict(), indent=2)
        (folder / SCHEDULE_FILE).write_text(text + "\n", encoding="utf-8")


def load_adversarial_state(
    folder: Path,
    generator_step: GeneratorStep,
    schedule: Schedule,
    model: torch.nn.Module,
    process_index: int,
) -> tuple[list[Experience], dict[str, list[float]]]:
    """Reads what `save_adversarial_state` wrote; returns the experiences and metrics."""
    loop, discriminator_trainer = generator_step.loop, generator_step.discriminator_trainer
    adversarial_state = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
    schedule.load_state_dict(json.loads((folder / SCHEDULE_FILE).read_text(encoding="utf-8")))
    loop.load_state_dict(adversarial_state["loop"])
    generator_step.load_state_dict(adversarial_state["loop"], model)
    if discriminator_trainer is not None:
        discriminator_trainer.load_optimizer(folder)
    own = folder / f"adversarial_rank_{process_index}.pt"
    experiences: list[Experience] = []
    if own.is_file():
        state = torch.load(own, map_location="cpu", weights_only=True)
        loop.noise.set_state(state["noise"])
        experiences = [_from_state(item, loop.args.device) for item in state["experiences"]]
    return experiences, adversarial_state["metrics"]


def _to_state(experience: Experience) -> dict[str, Any]:
    return {**vars(experience), "rollout": vars(experience.rollout)}


def _from_state(state: dict[str, Any], device: torch.device) -> Experience:
    moved = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in state.items()}
    return Experience(**{**moved, "rollout": Rollout(**state["rollout"]).to(device)})
