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
from typing import Any

import torch

from eval.experiments.common.command import make_parser, start
from eval.experiments.common.results import Results
from eval.experiments.common.words import encode, sample_words, sampling_of, words_of
from eval.experiments.resampling.discriminators import Discriminator, best_weights, classifier, unseen_auc
from eval.experiments.resampling.report import LARGER, REAL, TEMPERATURE, TOP_P, write_plot, write_table
from eval.experiments.resampling.stage import CORPORA, Corpus, Stage
from hf_gpt.allocator import keeps_freed_memory
from hf_gpt.evaluation.language_model.word_model import WordModel, reverse_lm_score
from hf_gpt.generation.guidance.particle_filter import grow_particles
from hf_gpt.generation.guidance.selection import best_of, resample
from hf_gpt.generation.sampling.rollout import Rollout
from hf_gpt.generation.scoring.log_ratio import log_ratio


TEMPERATURES = (1.0, 0.9, 0.8, 0.7)
TOP_PS = (0.9, 0.8)
LARGER_TEMPERATURES = (1.0, 0.8)
PARTICLE_TEMPERATURES = (1.0, 0.85)
# The best of n is shown at one number of candidates.
BEST_AT = 8
LARGER_CANDIDATES = 16


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__, "resampling", "of split, weights and samples")
    parser.add_argument("corpora", nargs="+", choices=list(CORPORA), metavar="CORPUS", help=", ".join(CORPORA))
    parser.add_argument("--num_samples", type=int, default=2000, help="texts of each point")
    parser.add_argument("--candidates", type=int, nargs="+", default=[8, 32], help="whole texts to choose one of")
    parser.add_argument("--particles", type=int, nargs="*", default=[16], help="prefixes that grow side by side")
    parser.add_argument("--generator", type=int, nargs=2, default=[16, 1], metavar=("WIDTH", "LAYERS"), help="q")
    parser.add_argument("--density", type=int, nargs=2, default=[64, 2], metavar=("WIDTH", "LAYERS"), help="psi")
    parser.add_argument("--epochs", type=int, default=30, help="of each training, at most; early stopping ends it")
    options = parser.parse_args(argv)
    # The models are too small for more threads to be of use.
    torch.set_num_threads(1)
    for corpus in options.corpora:
        folder = options.output_dir / corpus
        # Corpora and ways of choosing may be added; what a point is may not change.
        results = Results(folder / "results.json", vars(options), ("corpora", "candidates", "particles"))
        for seed in options.seeds:
            with keeps_freed_memory():
                Seed(CORPORA[corpus], seed, options, results, folder / f"seed-{seed}").run()
        print(write_table(CORPORA[corpus].title, results.points, options.num_samples, folder))
    write_plot(options.output_dir)
    return 0


