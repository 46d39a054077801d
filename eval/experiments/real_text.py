"""
Real text, COCO captions or EMNLP news: the whole quality-diversity curve of an adversarial model against likelihood.

A small GPT over words is trained by likelihood, stopped where held-out texts are likeliest. From there one copy goes
on by the recipe `default` (a larger language model of the same texts as the discriminator, the exact token gradient,
the likelihood as anchor), another by likelihood, its best held-out weights kept, for at least as many CPU-seconds as
all of the first cost, its discriminator included, or until it is saturated: six rounds in a row, each at half of the
learning rate of the one before, have gained nothing. Every point is one temperature or top-p: BLEU-5 against held-out
texts, self-BLEU-5, and the AUC of a classifier trained afresh.

An adversarial model has a critic too, so more curves let it choose by the log-ratio of discriminator to generator, both
at one temperature: one of `--candidates` texts by importance resampling, or beginnings of `--particles` texts that are
resampled as they grow, after every `--block` tokens. The same discriminator chooses among the texts of the likelihood
model, which shows what the generator's training adds. The discriminator's own samples are a curve too: what a model of
its size reaches.

    python -m eval.experiments.real_text coco news --seeds 0 1 2 --output_dir runs/real_text

Every model and point is kept in output_dir, and a run that was stopped goes on from there.
"""

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.experiments.data import read_words
from eval.experiments.real_text_report import (
    DISCRIMINATOR,
    DISTILLED,
    LIKELIHOOD,
    LIKELIHOOD_CHOSEN,
    LIKELIHOOD_RESAMPLED,
    OURS,
    OURS_CHOSEN,
    OURS_RESAMPLED,
    REAL,
    plot,
    report,
)
from eval.experiments.silent_arguments import QUIET
from hf_gpt.allocator import keeps_freed_memory
from hf_gpt.evaluation.language_model.word_model import WordModel
from hf_gpt.evaluation.text.ngram_bleu import ngram_bleu, self_bleu
from hf_gpt.evaluation.text.vocabulary import BOS, EOS, PAD, WordVocabulary
from hf_gpt.evaluation.two_sample.halves import classifier_test
from hf_gpt.evaluation.two_sample.tfidf import tfidf_scores
from hf_gpt.files.atomic_files import replaces_file, write_json, write_text
from hf_gpt.generation.guidance.particle_filter import grow_particles
from hf_gpt.generation.guidance.selection import effective_sample_size, importance_weights, resample
from hf_gpt.generation.sampling.rollout import Rollout, rollout
from hf_gpt.generation.scoring.log_ratio import log_ratio


FILES = {"coco": "lm/coco_captions/image_coco.txt", "news": "lm/emnlp_news/train_10k.txt.gz"}
MAX_WORDS = 40
TEMPERATURES = {
    LIKELIHOOD: (1.3, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5),
    OURS: (1.3, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5),
    DISTILLED: (1.3, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5),
    DISCRIMINATOR: (1.1, 1.0, 0.9, 0.8, 0.7),
    OURS_CHOSEN: (1.2, 1.1, 1.0, 0.9),
    LIKELIHOOD_CHOSEN: (1.2, 1.1, 1.0, 0.8),
    OURS_RESAMPLED: (1.2, 1.1, 1.0, 0.9),
    LIKELIHOOD_RESAMPLED: (1.1, 1.0, 0.8),
}
TOP_P = {LIKELIHOOD: (0.95, 0.9, 0.8, 0.7, 0.6), OURS: (0.95, 0.9, 0.8, 0.7, 0.6)}
# Learning rates of the discriminator's last epochs.
ANNEALING = (1e-3, 3e-4, 3e-4)
CALIBRATION = (1.0, 1.1, 1.2, 1.3)
# Rounds in a row without improvement, each at half the rate, that end maximum likelihood training.
SATURATED = 6

