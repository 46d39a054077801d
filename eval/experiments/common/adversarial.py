"""Training arguments of an experiment, and adversarial training by the method of a recipe."""

import tempfile
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import yaml
from transformers import PreTrainedModel

from hf_gpt.adversarial.config import AdversarialConfig
from hf_gpt.adversarial.trainer import AdversarialTrainer
from hf_gpt.training.settings import ADVERSARIAL_RECIPES
from hf_gpt.training.training_arguments import HfGptTrainingArguments


# Nothing is saved, evaluated or shown: an experiment keeps its own metrics.
QUIET = {
    "save_strategy": "no",
    "eval_strategy": "no",
    "logging_strategy": "no",
    "logging_first_step": False,
    "report_to": "none",
    "disable_tqdm": True,
}
Rows = Sequence[dict[str, list[int]]]


def read_recipe(name: str) -> dict[str, Any]:
    """The options of a recipe of `hf-gpt adversarial`."""
    return yaml.safe_load((ADVERSARIAL_RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))


def method_of(recipe: str) -> dict[str, Any]:
    """What of a recipe is the method: options of adversarial training alone, and of its updates.

    The rest is files, sizes, evaluation, and the warm-up of models that experiments have trained already.
    """
    own = {field.name for field in fields(AdversarialConfig)} - {field.name for field in fields(HfGptTrainingArguments)}
    own |= {"learning_rate", "max_grad_norm", "per_device_train_batch_size"}
    own -= {"max_new_tokens", "mle_warmup_steps", "distillation_warmup_steps"}
    return {name: value for name, value in read_recipe(recipe).items() if name in own}


def make_trainer(
    model: PreTrainedModel,
    discriminator: PreTrainedModel,
    rows: Rows,
    held_out: Rows | None = None,
    *,
    settings: dict[str, Any],
    **parts: Any,
) -> AdversarialTrainer:
    """An `AdversarialTrainer` of real texts on the CPU that keeps nothing on disk; `parts` are further arguments of it.

    Both models are trained in place. `settings` are those of `AdversarialConfig`.
    """
    kept = {"output_dir": tempfile.mkdtemp(prefix="experiment-"), "use_cpu": True}
    arguments = AdversarialConfig(**kept, num_eval_samples=0, on_collapse="warn", **QUIET | settings)
    return AdversarialTrainer(
        model=model,
        discriminator=discriminator,
        args=arguments,
        train_dataset=rows,
        eval_dataset=held_out,
        **parts,
    )
