"""
Distillation arena: a teacher, trained on captions, gives samples alone; a smaller student is trained on them by
likelihood and against discriminators. The teacher's density is known to the evaluator, so every divergence is measured.

    python -m eval.experiments.arena --data ../shared/data --seeds 0 1 2 --output runs/arena
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.experiments.arena.settings import ARMS, LIKELIHOOD, Settings, file_name
from hf_gpt.files.atomic_files import write_json


if TYPE_CHECKING:
    from eval.experiments.arena.world import World


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.experiments.arena",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="data folder with lm/coco_captions (HF_GPT_DATA, ../shared/data)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of samples, weights and order")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help="; ".join(ARMS))
    parser.add_argument("--output", type=Path, required=True, help="folder; what is finished in it is not run again")
    parser.add_argument("--scale", type=float, default=1.0, help="of steps and numbers of samples, for a quick look")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    from eval.experiments.arena.report import write_report

    args = make_parser().parse_args(argv)
    if args.data is not None:
        os.environ["HF_GPT_DATA"] = str(args.data)
    settings = Settings() if args.scale == 1 else Settings().scaled(args.scale)
    _check_settings(settings, args.output)
    runs = [run_seed(settings, seed, args.arms, args.output) for seed in args.seeds]
    print(write_report(runs, args.output))
    return 0


def run_seed(settings: Settings, seed: int, arms: Sequence[str], output: Path) -> dict[str, Any]:
    """The arms of a seed, those that are finished read from their files; likelihood training last."""
    from tqdm import tqdm

    from eval.experiments.arena.world import World

    with tqdm(unit="step", desc=f"seed {seed}", mininterval=10, disable=None) as bar:
        world = World(settings, seed, output, bar.update)
        results: dict[str, Any] = {}
        for arm in sorted(arms, key=lambda arm: arm == LIKELIHOOD):
            path = output / f"seed{seed}" / f"{file_name(arm)}.json"
            if not path.exists():
                bar.set_postfix_str(arm)
                write_json(path, _measured(world, arm, results))
            results[arm] = json.loads(path.read_text(encoding="utf-8"))
        for arm in arms if LIKELIHOOD in arms else ():
            path = output / f"seed{seed}" / f"{file_name(arm)}_fresh.json"
            if not path.exists():
                bar.set_postfix_str(f"{arm}: fresh classifier")
                write_json(path, _classified(world, arm, results))
            results[arm]["fresh"] = json.loads(path.read_text(encoding="utf-8"))
    return {"seed": seed, "settings": settings.to_dict(), "arms": results}


def _measured(world: "World", arm: str, results: Mapping[str, Any]) -> dict[str, Any]:
    """Cost and curve of an arm, given the results of those before it."""
    from eval.experiments.arena.ledger import Cost

    spent = [Cost(**result["cost"]) for result in results.values()]
    student, cost = world.student(arm, max(spent, key=lambda cost: cost.flops, default=Cost()))
    settings = world.settings
    temperatures = settings.likelihood_temperatures if arm == LIKELIHOOD else settings.temperatures
    return {"cost": asdict(cost), "curve": world.measure(student, temperatures)}


def _classified(world: "World", arm: str, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fresh classifier on an arm at its temperatures, and on likelihood training at the same entropies."""
    from eval.experiments.arena.curves import points_of, temperature_at
    from eval.experiments.arena.ledger import Cost

    baseline = points_of(results[LIKELIHOOD], world.settings.length)
    student, likeliest = (world.student(name, Cost())[0] for name in (arm, LIKELIHOOD))
    found = []
    for point in points_of(results[arm], world.settings.length):
        own = world.fresh_auc(student, point.temperature)
        matched = point.temperature if arm == LIKELIHOOD else temperature_at(baseline, point.entropy)
        other = None if matched is None else own if arm == LIKELIHOOD else world.fresh_auc(likeliest, matched)
        found.append({"temperature": point.temperature, "arm": own, "baseline": other, "baseline_temperature": matched})
    return found


def _check_settings(settings: Settings, output: Path) -> None:
    """Keeps results of other settings apart."""
    path = output / "settings.json"
    if not path.exists():
        write_json(path, settings.to_dict())
    elif json.loads(path.read_text(encoding="utf-8")) != settings.to_dict():
        raise SystemExit(f"{path} holds other settings than this run: give another --output.")


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
