"""A discriminator on the generator's trunk: a head over the hidden states of the language model that it scores."""

from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_gpt.adversarial.discriminator.model import discriminator_from_generator
from hf_gpt.errors import ConfigError
from hf_gpt.generation.scoring.discriminator import evaluating


TrunkKind = Literal["frozen", "detached", "joint"]
TRUNK_KINDS: tuple[str, ...] = ("frozen", "detached", "joint")


class DetachedTrunk(nn.Module):
    """The generator's present trunk, read without gradient and without dropout.

    Its weights are no part of this module: they belong to the generator's optimizer and checkpoint.
    """

    def __init__(self, trunk: PreTrainedModel):
        super().__init__()
        # A tuple, so that it is no submodule.
        self._trunk = (trunk,)

    @property
    def trunk(self) -> PreTrainedModel:
        """The generator's."""
        return self._trunk[0]

    @property
    def config(self) -> Any:
        return self.trunk.config

    def get_input_embeddings(self) -> nn.Module:
        """The generator's."""
        return self.trunk.get_input_embeddings()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad(), evaluating(self.trunk):
            return self.trunk(*args, **kwargs)


def shared_discriminator(
    generator: PreTrainedModel, trunk: TrunkKind = "frozen", **config_overrides: Any
) -> PreTrainedModel:
    """A discriminator D(x) = sigmoid(W^T f(x) + b) whose f is the generator's trunk.

    - "frozen": a copy of the present trunk, which nothing changes. What the head has learned stays valid, even if the
      generator collapses. Costs the memory of the trunk, without gradients and optimizer state.
    - "detached": the generator's trunk at each moment. Costs no memory. f moves with the generator, so the head needs
      more updates.
    - "joint": the discriminator's loss trains the generator's trunk too, as in RARO (arXiv:2511.21667), with a weight
      of 1/9. Lower `discriminator_learning_rate`, and look out for the alert of forgetting.

    With the default, failures show: with a moving f, discriminator and C2ST may disagree without either being wrong.

    Args:
        generator: A causal language model without adapter.
        trunk: As above.
        config_overrides: Fields of the discriminator's config, such as `classifier_pooling` or
            `classifier_hidden_size`.

    Returns:
        A model with one label; whole texts and, with a causal trunk, every prefix.

    Raises:
        ConfigError: the generator is an encoder-decoder, has an adapter, or there is no such kind of trunk.
    """
    if trunk not in TRUNK_KINDS:
        raise ConfigError(f"trunk must be one of {', '.join(TRUNK_KINDS)}, got {trunk!r}.")
    if generator.config.is_encoder_decoder:
        raise ConfigError(
            "a discriminator cannot share the trunk of an encoder-decoder, which reads prompt and completion apart. "
            "Use discriminator_from_generator(model)."
        )
    if hasattr(generator, "peft_config"):
        raise ConfigError(
            "make the shared discriminator from the model without its adapter, and give the adapter as peft_config."
        )
    discriminator = discriminator_from_generator(generator, **config_overrides)
    if trunk == "frozen":
        discriminator.base_model.requires_grad_(False)
    else:
        own = generator.base_model
        setattr(discriminator, discriminator.base_model_prefix, DetachedTrunk(own) if trunk == "detached" else own)
    return discriminator


def shared_trunk(discriminator: nn.Module) -> PreTrainedModel | None:
    """The trunk that a detached discriminator reads; None if it has one of its own."""
    base = getattr(discriminator, getattr(discriminator, "base_model_prefix", ""), None)
    return base.trunk if isinstance(base, DetachedTrunk) else None


def is_joint(generator: nn.Module, discriminator: nn.Module) -> bool:
    """Whether the discriminator's optimizer has weights of the generator."""
    own = {id(parameter) for parameter in generator.parameters()}
    return any(id(parameter) in own for parameter in discriminator.parameters())


def check_shared_trunk(
    generator: PreTrainedModel,
    discriminator: PreTrainedModel,
    *,
    num_processes: int,
    reads_embeddings: bool,
    has_adapter: bool,
    is_sharded: bool,
) -> None:
    """Refuses what does not work with a shared trunk.

    Args:
        generator, discriminator: The two models.
        num_processes: Of the run.
        reads_embeddings: Whether gradients have to flow through the discriminator into its inputs.
        has_adapter: Whether either model gets an adapter.
        is_sharded: Whether weights are in shards over the processes.

    Raises:
        ConfigError: the arguments ask for it.
    """
    trunk, joint = shared_trunk(discriminator), is_joint(generator, discriminator)
    if trunk is None and not joint:
        return
    kind, remedy = ("joint" if joint else "detached"), 'Use shared_discriminator(model, "frozen").'
    if trunk is not None and trunk is not generator.base_model:
        raise ConfigError(f"the discriminator's detached trunk is that of another model than the generator. {remedy}")
    if reads_embeddings:
        raise ConfigError(
            f"Gumbel samples and gradient penalties would train the {kind} trunk by both losses. {remedy}"
        )
    if has_adapter:
        raise ConfigError(f"an adapter would change the {kind} trunk of both models. {remedy}")
    if joint and num_processes > 1:
        raise ConfigError(
            f"a joint trunk works in one process alone: two wrappers would reduce its gradients. {remedy}"
        )
    if is_sharded:
        raise ConfigError(f"a {kind} trunk cannot be sharded: the generator gathers its shards. {remedy}")


def whole_state(discriminator: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state of a discriminator including a detached trunk, so that a saved one can be loaded by itself."""
    trunk = shared_trunk(discriminator)
    if trunk is None:
        return state
    prefix = discriminator.base_model_prefix
    return state | {f"{prefix}.{name}": tensor.detach() for name, tensor in trunk.state_dict().items()}
