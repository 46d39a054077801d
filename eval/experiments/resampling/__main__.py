"""
Discriminator resampling against temperature: quality (LM score) at equal diversity (reverse-LM score).

A small GPT q is trained by likelihood with early stopping. Its samples over temperature and top-p are the curve to
beat. Discriminators of the same texts choose among its samples: the log-ratio of a larger language model psi to q, and
that with a classifier begun from psi; by importance resampling among n, and by resampling prefixes as they grow
(`particles.py`). Why not sample from psi itself? That is a row over temperature too, and a classifier chooses among
psi's samples in turn. LM score: nats a word of the samples under a judge trained on real texts that no model has seen;
reverse-LM score: nats a word of real texts under a model that learnt the samples alone. Lower is better for both.
Passed where resampling's LM score is at least 0.1 nats below that of temperature at equal reverse-LM score, in every
seed (after Caccia et al. 2020, arXiv:1811.02549, whose rejection by a discriminator reached 0.2 on EMNLP news).

    python -m eval.experiments.resampling coco news --seeds 0 1 2 --output_dir runs/resampling

Every measured point is kept in output_dir/CORPUS/results.json, and a run that was stopped goes on from there. Table and
plot show all seeds that are there.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.experiments.resampling.report import LARGER, REAL, TEMPERATURE, TOP_P
from hf_gpt.files.atomic_files import replaces_file


if TYPE_CHECKING:
    import torch

    from eval.experiments.common.results import Results
    from eval.experiments.resampling.discriminators import Discriminator
    from eval.experiments.resampling.pools import Pool
    from eval.experiments.resampling.stage import Corpus
    from hf_gpt.evaluation.language_model.word_model import WordModel

TEMPERATURES = (1.0, 0.9, 0.8, 0.7)
TOP_PS = (0.9, 0.8)
LARGER_TEMPERATURES = (1.0, 0.8)
PARTICLE_TEMPERATURES = (1.0, 0.85)
# Ways besides importance resampling are shown at one number of candidates.
WAYS, WAYS_AT = ("resample", "best"), 8
LARGER_CANDIDATES = 16


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.experiments.resampling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpora", nargs="+", choices=("coco", "news"), metavar="CORPUS", help="coco, news")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of split, weights and samples")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/resampling"))
    parser.add_argument("--num_samples", type=int, default=2000, help="texts of each point")
    parser.add_argument("--num_real", type=int, help="texts used of each of the two files; left out: all")
    parser.add_argument("--candidates", type=int, nargs="+", default=[8, 32], help="whole texts to choose one of")
    parser.add_argument("--particles", type=int, nargs="*", default=[16], help="prefixes that grow side by side")
    parser.add_argument("--block", type=int, default=4, help="tokens that they grow by")
    parser.add_argument("--generator", type=int, nargs=2, default=[16, 1], metavar=("WIDTH", "LAYERS"), help="q")
    parser.add_argument("--density", type=int, nargs=2, default=[64, 2], metavar=("WIDTH", "LAYERS"), help="psi")
    parser.add_argument("--epochs", type=int, default=30, help="of each training, at most; early stopping ends it")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    import torch

    from eval.experiments.common.results import Results
    from eval.experiments.resampling.report import write_plot, write_table
    from eval.experiments.resampling.stage import CORPORA
    from hf_gpt.allocator import keeps_freed_memory

    options = make_parser().parse_args(argv)
    # The models are too small for more threads to be of use.
    torch.set_num_threads(1)
    # Corpora, seeds and ways of choosing may be added; what a point is may not change.
    varying = ("corpora", "seeds", "output_dir", "candidates", "particles")
    settings = {name: str(value) for name, value in vars(options).items() if name not in varying}
    for corpus in options.corpora:
        folder = options.output_dir / corpus
        folder.mkdir(parents=True, exist_ok=True)
        results = Results(folder / "results.json", settings)
        for seed in options.seeds:
            with keeps_freed_memory():
                Seed(CORPORA[corpus], seed, options, results, folder / f"seed-{seed}").run()
        print(write_table(CORPORA[corpus].title, results.points, options.num_samples, folder))
    write_plot(options.output_dir)
    return 0


class Seed:
    """All points of one seed."""

    def __init__(self, corpus: "Corpus", seed: int, options: argparse.Namespace, results: "Results", folder: Path):
        from eval.experiments.resampling.stage import Sizes, Stage

        self.seed, self.options, self.results, self.folder = seed, options, results, folder
        self.number = options.num_samples
        sizes = Sizes(tuple(options.generator), tuple(options.density), options.epochs)
        self.stage = Stage(corpus, options.num_real, sizes, seed, folder, results)

    def run(self) -> None:
        """Measures what is not measured yet."""
        from eval.experiments.resampling.pools import encode

        stage = self.stage
        self._point(REAL, lambda: encode(stage.training[: self.number], stage.vocabulary, stage.max_words))
        for t in TEMPERATURES:
            self._point(f"{TEMPERATURE} {t:g}", lambda t=t: self._sample(stage.generator, 1, temperature=t))
        for p in TOP_PS:
            self._point(f"{TOP_P} {p:g}", lambda p=p: self._sample(stage.generator, 1, top_p=p))
        for t in LARGER_TEMPERATURES:
            self._point(f"{LARGER} T={t:g}", lambda t=t: self._sample(stage.density, 1, temperature=t))
        self._particles()
        self._whole_texts()
        self._larger_model()

    def _whole_texts(self) -> None:
        """One of n texts of q, by the log-ratio alone and by the log-ratio with a classifier begun from psi."""
        from eval.experiments.resampling.discriminators import classifier, log_ratio

        stage, most = self.stage, max(self.options.candidates)
        parts = {"ratio": log_ratio(stage.density, stage.generator), "classifier": classifier(stage, "generator")}
        pool = cache(lambda: self._sample(stage.generator, most))
        scores = {name: cache(lambda n=name: self._kept(f"{n} of {most}", lambda: parts[n](pool()))) for name in parts}
        self._weigh("ratio", [parts["ratio"]], stage.generator)
        for count in self.options.candidates:
            for way in WAYS if count == WAYS_AT else ("resample",):
                self._choose("ratio", way, count, pool, scores["ratio"])
        weights = self._weigh("ratio + classifier", list(parts.values()), stage.generator)
        both = cache(lambda: weights[0] * scores["ratio"]() + weights[1] * scores["classifier"]())
        self._choose("ratio + classifier", "resample", most, pool, both)

    def _particles(self) -> None:
        """Texts of q whose prefixes are resampled by the log-ratio."""
        from eval.experiments.resampling.particles import sample_by_particles

        stage = self.stage
        for temperature in PARTICLE_TEMPERATURES:
            for count in self.options.particles:
                settings = {"particles": count, "block": self.options.block, "seed": self.seed + 11}
                settings |= {"q_temperature": temperature, "psi_temperature": temperature}
                name = f"particles: {count} at T={temperature:g}"
                self._point(
                    name, lambda s=settings: sample_by_particles(stage.generator, stage.density, self.number, **s)
                )

    def _larger_model(self) -> None:
        """One of n texts of psi itself, by a classifier."""
        from eval.experiments.resampling.discriminators import classifier

        stage, count = self.stage, LARGER_CANDIDATES
        discriminator = classifier(stage, "density")
        weight = self._weigh(f"{LARGER} + classifier", [discriminator], stage.density)[0]
        pool = cache(lambda: self._sample(stage.density, count))
        scores = cache(lambda: weight * self._kept(f"classifier of density, {count}", lambda: discriminator(pool())))
        self._choose(f"{LARGER} + classifier", "resample", count, pool, scores)

    def _weigh(self, name: str, discriminators: "list[Discriminator]", model: "WordModel") -> list[float]:
        """The weights of a sum of discriminators; 1 for a log-ratio alone."""
        from eval.experiments.resampling.discriminators import best_weights, unseen_auc

        def measure() -> dict[str, Any]:
            weights = [1.0] if name == "ratio" else best_weights(self.stage, discriminators, model)
            return {"weights": weights, "unseen_auc": round(unseen_auc(self.stage, discriminators, weights, model), 4)}

        return self.results.point(self.seed, f"discriminator {name}", measure)["weights"]

    def _choose(
        self, discriminator: str, way: str, count: int, pool: "Callable[[], Pool]", scores: "Callable[[], torch.Tensor]"
    ) -> None:
        from eval.experiments.resampling.choosing import choose

        def texts() -> "Pool":
            return pool().rows(choose(way, scores(), self.number, count, self.seed))

        self._point(f"{discriminator}: {way} of {count}", texts)

    def _sample(self, model: "WordModel", candidates: int, **sampler: float) -> "Pool":
        from eval.experiments.resampling.pools import sample

        return sample(model, self.number * candidates, seed=self.seed + 7, **sampler)

    def _kept(self, name: str, score: "Callable[[], torch.Tensor]") -> "torch.Tensor":
        import torch

        file = self.folder / f"scores, {name}.pt"
        if not file.exists():
            found = score()
            with replaces_file(file) as draft:
                torch.save(found, draft)
        return torch.load(file)

    def _point(self, name: str, sample: "Callable[[], Pool]") -> None:
        from hf_gpt.evaluation.language_model.word_model import reverse_lm_score

        stage = self.stage

        def measure() -> dict[str, Any]:
            texts = sample().words(stage.vocabulary)
            nll, tokens = stage.judge.nll(texts)
            settings = {"seed": self.seed, "max_length": stage.max_words, "epochs": self.options.epochs}
            return {
                "lm_score": round(float(nll.sum() / tokens.sum()), 4),
                "reverse_lm_score": round(
                    reverse_lm_score(texts, stage.reverse_texts, **settings)["reverse_lm_score"], 4
                ),
                "distinct_share": round(len({tuple(text) for text in texts}) / len(texts), 4),
                "mean_length": round(statistics.fmean(map(len, texts)), 2),
                "texts": len(texts),
            }

        self.results.point(self.seed, name, measure)


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
