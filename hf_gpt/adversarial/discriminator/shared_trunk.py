"""A discriminator on the generator's own trunk: a head that reads the hidden states of the language model it judges."""

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
    """The generator's trunk as it is now, read without gradient and without dropout.

    The trunk is not a part of this module: its weights belong to the generator, with its optimizer and its checkpoint.
    """

    def __init__(self, trunk: PreTrainedModel):
        super().__init__()
        # Not as a submodule.
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

    - "frozen": the trunk as it is now, which neither player changes. f stays where it is, so what the head has learnt
      of old fakes holds for new ones, and a generator that collapses does not take its judge along. Costs the memory
      of the trunk, without gradients and optimizer state.
    - "detached": the trunk as it is at each moment. Costs no memory; f moves whenever the generator does, so the head
      needs more updates, and it knows no more of the language than the generator.
    - "joint": the trunk learns from the discriminator's loss too (as RARO, arXiv:2511.21667, where the critic's share
      is a ninth): lower `discriminator_learning_rate`, and watch the warning of forgetting.

    The default is the one whose failures are seen: with a moving f the training discriminator and one trained afresh
    part company without either being wrong.

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
        position = DetachedTrunk(own) if trunk == "detached" else own
        setattr(discriminator, discriminator.base_model_prefix, position)
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
    """Refuses what a trunk with two owners cannot do.

    Args:
        generator, discriminator: The players.
        num_processes: Of the run.
        reads_embeddings: Whether gradients have to flow through the discriminator into its inputs.
        has_adapter: Whether either player gets an adapter.
        is_sharded: Whether weights are in shards over the processes.

    Raises:
        ConfigError: it does.
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
        raise ConfigError(f"an adapter would change the {kind} trunk under both players. {remedy}")
    if joint and num_processes > 1:
        raise ConfigError(
            f"a joint trunk works in one process alone: two wrappers would reduce its gradients. {remedy}"
        )
    if is_sharded:
        raise ConfigError(f"a {kind} trunk cannot be in shards, whose gathering belongs to the generator. {remedy}")


def whole_state(discriminator: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state of a discriminator with that of a detached trunk, so that what is saved opens by itself."""
    trunk = shared_trunk(discriminator)
    if trunk is None:
        return state
    prefix = discriminator.base_model_prefix
    return state | {f"{prefix}.{name}": tensor.detach() for name, tensor in trunk.state_dict().items()}
