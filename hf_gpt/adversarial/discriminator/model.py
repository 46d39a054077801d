"""The discriminator as one module that scores texts, prefixes, embeddings or tokens, and checks of model pairs."""

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from hf_gpt import compat
from hf_gpt.errors import ConfigError
from hf_gpt.generation.embeddings import vocabulary_size
from hf_gpt.generation.sampling.rollout import check_positions
from hf_gpt.generation.sampling.shared_prompts import completion_positions
from hf_gpt.generation.scoring.discriminator import (
    accepted_arguments,
    check_discriminator,
    discriminator_logits,
    embedding_logits,
    has_causal_prefixes,
    prefix_logits,
)
from hf_gpt.generation.scoring.logprobs import completion_logits, unwrap
from hf_gpt.generation.scoring.shared_tokens import TokensError, check_shared_tokens
from hf_gpt.models.pooling_hf_gpt import HfGptSpectralLinear


# Commands have one of the two options of prompts.
_SHORTER = "Lower --max_new_tokens or --max_prompt_length (of windows: --prompt_tokens)."


class Scorer(nn.Module):
    """All ways to score with a discriminator behind one `forward`, so that distributed wrappers see each call.

    Args:
        model: A classifier with one label, or a language model.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def _no_split_modules(self) -> Any:
        # Sharding wraps blocks of these classes.
        return compat.block_classes(self.model)

    def forward(
        self,
        sequences: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        *,
        kind: str = "sequence",
        prompt_length: torch.Tensor | None = None,
        num_tokens: int | None = None,
        embeddings: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits, with gradient.

        Args:
            sequences: (B, T) int64, padded at the right.
            attention_mask: (B, T).
            kind: "sequence": (B,) of whole texts. "embeddings": the same from `embeddings` (B, T, d). "prefix": (B,
                `num_tokens` + 1), of the prompt and of the text up to each token of the completion. "token": (B,
                `num_tokens`, V), a language model's logits of each next token.
            prompt_length: (B,), for the last two; for whole texts it may save reading a prompt again.
            num_tokens: Tokens of the longest completion, for the last two.
            embeddings: In place of `sequences`.
        """
        if kind == "sequence":
            return discriminator_logits(self.model, sequences, attention_mask, prompt_length)
        if kind == "embeddings":
            return embedding_logits(self.model, embeddings, attention_mask)
        if kind == "token":
            return completion_logits(self.model, sequences, attention_mask, prompt_length, num_tokens)
        scores = prefix_logits(self.model, sequences, attention_mask)
        # Positions past the scores are padding in every text.
        positions = completion_positions(prompt_length - 1, num_tokens + 1, scores.shape[1])
        return scores.gather(1, positions)


def check_generator(
    generator: PreTrainedModel, *, largest_token: int, longest_prompt: int, max_new_tokens: int, samples: bool
) -> None:
    """Refuses a generator that cannot read the data, or write long enough texts.

    Args:
        generator: The generator.
        largest_token: Largest token id of the data.
        longest_prompt: Tokens of the longest prompt.
        max_new_tokens: Most tokens of a completion.
        samples: Whether `hf_gpt.generation.sampling.rollout` samples the texts.

    Raises:
        ConfigError: it cannot.
    """
    _check_tokens(generator, "generator", largest_token)
    if samples:
        try:
            check_positions(unwrap(generator), longest_prompt, max_new_tokens)
        except ValueError as error:
            raise ConfigError(f"{error} {_SHORTER}") from error


