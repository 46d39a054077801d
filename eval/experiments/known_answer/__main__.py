"""
Does adversarial training move a generator closer to its data when the answer is known? The data comes from a random
LSTM whose density is exact, so the discriminator can be perfect and every divergence measured.

    python -m eval.experiments.known_answer --seeds 0 1 2 --output_dir runs/known_answer

gain       vocabulary 32, length 10: KL(q || p) of each estimator against maximum likelihood at its best temperature
collapse   vocabulary 64, length 20: without an anchor the generator collapses and the monitors say so; with one it
           does not
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from eval.experiments.common.command import make_parser, start
from eval.experiments.common.random_language import sample_texts
from eval.experiments.common.results import Results
from eval.experiments.known_answer import perfect_ratio
from eval.experiments.known_answer.perfect_ratio import Sample, Stage
from eval.experiments.known_answer.report import write_report
from hf_gpt.adversarial.monitoring import diagnostics
from hf_gpt.adversarial.monitoring.monitors import Monitors
from hf_gpt.evaluation.statistics.divergences import compare_densities
from hf_gpt.generation.sampling.rollout import Rollout


@dataclass(frozen=True)
class Settings:
    """One of the two experiments.

    Attributes:
        more_likelihood: Likelihood steps of `adversarial_batch` that the baseline gets for each adversarial step, so
            that it has no less compute.
        arms: Name to (estimator in `perfect_ratio` or None, weight of the likelihood anchor, learning rate).
    """

    vocab_size: int
    length: int
    sharpness: float
    arms: dict[str, tuple[str | None, float, float]]
    hidden_size: int = 16
    num_train: int = 10_000
    num_evaluation: int = 2000
    likelihood_steps: int = 1500
    likelihood_batch: int = 128
    likelihood_learning_rate: float = 1e-2
    adversarial_steps: int = 150
    adversarial_batch: int = 512
    more_likelihood: int = 4
    temperatures: tuple[float, ...] = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
    monitor_every: int = 0


MORE_LIKELIHOOD = "MLE, same compute"
EXPERIMENTS: dict[str, Settings] = {
    "gain": Settings(
        vocab_size=32,
        length=10,
        sharpness=1.25,
        arms={
            MORE_LIKELIHOOD: (None, 1.0, 5e-3),
            "REINFORCE": ("reinforce", 0.0, 1e-2),
            "exact token": ("exact_token", 0.0, 1e-2),
            "exact token + future": ("exact_and_future", 0.0, 1e-2),
            "JS reward": ("jensen_shannon", 0.0, 1e-2),
            "exact token + future, anchor": ("exact_and_future", 0.5, 1e-2),
        },
    ),
    "collapse": Settings(
        vocab_size=64,
        length=20,
        sharpness=1.3,
        arms={
            MORE_LIKELIHOOD: (None, 1.0, 5e-3),
            "REINFORCE": ("reinforce", 0.0, 3e-3),
            "REINFORCE, anchor": ("reinforce", 4.0, 3e-3),
        },
        likelihood_steps=1000,
        adversarial_steps=400,
        adversarial_batch=128,
        temperatures=(1.0, 0.9, 0.8, 0.7, 0.6),
        monitor_every=20,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__, "known_answer", "of language, texts, weights and order")
    names = list(EXPERIMENTS)
    parser.add_argument("--experiments", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--scale", type=float, default=1.0, help="of steps and numbers of texts, for a quick look")
    args = parser.parse_args(argv)
    # The models are too small for more threads to be of use.
    torch.set_num_threads(1)
    runs = Results(args.output_dir / "results.json", {**vars(args), **EXPERIMENTS}, ("experiments",))
    found = {
        name: [runs.point(seed, name, lambda name=name, seed=seed: run(name, seed, args.scale)) for seed in args.seeds]
        for name in args.experiments
    }
    print(write_report(found, args.output_dir))
    return 0


def scaled(settings: Settings, scale: float) -> Settings:
    """The same experiment with fewer steps and texts."""
    names = ("num_train", "num_evaluation", "likelihood_steps", "adversarial_steps")
    return replace(settings, **{name: max(4, round(scale * getattr(settings, name))) for name in names})


def run(name: str, seed: int, scale: float = 1.0) -> dict[str, Any]:
    """One seed of an experiment: all arms, measured; fit for JSON."""
    settings = scaled(EXPERIMENTS[name], scale)
    torch.manual_seed(seed)
    stage = perfect_ratio.make_stage(settings.vocab_size, settings.length, settings.sharpness, settings.num_train, seed)
    data_texts = sample_texts(stage.language, settings.num_evaluation, settings.length, seed + 1000)
    arms: dict[str, Any] = {}

    def run_arm(arm: str, model: nn.Module, history: History | None = None, **kwargs: Any) -> nn.Module:
        began = time.process_time()
        trained = perfect_ratio.train(model, stage, seed=seed, on_step=history, **kwargs)
        seconds = time.process_time() - began - (history.seconds if history else 0.0)
        # Temperature is the rival that adversarial training has to beat, so maximum likelihood gets all of it.
        temperatures = settings.temperatures if "estimator" not in kwargs else (1.0,)
        curve = [{"temperature": each, **measure(stage, trained, data_texts, seed, each)} for each in temperatures]
        arms[arm] = {"cpu_seconds": round(seconds, 1), "curve": curve}
        if history is not None:
            arms[arm] |= {"history": history.history, "warnings": history.first_warnings}
        return trained

    learnt = run_arm(
        "MLE",
        perfect_ratio.make_generator(settings.vocab_size, settings.length, settings.hidden_size),
        steps=settings.likelihood_steps,
        batch_size=settings.likelihood_batch,
        learning_rate=settings.likelihood_learning_rate,
    )
    for arm, (estimator, anchor, learning_rate) in settings.arms.items():
        history = History(stage, settings, seed) if settings.monitor_every and estimator else None
        if history is not None:
            history(0, learnt)
        adversarial = {"estimator": getattr(perfect_ratio, estimator), "anchor": anchor} if estimator else {}
        run_arm(
            arm,
            learnt,
            history,
            steps=settings.adversarial_steps * (1 if estimator else settings.more_likelihood),
            batch_size=settings.adversarial_batch,
            learning_rate=learning_rate,
            **adversarial,
        )
    return {"seed": seed, "settings": asdict(settings), "arms": arms}


def measure(
    stage: Stage, model: nn.Module, data_texts: Rollout, seed: int, temperature: float
) -> dict[str, dict[str, float]]:
    """The divergences between the language and a model at a temperature, from as many of its texts as of the data."""
    texts = sample_texts(model, len(data_texts), stage.length, seed + 2000, temperature)
    found = compare_densities(stage.language, model, data_texts, texts, temperature)
    return {name: asdict(value) for name, value in found.estimates.items()}


class History:
    """The monitors over one arm. The discriminator is perfect, so it is also what one trained afresh would become."""

    def __init__(self, stage: Stage, settings: Settings, seed: int):
        self.stage, self.seed, self.every = stage, seed, settings.monitor_every
        self.monitors = Monitors()
        self.data = sample_texts(stage.language, settings.num_evaluation // 4, stage.length, seed + 3000)
        self.real = repetition(self.data)
        self.history: list[dict[str, float]] = []
        self.first_warnings: dict[str, int] = {}
        self.seconds = 0.0

    def __call__(self, step: int, model: nn.Module, _: Sample | None = None) -> None:
        if step % self.every:
            return
        began = time.process_time()
        texts = sample_texts(model, len(self.data), self.stage.length, self.seed + 4000 + step)
        comparison = compare_densities(self.stage.language, model, self.data, texts)
        found = {name: estimate.value for name, estimate in comparison.estimates.items()}
        auc = diagnostics.auc(comparison.data_scores, comparison.model_scores)
        values = {
            "heldout_auc": auc,
            "fresh_auc": auc,
            "entropy": found["entropy_q"],
            "data_entropy": found["entropy_p"],
            "oracle_nll": found["nll_oracle"],
            "heldout_nll": found["nll_test"],
            **repetition(texts),
            **{f"real_{name}": value for name, value in self.real.items()},
        }
        for warning in self.monitors.update(step, **values):
            self.first_warnings.setdefault(warning.name, step)
        self.history.append({"step": step, "kl_qp": found["kl_qp"], "jsd": found["jsd"]} | values)
        self.seconds += time.process_time() - began


def repetition(texts: Rollout) -> dict[str, float]:
    """What the monitors are told about repeated texts and passages."""
    rows = diagnostics.unpadded(texts.completions, texts.completion_mask)
    return {
        "distinct_ngrams": diagnostics.distinct_ngrams(rows, 3),
        "duplicate_rate": diagnostics.duplicate_rate(rows),
        "repetition_rate": diagnostics.repetition_rate(rows),
    }


if __name__ == "__main__":
    start(main)
