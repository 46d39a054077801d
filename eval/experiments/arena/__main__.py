"""
Distillation arena: a teacher, trained on captions, gives samples alone; a smaller student is trained on them by
likelihood and against discriminators. The teacher's density is known to the evaluator, so every divergence is measured.

    python -m eval.experiments.arena --data ../shared/data --seeds 0 1 2 --output runs/arena
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.experiments.arena.settings import ARMS, LIKELIHOOD, Settings, file_name
from eval.experiments.common.command import make_parser, start
from eval.experiments.common.results import kept


if TYPE_CHECKING:
    from eval.experiments.arena.world import World


def main(argv: Sequence[str] | None = None) -> int:
    from eval.experiments.arena.report import write_report

    parser = make_parser(__doc__, "arena", "of samples, weights and order")
    parser.add_argument("--data", type=Path, help="data folder with lm/coco_captions (HF_GPT_DATA, ../shared/data)")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help="; ".join(ARMS))
    parser.add_argument("--scale", type=float, default=1.0, help="of steps and numbers of samples, for a quick look")
    args = parser.parse_args(argv)
    if args.data is not None:
        os.environ["HF_GPT_DATA"] = str(args.data)
    settings = Settings() if args.scale == 1 else Settings().scaled(args.scale)
    path = args.output_dir / "settings.json"
    if kept(path, settings.to_dict) != settings.to_dict():
        raise SystemExit(f"{path} holds other settings than this run: give another --output_dir.")
    runs = [run_seed(settings, seed, args.arms, args.output_dir) for seed in args.seeds]
    print(write_report(runs, args.output_dir))
    return 0


def run_seed(settings: Settings, seed: int, arms: Sequence[str], output: Path) -> dict[str, Any]:
    """The arms of a seed, those that are finished read from their files; maximum likelihood last."""
    from tqdm import tqdm

    from eval.experiments.arena.world import World

    folder = output / f"seed{seed}"
    with tqdm(unit="step", desc=f"seed {seed}", mininterval=10, disable=None) as bar:
        world = World(settings, seed, output, bar.update)
        results: dict[str, Any] = {}
        for arm in sorted(arms, key=lambda arm: arm == LIKELIHOOD):
            bar.set_postfix_str(arm)
            results[arm] = kept(folder / f"{file_name(arm)}.json", lambda arm=arm: _measured(world, arm, results))
        for arm in arms if LIKELIHOOD in arms else ():
            bar.set_postfix_str(f"{arm}: held-out classifier")
            path = folder / f"{file_name(arm)}_fresh.json"
            results[arm]["fresh"] = kept(path, lambda arm=arm: _classified(world, arm, results))
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
    """The held-out classifier on an arm at its temperatures, and on maximum likelihood at the same entropies."""
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


if __name__ == "__main__":
    start(main)