# Texts by a sampler's settings, with figures of how they were drawn.
Draw = Callable[..., tuple[Rollout, dict[str, float]]]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="+", choices=sorted(FILES), metavar="CORPUS", help=", ".join(sorted(FILES)))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of split, weights and draws")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/real_text"))
    parser.add_argument("--num_texts", type=int, help="texts used of a corpus; left out: all")
    parser.add_argument("--num_samples", type=int, default=2000, help="texts of each point, and held-out ones")
    parser.add_argument("--generator", type=int, nargs=2, default=[16, 1], metavar=("WIDTH", "LAYERS"))
    parser.add_argument("--discriminator", type=int, nargs=2, default=[128, 2], metavar=("WIDTH", "LAYERS"))
    parser.add_argument("--epochs", type=int, default=30, help="of each training by likelihood, at most")
    parser.add_argument("--steps", type=int, default=300, help="updates of the generator against the discriminator")
    parser.add_argument("--learning_rate", type=float, default=3e-3, help="of the generator in them")
    parser.add_argument("--anchor", type=float, default=1.0, help="weight of the lessons in them")
    parser.add_argument("--soft_targets", type=float, default=1.0, help="share of it that the discriminator teaches")
    parser.add_argument("--divergence", help="descended in them, with --beta; left out: the recipe's")
    parser.add_argument("--beta", type=float)
    parser.add_argument("--candidates", type=int, default=8, help="texts that the discriminator chooses one of")
    parser.add_argument("--particles", type=int, default=16, help="beginnings of each text that it resamples")
    parser.add_argument("--block", type=int, default=4, help="tokens that they grow by")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(argv)
    rows = []
    try:
        with keeps_freed_memory():
            for corpus in options.corpora:
                for seed in options.seeds:
                    rows += Run(corpus, seed, options).measure()
    except KeyboardInterrupt:
        print(f"\nStopped. The same command goes on from what is in {options.output_dir}.", file=sys.stderr)
        return 130
    for corpus in options.corpora:
        plot(corpus, rows, options.output_dir / f"{corpus}.png")
    told = "\n".join(report(corpus, rows) for corpus in options.corpora)
    write_text(options.output_dir / "results.md", told)
    print(told)
    return 0


