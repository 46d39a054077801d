"""What a checkpoint holds beside the generator: the discriminator, its optimizer, and the state of the game."""

import json
from pathlib import Path
from typing import Any

import torch

from hf_gpt.adversarial.generator.experience import GeneratorRound
from hf_gpt.adversarial.generator.update import Experience
from hf_gpt.adversarial.schedule import Schedule
from hf_gpt.files.checkpoint_parts import GAME_FILE, SCHEDULE_FILE
from hf_gpt.generation.sampling.rollout import Rollout


def save_game(
    folder: Path,
    generator_round: GeneratorRound,
    schedule: Schedule,
    experiences: list[Experience],
    figures: dict[str, list[float]],
    *,
    is_main: bool,
    process_index: int,
) -> None:
    """Writes everything but the weights of the two models. All processes call it.

    Args:
        folder: The checkpoint, which is there already.
        generator_round: State of the game, the same in every process, with its rounds and discriminator.
        schedule: What has been done.
        experiences: Texts that further updates will learn from, each process's own.
        figures: What has been measured since the last log.
        is_main: Whether this process writes what is common.
        process_index: Its number.
    """
    # The main process may not have come so far.
    folder.mkdir(parents=True, exist_ok=True)
    rounds, player = generator_round.rounds, generator_round.player
    if player is not None:
        player.save_optimizer(folder, is_main)
    own = {"experiences": [_to_state(experience) for experience in experiences], "noise": rounds.noise.get_state()}
    torch.save(own, folder / f"adversarial_rank_{process_index}.pt")
    if is_main:
        state = {**rounds.state_dict(), **generator_round.state_dict()}
        torch.save({"rounds": state, "figures": dict(figures)}, folder / GAME_FILE)
        text = json.dumps(schedule.state_dict(), indent=2)
        (folder / SCHEDULE_FILE).write_text(text + "\n", encoding="utf-8")


def load_game(
    folder: Path,
    generator_round: GeneratorRound,
    schedule: Schedule,
    model: torch.nn.Module,
    process_index: int,
) -> tuple[list[Experience], dict[str, list[float]]]:
    """Reads what `save_game` wrote; returns the experiences and figures."""
    rounds, player = generator_round.rounds, generator_round.player
    game = torch.load(folder / GAME_FILE, map_location="cpu", weights_only=True)
    schedule.load_state_dict(json.loads((folder / SCHEDULE_FILE).read_text(encoding="utf-8")))
    rounds.load_state_dict(game["rounds"])
    generator_round.load_state_dict(game["rounds"], model)
    if player is not None:
        player.load_optimizer(folder)
    own = folder / f"adversarial_rank_{process_index}.pt"
    experiences: list[Experience] = []
    if own.is_file():
        state = torch.load(own, map_location="cpu", weights_only=True)
        rounds.noise.set_state(state["noise"])
        experiences = [_from_state(item, rounds.args.device) for item in state["experiences"]]
    return experiences, game["figures"]


def _to_state(experience: Experience) -> dict[str, Any]:
    return {**vars(experience), "rollout": vars(experience.rollout)}


def _from_state(state: dict[str, Any], device: torch.device) -> Experience:
    moved = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in state.items()}
    return Experience(**{**moved, "rollout": Rollout(**state["rollout"]).to(device)})
