"""One seed of the arena: what its arms share, each arm's training with its cost, and the measurement of its student."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from eval.experiments.arena.curves import points_of, temperature_at
from eval.experiments.arena.learned_ratio import LearnedRatio
from eval.experiments.arena.ledger import Cost, Ledger
from eval.experiments.arena.settings import CEILINGS, JSD_ARMS, LIKELIHOOD, PUBLISHED, STATIC, Settings, file_name
from eval.experiments.arena.stage import BEGIN, caption_rows, make_model, train_teacher
from eval.experiments.common.adversarial import make_trainer, method_of
from eval.experiments.common.random_language import sample_texts
from eval.experiments.common.results import Results, kept_model
from eval.experiments.known_answer import perfect_ratio
from eval.experiments.known_answer.perfect_ratio import Sample, Stage
from hf_gpt.adversarial.discriminator.model import discriminator_from_generator
from hf_gpt.evaluation.language_model.fitting import seeded
from hf_gpt.evaluation.statistics.divergences import compare_densities
from hf_gpt.evaluation.two_sample.auc_interval import auc
from hf_gpt.evaluation.two_sample.classifier_test import classifier_test
from hf_gpt.evaluation.two_sample.tfidf_classifier import tfidf_scores
from hf_gpt.generation.sampling.rollout import Rollout


class World:
    """A seed, of samples, weights and order; the teacher is the same for all. A folder keeps the models."""

    def __init__(self, settings: Settings, seed: int, folder: Path):
        self.settings, self.seed, self.folder = settings, seed, folder

    # What the arms share

    @cached_property
    def teacher(self) -> PreTrainedModel:
        s = self.settings
        model = make_model(s.vocab_size, s.length, *s.teacher)

        def train() -> dict[str, Any]:
            rows = caption_rows(s.vocab_size, s.length)
            trained = train_teacher(rows, s.vocab_size, s.teacher, s.teacher_epochs, s.teacher_learning_rate)
            model.load_state_dict(trained.state_dict())
            return {}

        kept_model(self.folder / "teacher.pt", model, train)
        model.config.logit_scale = s.sharpness
        return model.requires_grad_(False)

    @cached_property
    def texts(self) -> Rollout:
        """The teacher's samples to learn from."""
        return self._sample(self.teacher, self.settings.num_train, position=1)

    @cached_property
    def validation(self) -> Rollout:
        return self._sample(self.teacher, self.settings.num_validation, position=2)

    @cached_property
    def evaluation(self) -> Rollout:
        return self._sample(self.teacher, self.settings.num_evaluation, position=3)

    @cached_property
    def _classified(self) -> Rollout:
        return self._sample(self.teacher, self.settings.num_classified, position=5)

    def _sample(self, model: PreTrainedModel, count: int, temperature: float = 1.0, position: int = 4) -> Rollout:
        return sample_texts(model, count, self.settings.length, 10 * self.seed + position, temperature)

    @cached_property
    def start(self) -> tuple[PreTrainedModel, Cost]:
        """The student after maximum likelihood, from which all arms go on."""
        s = self.settings
        model = make_model(s.vocab_size, s.length, *s.student, seed=self.seed)
        train = partial(self._likelihood, model, s.likelihood_steps, s.likelihood_learning_rate)
        return self._kept("start", model, train)

    @cached_property
    def psi(self) -> tuple[PreTrainedModel, Cost]:
        """A larger language model of the teacher's samples."""
        s = self.settings
        model = make_model(s.vocab_size, s.length, *s.psi, seed=self.seed + 100)
        return self._kept("psi", model, partial(self._likelihood, model, s.psi_steps, s.psi_learning_rate))

    def _kept(
        self, name: str, model: PreTrainedModel, train: Callable[[], tuple[PreTrainedModel, Cost]]
    ) -> tuple[PreTrainedModel, Cost]:
        def trained() -> dict[str, Any]:
            found, cost = train()
            model.load_state_dict(found.state_dict())
            return asdict(cost)

        record = kept_model(self.folder / f"seed{self.seed}" / f"{name}.pt", model, trained)
        return model, Cost(record["flops"], record["seconds"])

    # The arms

    def student(self, arm: str, others: Cost) -> tuple[PreTrainedModel, Cost]:
        """The student of an arm, trained unless its file is there, and what it cost with all that it builds on.

        Maximum likelihood is given the cost of the dearest of the `others`.
        """
        model = copy.deepcopy(self.start[0])
        return self._kept(file_name(arm), model, lambda: self._train(arm, others))

    def _train(self, arm: str, others: Cost) -> tuple[PreTrainedModel, Cost]:
        if arm == LIKELIHOOD:
            return self._long_likelihood(others)
        start, cost = self.start
        if arm in PUBLISHED:
            student, own = self._published(arm, start)
        elif arm in CEILINGS:
            student, own = self._against(self.teacher, start, is_jsd=arm in JSD_ARMS)
        else:
            psi, psi_cost = self.psi
            student, own = self._against(copy.deepcopy(psi), start, learns=arm != STATIC, is_jsd=arm in JSD_ARMS)
            cost = cost + psi_cost
        return student, cost + own

    def _likelihood(
        self, model: PreTrainedModel, steps: int, learning_rate: float, seed: int | None = None
    ) -> tuple[PreTrainedModel, Cost]:
        """A copy trained on texts, stopped where held-out likelihood is best: sequence-level distillation.

        Source: Kim & Rush 2016, arXiv:1606.07947, with samples in place of beams.
        """
        s, best = self.settings, (math.inf, {})

        def validate(step: int, model: PreTrainedModel, _: Sample | None) -> None:
            nonlocal best
            if step % max(1, steps // 10) == 0 or step == steps:
                nll = self._held_out_nll(model)
                if nll < best[0]:
                    best = nll, copy.deepcopy(model.state_dict())

        # Nobody pays for the teacher's samples.
        ledger, stage, _ = Ledger(), Stage(model, self.texts, s.length), self.validation
        order = self.seed if seed is None else seed
        with ledger.watching(model):
            trained = perfect_ratio.train(model, stage, steps, s.batch_size, learning_rate, order, on_step=validate)
        trained.load_state_dict(best[1])
        return trained, ledger.cost

    def _long_likelihood(self, others: Cost) -> tuple[PreTrainedModel, Cost]:
        """Maximum likelihood for as many CPU-seconds as the dearest arm, and on to its FLOPs while that gains."""
        s = self.settings
        (student, cost), rounds = self.start, 0
        nll, stalls = self._held_out_nll(student), False
        while cost.seconds < others.seconds or (cost.flops < others.flops and not stalls):
            rounds += 1
            longer, more = self._likelihood(
                student, s.more_likelihood_steps, s.likelihood_learning_rate / 2, seed=self.seed + 1000 * rounds
            )
            found = self._held_out_nll(longer)
            cost, stalls = cost + more, found > nll - s.least_improvement
            if found < nll:
                student, nll = longer, found
        return student, cost

    @torch.no_grad()
    def _held_out_nll(self, model: PreTrainedModel) -> float:
        return perfect_ratio.likelihood(model, self.validation).item()

    def _against(
        self, language: PreTrainedModel, start: PreTrainedModel, learns: bool = False, is_jsd: bool = False
    ) -> tuple[PreTrainedModel, Cost]:
        """Exact token gradient against a density, sampled for what follows, with the likelihood as anchor."""
        s, ledger, texts = self.settings, Ledger(), self.texts
        ratio = LearnedRatio(language, texts, s.ratio_learning_rate, s.ratio_weight, self.seed + 1) if learns else None

        def after(step: int, model: PreTrainedModel, sample: Sample | None) -> None:
            if ratio is not None and step % s.ratio_every == 0:
                ratio.update(model, sample)

        with ledger.watching(start, language):
            student = perfect_ratio.train(
                start,
                Stage(language, texts, s.length),
                s.adversarial_steps,
                s.adversarial_batch_size,
                s.adversarial_learning_rate,
                self.seed,
                estimator=perfect_ratio.exact_divergence("jsd", s.jsd_beta)
                if is_jsd
                else perfect_ratio.exact_and_future,
                anchor=s.jsd_anchor if is_jsd else s.anchor,
                on_step=after,
            )
        return student, ledger.cost

    def _published(self, name: str, start: PreTrainedModel) -> tuple[PreTrainedModel, Cost]:
        s, ledger = self.settings, Ledger()
        with seeded(self.seed):
            discriminator = discriminator_from_generator(start)
        settings = {
            **method_of(name.lower()),
            "max_steps": s.published_warmup + s.published_steps,
            "discriminator_warmup_steps": s.published_warmup,
            "discriminator_warmup_auc": 1.0,
            "per_device_train_batch_size": s.adversarial_batch_size,
            "max_new_tokens": s.length,
            "learning_rate": s.published_learning_rate,
            "discriminator_learning_rate": s.published_discriminator_learning_rate,
            "monitor_steps": 10**9,
            "seed": self.seed,
        }
        # The first token of a row is what its text is sampled after.
        rows = [{"input_ids": [BEGIN, *row]} for row in self.texts.completions.tolist()]
        trainer = make_trainer(copy.deepcopy(start), discriminator, rows, settings=settings)
        with ledger.watching(trainer.model, trainer.discriminator):
            trainer.train()
        return trainer.model.eval(), ledger.cost

    # Measurement

    def measure(self, arms: Sequence[str], results: Results) -> dict[str, Any]:
        """Cost and curve of each arm, maximum likelihood last, and then the held-out classifier's view of them."""
        found: dict[str, Any] = {}
        for arm in sorted(arms, key=lambda arm: arm == LIKELIHOOD):
            found[arm] = dict(results.point(self.seed, arm, lambda arm=arm: self._measured(arm, found)))
        for arm in arms if LIKELIHOOD in arms else ():
            name = f"{arm}, held-out classifier"
            found[arm] |= results.point(self.seed, name, lambda arm=arm: {"fresh": self._judged(arm, found)})
        return found

    def _measured(self, arm: str, others: Mapping[str, Any]) -> dict[str, Any]:
        """Cost of an arm, given the results of those before it; estimates in nats a text at each temperature."""
        spent = [Cost(**result["cost"]) for result in others.values()]
        student, cost = self.student(arm, max(spent, key=lambda cost: cost.flops, default=Cost()))
        curve = []
        s = self.settings
        for temperature in s.likelihood_temperatures if arm == LIKELIHOOD else s.temperatures:
            texts = self._sample(student, s.num_evaluation, temperature)
            found = compare_densities(self.teacher, student, self.evaluation, texts, temperature)
            estimates = {name: asdict(estimate) for name, estimate in found.estimates.items()}
            perfect = auc(found.data_scores.numpy(), found.model_scores.numpy())
            curve.append({"temperature": temperature, **estimates, "perfect_auc": perfect})
        return {"cost": asdict(cost), "curve": curve}

    def _judged(self, arm: str, results: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The held-out classifier on an arm at its temperatures, and on maximum likelihood at the same entropies."""
        baseline = points_of(results[LIKELIHOOD], self.settings.length)
        student, likeliest = (self.student(name, Cost())[0] for name in (arm, LIKELIHOOD))
        found = []
        for point in points_of(results[arm], self.settings.length):
            t = point.temperature
            own = self.fresh_auc(student, t)
            matched = t if arm == LIKELIHOOD else temperature_at(baseline, point.entropy)
            other = None if matched is None else own if arm == LIKELIHOOD else self.fresh_auc(likeliest, matched)
            found.append({"temperature": t, "arm": own, "baseline": other, "baseline_temperature": matched})
        return found

    def fresh_auc(self, model: PreTrainedModel, temperature: float) -> dict[str, float | int]:
        """Two-sample test by n-grams and logistic regression, learned on half of the texts, judged on the others."""
        texts = self._sample(model, self.settings.num_classified, temperature)
        return classifier_test(_as_words(self._classified), _as_words(texts), tfidf_scores, seed=self.seed)


def _as_words(texts: Rollout) -> list[list[str]]:
    return [[str(token) for token in row] for row in texts.completions.tolist()]
