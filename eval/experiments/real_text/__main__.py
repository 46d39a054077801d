"""
Real text, COCO captions or EMNLP news: the whole quality-diversity curve of an adversarial model against likelihood.

A small GPT over words is trained by likelihood, stopped where held-out texts are likeliest. From there one copy goes on
by the recipe `distil_larger` (a larger language model of the same texts as the discriminator, the exact token gradient,
the likelihood as anchor), another by likelihood, its best held-out weights kept, for at least as many CPU-seconds as
all of the first cost, its discriminator included, or until it is saturated: six rounds in a row, each at half of the
learning rate of the one before, have gained nothing. Every point is one temperature or top-p: BLEU-5 against held-out
texts, self-BLEU-5, and the AUC of a classifier trained afresh.

An adversarial model has a discriminator too, so more curves let it choose by the log-ratio of discriminator to
generator, both at one temperature: one of `--candidates` texts by importance resampling, or 16 prefixes of each text
that are resampled as they grow, after every 4 tokens. The same discriminator chooses among the texts of
the likelihood model, which shows what the generator's training adds. The discriminator's own samples are a curve too:
what a model of its size reaches.

    python -m eval.experiments.real_text coco news --seeds 0 1 2 --output_dir runs/real_text

Every model and point is kept in output_dir, and a run that was stopped goes on from there.
"""

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from eval.experiments.common.adversarial import make_trainer, method_of
from eval.experiments.common.command import make_parser, start
from eval.experiments.common.data import read_words
from eval.experiments.common.reports import write_page
from eval.experiments.common.results import Results, kept_model
from eval.experiments.common.words import sample_words, sampling_of, words_of
from eval.experiments.real_text import report
from hf_gpt.allocator import keeps_freed_memory
from hf_gpt.evaluation.language_model.word_model import WordModel
from hf_gpt.evaluation.text.sentence_bleu import ngram_bleu, self_bleu
from hf_gpt.evaluation.text.vocabulary import WordVocabulary
from hf_gpt.evaluation.two_sample.classifier_test import classifier_test
from hf_gpt.evaluation.two_sample.tfidf_classifier import tfidf_scores
from hf_gpt.generation.guidance.particle_filter import grow_particles
from hf_gpt.generation.guidance.selection import effective_sample_size, importance_weights, resample
from hf_gpt.generation.sampling.rollout import Rollout, rollout
from hf_gpt.generation.scoring.log_ratio import log_ratio


FILES = {"coco": "lm/coco_captions/image_coco.txt", "news": "lm/emnlp_news/train_10k.txt.gz"}
MAX_WORDS = 40
TEMPERATURES = (1.3, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
TOP_P = (0.95, 0.9, 0.8, 0.7, 0.6)
# Prefixes of each text that are resampled, and the tokens that they grow by.
PARTICLES, BLOCK = 16, 4
# Learning rates of the discriminator's last epochs.
ANNEALING = (1e-3, 3e-4, 3e-4)
CALIBRATION = (1.0, 1.1, 1.2, 1.3)
# Rounds in a row without improvement, each at half the rate, that end maximum likelihood.
SATURATED = 6

# Texts by a sampler's settings, with metrics of how they were sampled.
Sampler = Callable[..., tuple[Rollout, dict[str, float]]]


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__, "real_text", "of split, weights and samples")
    parser.add_argument("corpora", nargs="+", choices=sorted(FILES), metavar="CORPUS", help=", ".join(sorted(FILES)))
    parser.add_argument("--num_samples", type=int, default=2000, help="texts of each point, and held-out ones")
    parser.add_argument("--generator", type=int, nargs=2, default=[16, 1], metavar=("WIDTH", "LAYERS"))
    parser.add_argument("--discriminator", type=int, nargs=2, default=[128, 2], metavar=("WIDTH", "LAYERS"))
    parser.add_argument("--epochs", type=int, default=30, help="of each training by likelihood, at most")
    parser.add_argument("--steps", type=int, default=300, help="updates of the generator against the discriminator")
    parser.add_argument("--candidates", type=int, default=8, help="texts that the discriminator chooses one of")
    options = parser.parse_args(argv)
    rows = []
    with keeps_freed_memory():
        for corpus in options.corpora:
            for seed in options.seeds:
                rows += Run(corpus, seed, options).measure()
    for corpus in options.corpora:
        report.plot(corpus, rows, options.output_dir / f"{corpus}.png")
    print(write_page(options.output_dir, "results", *(report.report(corpus, rows) for corpus in options.corpora)))
    return 0