class Run:
    """The models of one corpus and one seed, and their points.

    Args:
        corpus: A key of `FILES`.
        seed: Of split, weights and draws.
        options: Of the command.
    """

    def __init__(self, corpus: str, seed: int, options: argparse.Namespace):
        self.corpus, self.seed, self.options = corpus, seed, options
        self.folder = options.output_dir / f"{corpus}-{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        texts = [words[:MAX_WORDS] for words in read_words(FILES[corpus])]
        order = np.random.default_rng(seed).permutation(len(texts))[: options.num_texts]
        held = min(options.num_samples, len(order) // 4)
        parts = np.split(order, [held, held + len(order) // 10])
        self.test, self.validation, self.training = ([texts[n] for n in part] for part in parts)
        self.vocabulary = WordVocabulary(self.training + self.validation)
        self.words = {number: word for word, number in self.vocabulary.numbers.items()}

    def measure(self) -> list[dict[str, Any]]:
        """The points of all models, trained unless they are there."""
        start = self._kept("start", self._model(self.options.generator), self._by_likelihood)
        judge = self._kept("discriminator", self._model(self.options.discriminator), self._annealed)
        judge.model.config.logit_scale = 1 / self._record("discriminator")["temperature"]
        seconds = self._record("discriminator")["cpu_seconds"]
        taught = self._kept("distilled", self._pupil(start), lambda model: self._for_longer(model, seconds, judge))
        discriminator_trainer = copy.deepcopy(judge)
        ours = self._kept(
            "adversarial", copy.deepcopy(taught), lambda model: self._against(model, discriminator_trainer)
        )
        self._load("discriminator_trainer", discriminator_trainer)
        seconds += sum(self._record(name)["cpu_seconds"] for name in ("distilled", "adversarial"))
        longer = self._kept("likelihood", copy.deepcopy(start), lambda model: self._for_longer(model, seconds))
        curves = (
            (LIKELIHOOD, self._plain(longer)),
            (OURS, self._plain(ours)),
            (DISTILLED, self._plain(taught)),
            (DISCRIMINATOR, self._plain(judge)),
            (OURS_CHOSEN, self._chosen(ours, discriminator_trainer)),
            (LIKELIHOOD_CHOSEN, self._chosen(longer, discriminator_trainer)),
            (OURS_RESAMPLED, self._resampled(ours, discriminator_trainer)),
            (LIKELIHOOD_RESAMPLED, self._resampled(longer, discriminator_trainer)),
        )
        return [self._real(), *(row for name, sample in curves for row in self._curve(name, sample))]

    # Models

    def _model(self, size: Sequence[int], **settings: Any) -> WordModel:
        return WordModel(self.vocabulary, MAX_WORDS, *size, seed=self.seed, **settings)

    def _by_likelihood(self, model: WordModel) -> dict[str, Any]:
        record = model.train(self.training, self.validation, epochs=self.options.epochs, patience=2, seed=self.seed)
        return {"validation": record.losses}

    def _annealed(self, model: WordModel) -> dict[str, Any]:
        """By likelihood, and three more epochs at falling rates; weights are replaced by better ones alone.

        Then its logits are divided by the temperature at which held-out texts are likeliest (Guo et al. 2017,
        arXiv:1706.04599): a language model that stops where its likelihood is best is too sure of itself.
        """
        losses = self._by_likelihood(model)["validation"]
        best = min(losses)
        for rate in ANNEALING:
            longer = copy.deepcopy(model)
            losses += longer.train(
                self.training, self.validation, epochs=1, learning_rate=rate, seed=self.seed + 50
            ).losses
            if losses[-1] < best:
                best, model.model = losses[-1], longer.model
        found = {}
        for temperature in CALIBRATION:
            model.model.config.logit_scale = 1 / temperature
            found[temperature] = self._held_out(model)
        return {"validation": losses, "temperature": min(found, key=found.get), "calibrated": min(found.values())}

    def _pupil(self, start: WordModel) -> WordModel:
        """The generator as it meets the discriminator: whole distributions to learn from need no dropout."""
        model = self._model(self.options.generator, dropout=0.0)
        model.model.load_state_dict(start.model.state_dict())
        return model

    def _for_longer(self, model: WordModel, seconds: float, teacher: WordModel | None = None) -> dict[str, Any]:
        """Rounds until the time is spent or nothing is gained; weights are replaced by better ones alone.

        By likelihood, or by the next-word distributions of a teacher at the same texts.
        """
        began, best, losses, stalls = time.process_time(), self._held_out(model), [], 0
        while not losses or (time.process_time() - began < seconds and stalls < SATURATED):
            longer = copy.deepcopy(model)
            rate = 1.5e-3 * 0.5**stalls
            seed = self.seed + 100 + len(losses)
            longer.train(self.training, self.validation, epochs=2, learning_rate=rate, seed=seed, teacher=teacher)
            losses.append(self._held_out(longer))
            stalls += 1
            if losses[-1] < best:
                best, model.model, stalls = losses[-1], longer.model, 0
        return {"validation": losses, "saturated": stalls == SATURATED}

    def _held_out(self, model: WordModel) -> float:
        nll, tokens = model.nll(self.validation)
        return float(nll.sum() / tokens.sum())

    def _against(self, model: WordModel, judge: WordModel) -> dict[str, Any]:
        from hf_gpt.adversarial.config import AdversarialConfig
        from hf_gpt.adversarial.trainer import AdversarialTrainer

        options = self.options
        overrides = {"token_divergence": options.divergence, "token_divergence_beta": options.beta}
        overrides = {name: value for name, value in overrides.items() if value is not None}
        arguments = AdversarialConfig(
            output_dir=tempfile.mkdtemp(prefix="real-text-"),
            max_steps=options.steps,
            per_device_train_batch_size=64,
            max_new_tokens=MAX_WORDS + 1,
            learning_rate=options.learning_rate,
            lr_scheduler_type="linear",
            lambda_mle=options.anchor,
            anchor_soft_targets=options.soft_targets,
            monitor_steps=max(1, options.steps // 5),
            num_eval_samples=0,
            on_collapse="warn",
            use_cpu=True,
            seed=self.seed,
            **{**QUIET, **method(), **overrides},
        )
        rows = [{"input_ids": row.tolist()} for row in self.vocabulary.encode(self.training, MAX_WORDS)]
        held_out = [{"input_ids": row.tolist()} for row in self.vocabulary.encode(self.validation, MAX_WORDS)]
        trainer = AdversarialTrainer(
            model=model.model,
            discriminator=judge.model,
            args=arguments,
            train_dataset=rows,
            eval_dataset=held_out,
        )
        trainer.train()
        self._save("discriminator_trainer", judge)
        return {"validation": [self._held_out(model)]}

    def _kept(self, name: str, model: WordModel, train: Callable[[WordModel], dict[str, Any]]) -> WordModel:
        path = self.folder / f"{name}.pt"
        if not path.exists():
            began = time.process_time()
            record = train(model)
            record["cpu_seconds"] = time.process_time() - began
            write_json(self.folder / f"{name}.json", record)
            self._save(name, model)
        return self._load(name, model)

    def _save(self, name: str, model: WordModel) -> None:
        path = self.folder / f"{name}.pt"
        with replaces_file(path) as draft:
            torch.save(model.model.state_dict(), draft)

    def _load(self, name: str, model: WordModel) -> WordModel:
        model.model.load_state_dict(torch.load(self.folder / f"{name}.pt", weights_only=True))
        model.model.eval()
        return model

    def _record(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))

    # Points

    def _real(self) -> dict[str, Any]:
        """Texts that were learnt from, as many as the others: what a perfect model's would be like."""
        return self._measured(REAL, "", REAL, lambda: self._metrics(self.training[: len(self.test)]))

    def _curve(self, name: str, sample: Draw) -> Iterable[dict[str, Any]]:
        settings = [{"temperature": temperature} for temperature in TEMPERATURES[name]]
        for setting in [*settings, *({"top_p": top_p} for top_p in TOP_P.get(name, ()))]:
            label = "".join(f"{key} {value:g}" for key, value in setting.items())
            key = f"{name}, {label}"
            if name in (OURS_RESAMPLED, LIKELIHOOD_RESAMPLED):
                key += f", {self.options.particles} by {self.options.block}"
            yield self._measured(name, label, key, lambda setting=setting: self._point(*sample(**setting)))

    def _measured(self, model: str, setting: str, key: str, measure: Callable[[], dict[str, float]]) -> dict[str, Any]:
        """A point, measured unless the folder has it."""
        path = self.folder / "points.json"
        points = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if key not in points:
            began = time.process_time()
            points[key] = measure()
            points[key]["cpu_seconds"] = time.process_time() - began
            write_json(path, points)
            print(f"{self.corpus} {self.seed}  {key:48} {json.dumps(points[key])}", flush=True)
        return {"corpus": self.corpus, "seed": self.seed, "model": model, "setting": setting, **points[key]}

    def _plain(self, model: WordModel) -> Draw:
        return lambda **sampler: (rollout(model.model, **self._texts(1), **sampler), {})

    def _chosen(self, model: WordModel, chooser: WordModel) -> Draw:
        """One of several whole texts."""

        def sample(temperature: float) -> tuple[Rollout, dict[str, float]]:
            count, settings = self.options.candidates, self._texts(self.options.candidates)
            samples = rollout(model.model, **settings, temperature=temperature)
            scores = log_ratio(chooser.model, model.model, samples, temperature, temperature, batch_size=128)
            scores = scores.reshape(-1, count)
            chosen = torch.arange(0, len(samples), count) + resample(scores, generator=settings["generator"])[:, 0]
            effective = float(effective_sample_size(importance_weights(scores)).mean())
            return samples.rows(chosen), {"effective_candidates": effective}

        return sample

    def _resampled(self, model: WordModel, chooser: WordModel) -> Draw:
        """Texts whose beginnings are resampled as they grow."""

        def sample(temperature: float) -> tuple[Rollout, dict[str, float]]:
            settings = self._texts(1)
            particles = grow_particles(
                model.model,
                chooser.model,
                num_particles=self.options.particles,
                block_size=self.options.block,
                temperature=temperature,
                discriminator_temperature=temperature,
                **settings,
            )
            metrics = {
                "effective_candidates": float(particles.effective_sample_size.mean()),
                "resamplings": float(particles.num_resampled.float().mean()),
            }
            return particles.sample(settings["generator"]), metrics

        return sample

    def _texts(self, candidates: int) -> dict[str, Any]:
        """How as many texts as there are held-out ones are drawn, or several for each."""
        return {
            "num_samples": candidates * len(self.test),
            "max_new_tokens": MAX_WORDS + 1,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "pad_token_id": PAD,
            "generator": torch.Generator().manual_seed(self.seed + 7),
            "batch_size": 500,
        }

    def _point(self, samples: Rollout, metrics: dict[str, float]) -> dict[str, float]:
        texts = [[self.words[token] for token in row if token in self.words] for row in samples.completions.tolist()]
        # BLEU of nothing is not defined.
        found = self._metrics([text or ["."] for text in texts])
        return found | {"entropy": float(-samples.logps.sum() / samples.completion_mask.sum())} | metrics

    def _metrics(self, texts: Sequence[Sequence[str]]) -> dict[str, float]:
        """Quality and diversity of texts against the held-out ones."""
        found = classifier_test(self.test, texts, tfidf_scores, seed=self.seed)
        return {
            "bleu5": float(ngram_bleu(texts, self.test, (5,)).mean()),
            "self_bleu5": float(self_bleu(texts, (5,)).mean()),
            "auc": found["auc"],
        }


def method() -> dict[str, Any]:
    """What of the recipe `default` is the method; the rest is sizes and data."""
    import yaml

    from hf_gpt.training import settings as recipes

    names = "discriminator_loss density_ratio_weight discriminator_learning_rate discriminator_adam_beta1 "
    names += (
        "discriminator_steps generator_steps replay_fraction estimator token_divergence token_divergence_beta gamma "
    )
    names += "normalization gate_auc"
    recipe = yaml.safe_load((recipes.ADVERSARIAL_RECIPES / "default.yaml").read_text(encoding="utf-8"))
    # The discriminator has learned its texts already.
    return {name: recipe[name] for name in names.split() if name in recipe} | {"discriminator_warmup_steps": 0}


if __name__ == "__main__":
    from hf_gpt.terminal import run_program

    raise SystemExit(run_program(main))
