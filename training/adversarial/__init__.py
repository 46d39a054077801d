"""Generator against discriminator: losses, estimators, monitors and the trainer."""

from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from hf_gpt.training.adversarial.config import AdversarialConfig
    from hf_gpt.training.adversarial.discriminator import discriminator_from_generator
    from hf_gpt.training.adversarial.shared_trunk import shared_discriminator
    from hf_gpt.training.adversarial.trainer import AdversarialTrainer

__all__ = ["AdversarialConfig", "AdversarialTrainer", "discriminator_from_generator", "shared_discriminator"]


def __getattr__(name: str) -> Any:
    # The losses alone need no trainer, and `--help` no PyTorch.
    modules = {
        "AdversarialConfig": "config",
        "AdversarialTrainer": "trainer",
        "shared_discriminator": "shared_trunk",
    }
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{modules.get(name, 'discriminator')}"), name)
