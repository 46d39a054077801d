"""Any `nn.Module` as a discriminator: what the trainer asks of a Transformers model, around a plain one."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_gpt.errors import ConfigError
from hf_gpt.generation.embeddings import vocabulary_size


class ModuleDiscriminatorConfig(PreTrainedConfig):
    """Config of a `ModuleDiscriminator`: one label, and the number of token ids that the module reads."""

    model_type = "hf_gpt_module_discriminator"

    def __init__(self, vocab_size: int = 0, num_labels: int = 1, **kwargs: Any):
        self.vocab_size = vocab_size
        super().__init__(num_labels=num_labels, **kwargs)


class ModuleDiscriminator(PreTrainedModel):
    """A module as a sequence classifier with one label.

    `save_pretrained` writes the module's weights under `module.`. To load them, make the module again, wrap it and call
    `load_state_dict`.

    Args:
        config: The number of token ids.
        module: Called with `input_ids` (B, T) and, if its `forward` has the argument, `attention_mask` (B, T). Returns
            logits of being real, (B,) or (B, 1), or an object with such `logits`.
    """

    config_class = ModuleDiscriminatorConfig
    base_model_prefix = "module"

    def __init__(self, config: ModuleDiscriminatorConfig, module: nn.Module):
        super().__init__(config)
        self.module = module
        parameters = inspect.signature(module.forward).parameters.values()
        self._takes_mask = any(
            parameter.name == "attention_mask" or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters
        )

    def get_input_embeddings(self) -> nn.Module:
        """The module's first `nn.Embedding`; without one the module, whose vocabulary is the config's."""
        return next(_embeddings(self.module), self.module)

    def forward(self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None):
        """Logits (B, 1) of being real.

        Raises:
            ConfigError: the module returns something else than one logit for each text.
        """
        mask = {"attention_mask": attention_mask} if self._takes_mask else {}
        output = self.module(input_ids, **mask)
        logits = getattr(output, "logits", output)
        if not isinstance(logits, torch.Tensor) or logits.shape not in ((len(input_ids),), (len(input_ids), 1)):
            found = f"shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise ConfigError(
                f"the discriminator {type(self.module).__name__} returned {found} for {len(input_ids)} texts. Return "
                "one logit for each text: a tensor of shape (texts,) or (texts, 1), or an object with such logits."
            )
        return SequenceClassifierOutput(logits=logits.reshape(-1, 1))


def as_discriminator(discriminator: Any, generator: PreTrainedModel) -> PreTrainedModel | None:
    """A discriminator as a Transformers model: itself if it is one, else the module in a `ModuleDiscriminator`.

    Args:
        discriminator: A model, a module or None.
        generator: Its vocabulary is assumed where the module has no `nn.Embedding`.

    Raises:
        ConfigError: it is none of these.
    """
    if discriminator is None or hasattr(discriminator, "config"):
        return discriminator
    if not isinstance(discriminator, nn.Module):
        raise ConfigError(
            f"discriminator is a {type(discriminator).__name__}. Give a model or an nn.Module that returns one logit "
            "for each text. A function that scores texts goes to reward_funcs."
        )
    embedding = next(_embeddings(discriminator), None)
    size = vocabulary_size(generator) if embedding is None else embedding.num_embeddings
    return ModuleDiscriminator(ModuleDiscriminatorConfig(vocab_size=size), discriminator)


def _embeddings(module: nn.Module) -> Iterator[nn.Embedding]:
    return (part for part in module.modules() if isinstance(part, nn.Embedding))