class Seed:
    """All points of one seed."""

    def __init__(self, corpus: Corpus, seed: int, options: argparse.Namespace, results: Results, folder: Path):
        self.seed, self.options, self.results = seed, options, results
        self.number = options.num_samples
        self.stage = Stage(corpus, options, seed, folder)

    def run(self) -> None:
        """Measures what is not measured yet."""
        stage = self.stage
        self._point(REAL, lambda: encode(stage.training[: self.number], stage.vocabulary, stage.max_words))
        for t in TEMPERATURES:
            self._point(f"{TEMPERATURE} {t:g}", lambda t=t: self._sample(stage.generator, 1, temperature=t))
        for p in TOP_PS:
            self._point(f"{TOP_P} {p:g}", lambda p=p: self._sample(stage.generator, 1, top_p=p))
        for t in LARGER_TEMPERATURES:
            self._point(f"{LARGER} T={t:g}", lambda t=t: self._sample(stage.density, 1, temperature=t))
        for t in PARTICLE_TEMPERATURES:
            for count in self.options.particles:
                self._point(f"particles: {count} at T={t:g}", lambda t=t, count=count: self._particles(count, t))
        self._whole_texts()
        self._larger_model()

    def _particles(self, count: int, temperature: float) -> Rollout:
        """Texts of q whose prefixes are resampled by the log-ratio."""
        q, generator = self.stage.generator, torch.Generator().manual_seed(self.seed + 11)
        return grow_particles(
            q.model,
            self.stage.density.model,
            sampling=sampling_of(q, self.number, temperature=temperature),
            num_particles=count,
            block_size=4,
            discriminator_temperature=temperature,
            resampling="multinomial",
            generator=generator,
            batch_size=500,
        ).sample(generator)

    def _whole_texts(self) -> None:
        """One of n texts of q, by the log-ratio alone and by the log-ratio with a classifier begun from psi."""
        stage, most = self.stage, max(self.options.candidates)
        parts: dict[str, Discriminator] = {
            "ratio": lambda texts: log_ratio(stage.density.model, stage.generator.model, texts, batch_size=64),
            "classifier": classifier(stage, "generator"),
        }
        pool = cache(lambda: self._sample(stage.generator, most))
        scores = {name: cache(lambda part=part: part(pool())) for name, part in parts.items()}
        self._weigh("ratio", [parts["ratio"]], stage.generator)
        for count in self.options.candidates:
            self._choose("ratio", "resample", count, pool, scores["ratio"])
            if count == BEST_AT:
                self._choose("ratio", "best", count, pool, scores["ratio"])
        weights = self._weigh("ratio + classifier", list(parts.values()), stage.generator)
        both = cache(lambda: weights[0] * scores["ratio"]() + weights[1] * scores["classifier"]())
        self._choose("ratio + classifier", "resample", most, pool, both)

    def _larger_model(self) -> None:
        """One of n texts of psi itself, by a classifier."""
        stage, name = self.stage, f"{LARGER} + classifier"
        discriminator = classifier(stage, "density")
        weight = self._weigh(name, [discriminator], stage.density)[0]
        pool = cache(lambda: self._sample(stage.density, LARGER_CANDIDATES))
        self._choose(name, "resample", LARGER_CANDIDATES, pool, lambda: weight * discriminator(pool()))

    def _weigh(self, name: str, discriminators: list[Discriminator], model: WordModel) -> list[float]:
        """The weights of a sum of discriminators; 1 for a log-ratio alone."""

        def measure() -> dict[str, Any]:
            weights = [1.0] if name == "ratio" else best_weights(self.stage, discriminators, model)
            return {"weights": weights, "unseen_auc": unseen_auc(self.stage, discriminators, weights, model)}

        return self.results.point(self.seed, f"discriminator {name}", measure)["weights"]

    def _choose(
        self,
        discriminator: str,
        way: str,
        count: int,
        pool: Callable[[], Rollout],
        scores: Callable[[], torch.Tensor],
    ) -> None:
        def texts() -> Rollout:
            groups = scores()[: self.number * count].view(self.number, count)
            generator = torch.Generator().manual_seed(self.seed)
            chosen = best_of(groups) if way == "best" else resample(groups, generator=generator)[:, 0]
            return pool().rows(torch.arange(self.number) * count + chosen)

        self._point(f"{discriminator}: {way} of {count}", texts)

    def _sample(self, model: WordModel, candidates: int, **policy: float) -> Rollout:
        return sample_words(model, self.number * candidates, self.seed + 7, **policy)

    def _point(self, name: str, sample: Callable[[], Rollout]) -> None:
        stage = self.stage

        def measure() -> dict[str, Any]:
            texts = words_of(sample(), stage.vocabulary)
            nll, tokens = stage.judge.nll(texts)
            settings = {"seed": self.seed, "max_length": stage.max_words, "epochs": self.options.epochs}
            return {
                "lm_score": float(nll.sum() / tokens.sum()),
                "reverse_lm_score": reverse_lm_score(texts, stage.reverse_texts, **settings)["reverse_lm_score"],
                "distinct_share": len({tuple(text) for text in texts}) / len(texts),
                "mean_length": statistics.fmean(map(len, texts)),
            }

        self.results.point(self.seed, name, measure)


if __name__ == "__main__":
    start(main)
