"""
Honesty board: the synthetic benchmark of SeqGAN (Yu et al. 2017, arXiv:1609.05473), with the columns that its tables
leave out. An LSTM with random weights is the language ("oracle"): vocabulary 5000, texts of 20 tokens, 10,000 of them
to train on; the generator has the oracle's shape. Published tables rank by NLL_oracle alone, nats per token of
generated text under the oracle. Here beside it: the generator's entropy H(q), KL(q || p) = NLL_oracle - H(q), the
likelihood of held-out text, and what is copied from the training texts. Maximum likelihood at low temperatures is a row
like others.

    python -m eval.experiments.oracle_board --seeds 0 1 2 --output_dir runs/oracle_board

The oracle is sampled by the seed; --oracle takes SeqGAN's own weights. Every row is kept in output_dir/results.json,
and a run that was stopped goes on from there.
"""

import argparse
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from eval.experiments.common.command import make_parser, start
from eval.experiments.common.random_language import RandomLanguage
from eval.experiments.common.results import Results
from eval.experiments.oracle_board import training
from eval.experiments.oracle_board.language import make_oracle, read_oracle
from eval.experiments.oracle_board.measures import copying, lookup_table, measure, sample
from eval.experiments.oracle_board.report import write_report
from hf_gpt import HfLstmForCausalLM


# Updates of the generator and, at most, of the discriminator before them.
ADVERSARIAL_STEPS = {"reinforce": (150, 100), "seqgan": (20, 80)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__, "oracle_board", "of oracle, texts, weights and order")
    parser.add_argument(
        "--oracle", type=Path, help="SeqGAN's save/target_params_py3.pkl; left out: sampled by the seed"
    )
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 0.8, 0.6, 0.5, 0.4, 0.35, 0.3])
    recipes = list(ADVERSARIAL_STEPS)
    parser.add_argument("--recipes", nargs="*", choices=recipes, default=recipes, metavar="RECIPE")
    parser.add_argument("--epochs", type=int, default=12, help="of maximum likelihood (SeqGAN: 120)")
    parser.add_argument("--num_samples", type=int, default=2000, help="texts of each row, and held-out ones")
    parser.add_argument("--num_train", type=int, default=10_000, help="texts to train on")
    parser.add_argument("--vocab_size", type=int, default=5000)
    parser.add_argument("--length", type=int, default=20, help="of every text in tokens")
    parser.add_argument("--width", type=int, default=32, help="of oracle and generator")
    parser.add_argument("--adversarial_scale", type=float, default=1.0, help="of the steps of the recipes")
    options = parser.parse_args(argv)
    # The models are too small for more threads to be of use.
    torch.set_num_threads(1)
    # Seeds, temperatures and recipes may be added to a board; what a row is may not change.
    results = Results(options.output_dir / "results.json", vars(options), ("temperatures", "recipes"))
    for seed in options.seeds:
        World(options, seed).measure(results)
    print(write_report(results.points, options.seeds, results.settings, options.output_dir))
    return 0


class World:
    """The language of a seed, its texts and the generators trained on them, which are kept in files."""

    def __init__(self, options: argparse.Namespace, seed: int):
        self.options, self.seed = options, seed
        self.folder = options.output_dir / f"seed-{seed}"

    @cached_property
    def oracle(self) -> RandomLanguage:
        """p."""
        if self.options.oracle is not None:
            return read_oracle(self.options.oracle)
        return make_oracle(self.seed, self.options.vocab_size, self.options.width)

    @cached_property
    def training(self) -> torch.Tensor:
        """Texts to learn from, (texts, length)."""
        return self._texts(1, self.options.num_train)

    @cached_property
    def validation(self) -> torch.Tensor:
        """Texts to stop by."""
        return self._texts(2, self.options.num_samples)

    @cached_property
    def test(self) -> torch.Tensor:
        """Texts to be judged on."""
        return self._texts(3, self.options.num_samples)

    def _texts(self, position: int, count: int) -> torch.Tensor:
        return sample(self.oracle, count, self.options.length, self.seed + 1000 * position)

    def measure(self, results: Results) -> None:
        """All rows that are not there yet."""
        seed, options = self.seed, self.options
        results.point(seed, "held-out text", lambda: copying(self.test, self.training))
        results.point(seed, "lookup table", lambda: lookup_table(self.oracle, self.training, self.test))
        results.point(seed, "likelihood", self.train_likelihood)
        rows = [("MLE", "best", temperature) for temperature in options.temperatures]
        rows.append(("MLE, all epochs", "last", 1.0))
        for recipe in options.recipes:
            results.point(seed, recipe, lambda recipe=recipe: self.train_adversarially(recipe))
            # Low temperatures too: what helps maximum likelihood is open to any generator.
            rows += [(recipe, recipe, t) for t in sorted({1.0, min(options.temperatures)}, reverse=True)]
        for name, model, t in rows:
            results.point(seed, f"{name} T={t}", lambda model=model, t=t: self._row(model, t))

    def _row(self, model: str, temperature: float) -> dict[str, float]:
        return measure(
            self.oracle,
            self.generator(model),
            self.training,
            self.test,
            count=self.options.num_samples,
            temperature=temperature,
            seed=self.seed + 4000,
        )

    def generator(self, name: str) -> PreTrainedModel:
        """One that was trained before."""
        return HfLstmForCausalLM.from_pretrained(self.folder / name)

    def train_likelihood(self) -> dict[str, Any]:
        """Trains and keeps the generator by likelihood: its best epoch and its last."""
        found = training.train_likelihood(
            training.make_generator(self.oracle.embedding.num_embeddings, self.options.width, self.seed),
            self.training,
            self.validation,
            epochs=self.options.epochs,
            seed=self.seed,
        )
        found.best.save_pretrained(self.folder / "best")
        found.last.save_pretrained(self.folder / "last")
        return {"best_epoch": found.best_epoch, "held_out": found.held_out}

    def train_adversarially(self, recipe: str) -> dict[str, Any]:
        """Trains and keeps a generator by a recipe, from the best epoch of maximum likelihood."""
        steps, warmup_steps = (
            max(1, round(number * self.options.adversarial_scale)) for number in ADVERSARIAL_STEPS[recipe]
        )
        model = self.generator("best")
        sizes = {"steps": steps, "warmup_steps": warmup_steps, "seed": self.seed}
        seen = training.train_adversarially(recipe, model, self.training, self.validation, **sizes)
        model.save_pretrained(self.folder / recipe)
        return seen


if __name__ == "__main__":
    start(main)
