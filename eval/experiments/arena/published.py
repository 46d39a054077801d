"""GAD and GRGC as published, by `AdversarialTrainer`: rows of the arena."""

from typing import Any

from eval.experiments.common.adversarial import read_recipe


RECIPES = {"GAD": "gad", "GRGC": "grgc"}
# What of a recipe is the method; the rest is sizes and data.
METHOD = [
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
]


def method(name: str) -> dict[str, Any]:
    """Options of a published method, from its recipe."""
    return read_recipe(RECIPES[name], only=METHOD)
