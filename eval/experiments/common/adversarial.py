"""Training arguments of an experiment, and adversarial training by the method of a recipe."""

import tempfile
from collections.abc import Callable, Collection, Sequence
from typing import Any

from transformers import PreTrainedModel, TrainerCallback


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


def read_recipe(name: str, only: Collection[str] | None = None, without: Collection[str] = ()) -> dict[str, Any]:
    """The options of a recipe of `hf-gpt adversarial`.

    Args:
        name: Of the recipe.
        only: The options that are taken, where the recipe has them. None: all.
        without: Those that are not.
    """
    import yaml

    from hf_gpt.training.settings import ADVERSARIAL_RECIPES

    options = yaml.safe_load((ADVERSARIAL_RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    return {key: options[key] for key in options if key not in without and (only is None or key in only)}


def make_trainer(
    model: PreTrainedModel,
    discriminator: PreTrainedModel,
    rows: Rows,
    held_out: Rows | None = None,
    *,
    settings: dict[str, Any],
    on_step: Callable[[], Any] = lambda: None,
    **parts: Any,
) -> Any:
    """An `AdversarialTrainer` on the CPU that keeps nothing on disk.

    Args:
        model, discriminator: Trained in place.
        rows, held_out: Real texts.
        settings: Of `AdversarialConfig`.
        on_step: Called after every step.
        parts: Further arguments of the trainer.
    """
    from hf_gpt.adversarial.config import AdversarialConfig
    from hf_gpt.adversarial.trainer import AdversarialTrainer

    class Progress(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            on_step()

    kept = {"output_dir": tempfile.mkdtemp(prefix="experiment-"), "use_cpu": True}
    arguments = AdversarialConfig(**kept, num_eval_samples=0, on_collapse="warn", **QUIET | settings)
    return AdversarialTrainer(
        model=model,
        discriminator=discriminator,
        args=arguments,
        train_dataset=rows,
        eval_dataset=held_out,
        callbacks=[Progress()],
        **parts,
    )
