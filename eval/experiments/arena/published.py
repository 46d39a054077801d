"""GAD and GRGC as published, by `AdversarialTrainer`: rows of the arena."""

import copy
import tempfile
from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel, TrainerCallback

from eval.experiments.arena.stage import BEGIN
from eval.experiments.common.quiet import QUIET
from hf_gpt.generation.sampling.rollout import Rollout
from hf_gpt.training import settings as recipes


RECIPES = {"GAD": "gad", "GRGC": "grgc"}
# What of a recipe is the method; the rest is sizes and data.
METHOD = (
    "estimator",
    "reward",
    "group_size",
    "temperature",
    "baseline",
    "advantage_scale",
    "advantage_min_std",
    "advantage_clip",
    "advantage_power",
    "normalization",
    "beta",
    "lambda_mle",
    "gate_auc",
    "max_grad_norm",
    "discriminator_loss",
    "discriminator_steps",
    "replay_fraction",
    "calibration_weight",
)


def method(name: str) -> dict[str, Any]:
    """Options of a published method, from its recipe."""
    import yaml

    path = recipes.ADVERSARIAL_RECIPES / f"{RECIPES[name]}.yaml"
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {key: recipe[key] for key in METHOD if key in recipe}


def make_trainer(
    name: str,
    student: PreTrainedModel,
    texts: Rollout,
    steps: int,
    warmup_steps: int,
    batch_size: int,
    learning_rate: float,
    discriminator_learning_rate: float,
    seed: int,
    on_step: Callable[[], Any] = lambda: None,
) -> Any:
    """An `AdversarialTrainer` of a copy of the student, its critic begun as another.

    Args:
        name: "GAD" or "GRGC".
        student: After likelihood training.
        texts: Real texts.
        steps: Updates of the student.
        warmup_steps: Updates of the critic before them.
        batch_size: Texts in an update.
        learning_rate, discriminator_learning_rate: Constant.
        seed: Of all that is drawn.
        on_step: Called after every step.
    """
    from hf_gpt.adversarial.config import AdversarialConfig
    from hf_gpt.adversarial.discriminator.model import discriminator_from_generator
    from hf_gpt.adversarial.trainer import AdversarialTrainer
    from hf_gpt.evaluation.language_model.fitting import seeded

    class Progress(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            on_step()

    with seeded(seed):
        critic = discriminator_from_generator(student)
    arguments = AdversarialConfig(
        output_dir=tempfile.mkdtemp(prefix="arena-"),
        max_steps=warmup_steps + steps,
        discriminator_warmup_steps=warmup_steps,
        discriminator_warmup_auc=1.0,
        per_device_train_batch_size=batch_size,
        max_new_tokens=texts.completions.shape[1],
        learning_rate=learning_rate,
        discriminator_learning_rate=discriminator_learning_rate,
        monitor_steps=10**9,
        num_eval_samples=0,
        on_collapse="warn",
        **QUIET,
        use_cpu=True,
        seed=seed,
        **method(name),
    )
    # The first token of a row is what its text is drawn after.
    rows = [{"input_ids": [BEGIN, *row]} for row in texts.completions.tolist()]
    return AdversarialTrainer(
        model=copy.deepcopy(student),
        discriminator=critic,
        args=arguments,
        train_dataset=rows,
        callbacks=[Progress()],
    )
