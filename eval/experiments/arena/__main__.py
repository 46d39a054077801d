"""
Distillation arena: a teacher, trained on captions, gives samples alone; a smaller student is trained on them by
likelihood and against discriminators. The teacher's density is known to the evaluator, so every divergence is measured.

    python -m eval.experiments.arena --seeds 0 1 2 --output_dir runs/arena
"""

from collections.abc import Sequence
from dataclasses import asdict

from eval.experiments.arena.report import write_report
from eval.experiments.arena.settings import ARMS, Settings
from eval.experiments.arena.world import World
from eval.experiments.common.command import make_parser, start
from eval.experiments.common.results import Results


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__, "arena", "of samples, weights and order")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help="; ".join(ARMS))
    parser.add_argument("--scale", type=float, default=1.0, help="of steps and numbers of samples, for a quick look")
    args = parser.parse_args(argv)
    settings = Settings() if args.scale == 1 else Settings().scaled(args.scale)
    results = Results(args.output_dir / "results.json", {**vars(args), **asdict(settings)}, ("arms",))
    runs = []
    for seed in args.seeds:
        arms = World(settings, seed, args.output_dir).measure(args.arms, results)
        runs.append({"seed": seed, "settings": asdict(settings), "arms": arms})
    print(write_report(runs, args.output_dir))
    return 0


if __name__ == "__main__":
    start(main)