def check_pair(
    generator: PreTrainedModel,
    discriminator: PreTrainedModel,
    *,
    largest_token: int,
    longest: int,
    is_language_model: bool,
    reads_prefixes: bool,
    reads_embeddings: bool,
    needs_bound: bool = False,
    tokenizer: Any = None,
    discriminator_tokenizer: Any = None,
) -> None:
    """Refuses two models that cannot be trained against each other.

    Args:
        generator: The generator.
        discriminator: The classifier or language model.
        largest_token: Largest token id of the data.
        longest: Tokens of the longest text.
        is_language_model: Whether the discriminator is to be a language model.
        reads_prefixes: Whether it has to score every prefix.
        reads_embeddings: Whether it has to take embeddings in place of tokens.
        needs_bound: Whether its loss is unbounded unless its layers bound its slope.
        tokenizer, discriminator_tokenizer: Those of the two; see `check_shared_tokens`.

    Raises:
        ConfigError: labels, vocabularies, lengths or abilities that do not fit.
    """
    name = type(discriminator).__name__
    if is_language_model:
        if "ForCausalLM" not in name and not hasattr(discriminator, "generate"):
            raise ConfigError(f"--discriminator_loss mediator and density need a causal language model, got {name}.")
    else:
        try:
            check_discriminator(discriminator)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if discriminator is generator:
            raise ConfigError("generator and discriminator are one object. Use discriminator_from_generator(model).")
    sizes = [vocabulary_size(model) for model in (generator, discriminator)]
    _check_tokens(generator, "generator", largest_token)
    _check_tokens(discriminator, "discriminator", largest_token)
    try:
        check_shared_tokens(generator, discriminator, tokenizer, discriminator_tokenizer)
    except TokensError as error:
        raise ConfigError(str(error)) from error
    if is_language_model and sizes[0] != sizes[1]:
        raise ConfigError(
            f"the generator writes {sizes[0]} tokens, the discriminator reads {sizes[1]}: both need one tokenizer. Use "
            "model.resize_token_embeddings, or discriminator_from_generator(model)."
        )
    limit = getattr(discriminator.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and longest > limit:
        raise ConfigError(f"texts have up to {longest} tokens, but {name} reads {limit}. {_SHORTER}")
    if reads_prefixes and not has_causal_prefixes(_bare(discriminator)):
        raise ConfigError(
            f"--reward_level prefix: {name} does not score every prefix in one pass. Use --reward_level sequence, or a "
            "causal discriminator: HfGpt, the n-gram CNN or a decoder such as Llama."
        )
    if reads_embeddings and "inputs_embeds" not in accepted_arguments(discriminator):
        raise ConfigError(
            f"{name} takes no inputs_embeds, which Gumbel samples and gradient penalties need. Use another "
            "discriminator or estimator."
        )
    if needs_bound and not _is_spectrally_normalised(discriminator):
        raise ConfigError(
            "--discriminator_loss wasserstein falls without end if the discriminator's slope is unbounded: set "
            "--gradient_penalty_weight (10 as published), which works with --reward_level sequence, or apply "
            "torch.nn.utils.parametrizations.spectral_norm to every layer of it. Or use hinge."
        )


def discriminator_from_generator(generator: PreTrainedModel, **config_overrides: Any) -> PreTrainedModel:
    """A discriminator D(x) = sigmoid(W^T f(x) + b) whose f begins as the generator's trunk, which knows the language.

    Args:
        generator: A causal language model of any architecture that has a sequence classification head; of one with an
            adapter, the model inside.
        config_overrides: Fields of the discriminator's config, such as `classifier_dropout`.

    Returns:
        A model with one label. The trunk is a copy; the head's weights are new, from PyTorch's random state.

    Raises:
        ConfigError: the architecture has no such head.
    """
    generator = _bare(generator)
    config = copy.deepcopy(generator.config)
    for name, value in {"num_labels": 1, "architectures": None, **config_overrides}.items():
        setattr(config, name, value)
    if not compat.has_sequence_classifier(type(config)):
        raise ConfigError(
            f"there is no sequence classification head for {config.model_type}. Give a discriminator of another kind."
        )
    if config.pad_token_id is None and isinstance(config.eos_token_id, int):
        config.pad_token_id = config.eos_token_id
    discriminator = AutoModelForSequenceClassification.from_config(config, dtype=generator.dtype)
    found = discriminator.base_model.load_state_dict(generator.base_model.state_dict(), strict=False)
    if found.unexpected_keys or found.missing_keys:
        raise ConfigError(
            f"the trunk of {type(generator).__name__} does not fit into {type(discriminator).__name__}: "
            f"{[*found.missing_keys, *found.unexpected_keys][:3]}."
        )
    return discriminator.to(generator.device)


def _bare(model: nn.Module) -> nn.Module:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _is_spectrally_normalised(model: nn.Module) -> bool:
    layers = [module for module in model.modules() if isinstance(module, (nn.Linear, compat.convolution_class()))]
    return all(isinstance(layer, HfGptSpectralLinear) or _has_spectral_norm(layer) for layer in layers)


def _has_spectral_norm(layer: nn.Module) -> bool:
    found = layer.parametrizations["weight"] if is_parametrized(layer, "weight") else ()
    return any(isinstance(parametrization, compat.spectral_norm_class()) for parametrization in found)


def _check_tokens(model: nn.Module, who: str, largest_token: int) -> None:
    size = vocabulary_size(model)
    if largest_token >= size:
        raise ConfigError(
            f"the data contain token {largest_token}, but the {who} has {size} embeddings: it belongs to another "
            "tokenizer."
        )