class Run:
    """The models of one corpus (a key of `FILES`) and one seed, and their points."""

    def __init__(self, corpus: str, seed: int, options: argparse.Namespace):
        self.corpus, self.seed, self.options = corpus, seed, options
        self.folder = options.output_dir / f"{corpus}-{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.results = Results(self.folder / "results.json", vars(options), ("corpora",))
        texts = [words[:MAX_WORDS] for words in read_words(FILES[corpus])]
        order = np.random.default_rng(seed).permutation(len(texts))
        held = min(options.num_samples, len(order) // 4)
        parts = np.split(order, [held, held + len(order) // 10])
        self.test, self.validation, self.training = ([texts[n] for n in part] for part in parts)
        self.vocabulary = WordVocabulary(self.training + self.validation)

    def measure(self) -> list[dict[str, Any]]:
        """The points of all models, trained unless they are there."""
        start, _ = self._kept("start", self._model(self.options.generator), self._by_likelihood)
        judge, record = self._kept("discriminator", self._model(self.options.discriminator), self._annealed)
        judge.model.config.logit_scale = 1 / record["temperature"]
        seconds = record["cpu_seconds"]
        taught, record = self._kept(
            "distilled", self._pupil(start), lambda model: self._for_longer(model, seconds, judge)
        )
        spent = seconds + record["cpu_seconds"]
        trained = copy.deepcopy(judge)
        ours, record = self._kept("adversarial", copy.deepcopy(taught), lambda model: self._against(model, trained))
        self._kept("trained_discriminator", trained, lambda model: {})
        spent += record["cpu_seconds"]
        longer, _ = self._kept("likelihood", copy.deepcopy(start), lambda model: self._for_longer(model, spent))
        curves = (
            (report.LIKELIHOOD, self._plain(longer), TEMPERATURES, TOP_P),
            (report.OURS, self._plain(ours), TEMPERATURES, TOP_P),
            (report.DISTILLED, self._plain(taught), TEMPERATURES, ()),
            (report.DISCRIMINATOR, self._plain(judge), (1.1, 1.0, 0.9, 0.8, 0.7), ()),
            (report.OURS_CHOSEN, self._chosen(ours, trained), (1.2, 1.1, 1.0, 0.9), ()),
            (report.LIKELIHOOD_CHOSEN, self._chosen(longer, trained), (1.2, 1.1, 1.0, 0.8), ()),
            (report.OURS_RESAMPLED, self._resampled(ours, trained), (1.2, 1.1, 1.0, 0.9), ()),
            (report.LIKELIHOOD_RESAMPLED, self._resampled(longer, trained), (1.1, 1.0, 0.8), ()),
        )
        # Texts that were learnt from, as many as the others: what a perfect model's would be like.
        rows = [self._measured(report.REAL, "", lambda: self._metrics(self.training[: len(self.test)]))]
        for name, sample, temperatures, top_ps in curves:
            settings = [*(("temperature", t) for t in temperatures), *(("top_p", p) for p in top_ps)]
            rows += [self._sampled(name, sample, key, value) for key, value in settings]
        return rows

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
                best = losses[-1]
                model.model.load_state_dict(longer.model.state_dict())
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
                best, stalls = losses[-1], 0
                model.model.load_state_dict(longer.model.state_dict())
        return {"validation": losses, "saturated": stalls == SATURATED}

    def _held_out(self, model: WordModel) -> float:
        nll, tokens = model.nll(self.validation)
        return float(nll.sum() / tokens.sum())

    def _against(self, model: WordModel, judge: WordModel) -> dict[str, Any]:
        options = self.options
        settings = {
            **method_of("distil_larger"),
            "max_steps": options.steps,
            "discriminator_warmup_steps": 0,
            "per_device_train_batch_size": 64,
            "max_new_tokens": MAX_WORDS + 1,
            "learning_rate": 3e-3,
            "lr_scheduler_type": "linear",
            "monitor_steps": max(1, options.steps // 5),
            "seed": self.seed,
        }
        rows, held_out = (
            [{"input_ids": row.tolist()} for row in self.vocabulary.encode(texts, MAX_WORDS)]
            for texts in (self.training, self.validation)
        )
        make_trainer(model.model, judge.model, rows, held_out, settings=settings).train()
        # The discriminator's weights are kept in the same run as the generator's.
        (self.folder / "trained_discriminator.pt").unlink(missing_ok=True)
        self._kept("trained_discriminator", judge, lambda model: {})
        return {"validation": [self._held_out(model)]}

    def _kept(
        self, name: str, model: WordModel, train: Callable[[WordModel], dict[str, Any]]
    ) -> tuple[WordModel, dict[str, Any]]:
        return model, kept_model(self.folder / f"{name}.pt", model.model, lambda: train(model))

    # Points

    def _sampled(self, model: str, sample: Sampler, key: str, value: float) -> dict[str, Any]:
        return self._measured(model, f"{key} {value:g}", lambda: self._point(*sample(**{key: value})))

    def _measured(self, model: str, setting: str, measure: Callable[[], dict[str, float]]) -> dict[str, Any]:
        """A point, measured unless the folder has it."""
        point = self.results.point(self.seed, f"{model}, {setting}" if setting else model, measure)
        return {"corpus": self.corpus, "seed": self.seed, "model": model, "setting": setting, **point}

    def _plain(self, model: WordModel) -> Sampler:
        return lambda **policy: (sample_words(model, len(self.test), self.seed + 7, **policy), {})

    def _chosen(self, model: WordModel, chooser: WordModel) -> Sampler:
        """One of several whole texts."""

        def sample(temperature: float) -> tuple[Rollout, dict[str, float]]:
            count, generator = self.options.candidates, self._generator()
            sampling = sampling_of(model, count * len(self.test), temperature=temperature)
            samples = rollout(model.model, sampling=sampling, generator=generator, batch_size=500)
            scores = log_ratio(chooser.model, model.model, samples, sampling, sampling, batch_size=128)
            scores = scores.reshape(-1, count)
            chosen = torch.arange(0, len(samples), count) + resample(scores, generator=generator)[:, 0]
            effective = float(effective_sample_size(importance_weights(scores)).mean())
            return samples.rows(chosen), {"effective_candidates": effective}

        return sample

    def _resampled(self, model: WordModel, chooser: WordModel) -> Sampler:
        """Texts whose prefixes are resampled as they grow."""

        def sample(temperature: float) -> tuple[Rollout, dict[str, float]]:
            generator = self._generator()
            particles = grow_particles(
                model.model,
                chooser.model,
                sampling=sampling_of(model, len(self.test), temperature=temperature),
                num_particles=PARTICLES,
                block_size=BLOCK,
                discriminator_temperature=temperature,
                generator=generator,
                batch_size=500,
            )
            metrics = {
                "effective_candidates": float(particles.effective_sample_size.mean()),
                "resamplings": float(particles.num_resampled.float().mean()),
            }
            return particles.sample(generator), metrics

        return sample

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed + 7)

    def _point(self, samples: Rollout, metrics: dict[str, float]) -> dict[str, float]:
        # BLEU of nothing is not defined.
        found = self._metrics([text or ["."] for text in words_of(samples, self.vocabulary)])
        return found | {"entropy": float(-samples.logps.sum() / samples.completion_mask.sum())} | metrics

    def _metrics(self, texts: Sequence[Sequence[str]]) -> dict[str, float]:
        """Quality and diversity of texts against the held-out ones."""
        found = classifier_test(self.test, texts, tfidf_scores, seed=self.seed)
        return {
            "bleu5": float(ngram_bleu(texts, self.test, (5,)).mean()),
            "self_bleu5": float(self_bleu(texts, (5,)).mean()),
            "auc": found["auc"],
        }


if __name__ == "__main__":
    start(main)
