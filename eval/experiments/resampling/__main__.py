"""
Discriminator resampling against temperature: quality (LM score) at equal diversity (reverse-LM score).

A small GPT q is trained by likelihood with early stopping. Its samples over temperature and top-p are the curve to
beat. Critics of the same texts choose among its samples: the log-ratio of a larger language model psi to q, and that
with a classifier begun from psi; by importance resampling among n, and by resampling beginnings as they grow
(`particles.py`). Why not draw from psi itself? That is a row over temperature too, and a classifier chooses among psi's
samples in turn. LM score: nats a word of the samples under a judge trained on real texts that no player has seen;
reverse-LM score: nats a word of real texts under a model that learnt the samples alone. Lower is better for both.
Passed where resampling's LM score is at least 0.1 nats below that of temperature at equal reverse-LM score, in every
seed (after Caccia et al. 2020, arXiv:1811.02549, whose rejection by a discriminator reached 0.2 on EMNLP news).

    python -m hf_gpt.eval.experiments.resampling coco --seeds 0 1 2 --output_dir runs/resampling-coco

Every measured point is kept in output_dir/results.json, and a run that was stopped goes on from there.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import torch

    from hf_gpt.eval.experiments.resampling.critics import Critic
    from hf_gpt.eval.experiments.resampling.pools import Pool
    from hf_gpt.eval.experiments.resampling.stage import Stage
    from hf_gpt.eval.experiments.results import Results
    from hf_gpt.eval.language_model.word_model import WordModel

TEMPERATURES = (1.1, 1.0, 0.9, 0.8, 0.7)
TOP_P = (0.95, 0.9, 0.8)
LARGER_TEMPERATURES = (1.0, 0.9, 0.8)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hf_gpt.eval.experiments.resampling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpus", choices=("coco", "news"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of split, weights and draws")
    parser.add_argument("--output_dir", type=Path, help="left out: runs/resampling-CORPUS")
    parser.add_argument("--num_samples", type=int, default=3000, help="texts of each point")
    parser.add_argument("--num_real", type=int, help="texts used of each of the two files; left out: all")
    parser.add_argument("--candidates", type=int, nargs="+", default=[8, 32, 64], help="whole texts to choose one of")
    parser.add_argument("--particles", type=int, nargs="*", default=[8, 32], help="beginnings that grow side by side")
    parser.add_argument("--block", type=int, default=4, help="tokens that they grow by")
    parser.add_argument("--generator", type=int, nargs=2, default=[16, 1], metavar=("WIDTH", "LAYERS"), help="q")
    parser.add_argument("--density", type=int, nargs=2, default=[128, 2], metavar=("WIDTH", "LAYERS"), help="psi")
    parser.add_argument("--epochs", type=int, default=30, help="of each training, at most; early stopping ends it")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    import torch

    from hf_gpt.eval.experiments.resampling.report import write_report
    from hf_gpt.eval.experiments.resampling.stage import CORPORA
    from hf_gpt.eval.experiments.results import Results

    options = make_parser().parse_args(argv)
    # The models are too small for more threads to be of use.
    torch.set_num_threads(1)
    output = options.output_dir or Path(f"runs/resampling-{options.corpus}")
    output.mkdir(parents=True, exist_ok=True)
    # Seeds and ways of choosing may be added; what a point is may not change.
    varying = ("seeds", "output_dir", "candidates", "particles")
    settings = {name: str(value) for name, value in vars(options).items() if name not in varying}
    results = Results(output / "results.json", settings)
    for seed in options.seeds:
        Seed(seed, options, results, output / f"seed-{seed}").run()
    title = CORPORA[options.corpus].title
    print(write_report(title, results.points, options.seeds, options.num_samples, output))
    return 0


class Seed:
    """All points of one seed."""

    def __init__(self, seed: int, options: argparse.Namespace, results: "Results", folder: Path):
        from hf_gpt.eval.experiments.resampling.stage import CORPORA, Sizes, Stage

        self.seed, self.options, self.results, self.folder = seed, options, results, folder
        sizes = Sizes(tuple(options.generator), tuple(options.density), options.epochs)
        self.stage = Stage(CORPORA[options.corpus], options.num_real, sizes, seed, folder, results)

    def run(self) -> None:
        """Measures what is not measured yet."""
        self._samplers()
