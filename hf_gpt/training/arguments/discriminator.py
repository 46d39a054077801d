"""Options: the discriminator. Imports nothing heavy: `--help` reads the class."""

from dataclasses import dataclass
from typing import Any, Literal

from hf_gpt.option_values import option, parse_mapping


@dataclass
class DiscriminatorArguments:
    """What tells real from generated texts."""

    _argument_group_name = "discriminator"

    discriminator: str = option(
        "from_generator",
        "from_generator: the generator's trunk with a new head; all of it if the loss needs a language "
        "model. ngram_cnn, ngram_cnn-seqgan: a new convolutional network. language_model: a new GPT. Else a "
        "checkpoint folder or Hub id with one label. none: self-play.",
    )
    discriminator_preset: str = option("nano", "Size of --discriminator language_model, as --preset.")
    discriminator_overrides: str | None = option(
        None, "Config fields of a new discriminator, as classifier_dropout=0.1 or as JSON."
    )
    discriminator_trunk: Literal["own", "frozen", "detached", "joint"] = option(
        "own",
        "For --discriminator from_generator. own: a copy that is trained. frozen: a copy that is not. "
        "detached: the generator's own trunk, not trained by the discriminator. joint: trained by both.",
    )
    discriminator_lora_r: int = option(0, "Train an adapter of this rank on the discriminator; 0: its own weights.")

    @property
    def overrides(self) -> dict[str, Any]:
        """`discriminator_overrides` as a mapping; `ConfigError` where it is neither JSON nor `key=value` pairs."""
        return parse_mapping(self.discriminator_overrides, "discriminator_overrides")
