"""The discriminator of `hf-gpt adversarial`, as the options name it."""

import copy
from typing import TYPE_CHECKING

from hf_gpt.errors import ConfigError, UserError
from hf_gpt.training.arguments.discriminator import DiscriminatorArguments
from hf_gpt.training.arguments.model import ModelArguments


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hf_gpt.adversarial.config import AdversarialConfig


def build_discriminator(
    model: "PreTrainedModel",
    discriminator_args: DiscriminatorArguments,
    model_args: ModelArguments,
    tokenizer: "PreTrainedTokenizerBase",
    longest: int,
    training_args: "AdversarialConfig",
) -> "PreTrainedModel | None":
    """The discriminator that the options name; None for a run without one.

    Args:
        model: The generator.
        discriminator_args: Kind, preset and fields of the discriminator.
        model_args: Whether code of a checkpoint may run.
        tokenizer: The generator's.
        longest: Most tokens of a prompt and a completion together.
        training_args: Loss and seed.

    Raises:
        ConfigError: there is no such kind, or the options do not go together.
    """
    import torch

    from hf_gpt.adversarial.discriminator.factory import make_discriminator
    from hf_gpt.adversarial.discriminator.shared_trunk import shared_discriminator

    kind, is_language_model = discriminator_args.discriminator, training_args.has_language_model
    trunk, overrides = discriminator_args.discriminator_trunk, discriminator_args.overrides
    if kind == "none" or not training_args.needs_discriminator:
        return None
    torch.manual_seed(training_args.seed + 1)
    if trunk != "own" and (kind != "from_generator" or is_language_model):
        raise ConfigError(f"--discriminator_trunk {trunk} is for a classifier with --discriminator from_generator.")
    if kind == "from_generator":
        if is_language_model:
            return copy.deepcopy(model)
        return (
            make_discriminator(kind, model, **overrides)
            if trunk == "own"
            else shared_discriminator(model, trunk, **overrides)
        )
    if kind == "language_model" and not is_language_model:
        raise ConfigError(
            "--discriminator language_model has no label: set --discriminator_loss density or mediator, or choose "
            "from_generator or ngram_cnn."
        )
    if kind.partition("-")[0] != "ngram_cnn":
        return _load_or_build(model, discriminator_args, model_args, tokenizer, longest, training_args)
    from hf_gpt.models.configuration_hf_ngram_cnn import HfNgramCnnConfig
    from hf_gpt.training.model import check_fields

    check_fields(HfNgramCnnConfig, overrides)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    return make_discriminator(kind, model, **{**ids, **overrides})


def _load_or_build(
    model,
    discriminator_args: DiscriminatorArguments,
    model_args: ModelArguments,
    tokenizer,
    longest: int,
    training_args,
) -> "PreTrainedModel":
    """A new language model, or a checkpoint with the head that the loss needs."""
    from hf_gpt.adversarial.discriminator.factory import make_discriminator
    from hf_gpt.generation.embeddings import vocabulary_size
    from hf_gpt.training.model import build_model

    kind, is_language_model = discriminator_args.discriminator, training_args.has_language_model
    is_new = kind == "language_model"
    chosen = ModelArguments(
        model_name_or_path=None if is_new else kind,
        preset=discriminator_args.discriminator_preset if is_new else None,
        trust_remote_code=model_args.trust_remote_code,
        config_overrides=discriminator_args.discriminator_overrides,
    )
    head = "AutoModelForCausalLM" if is_language_model else "AutoModelForSequenceClassification"
    fields = {"vocab_size": vocabulary_size(model)} if is_language_model else {"num_labels": 1}
    try:
        if not is_new and not is_language_model and has_other_tokenizer(chosen, tokenizer):
            options = {"trust_remote_code": model_args.trust_remote_code, **discriminator_args.overrides}
            return make_discriminator(kind, model, processing_class=tokenizer, **options)
        if not is_new:
            check_saved_tokens(chosen, tokenizer)
        return build_model(chosen, tokenizer, longest, training_args.seed + 1, auto_class=head, task_fields=fields)
    except UserError as error:
        if is_new:
            raise
        # The loader names the generator's option.
        what = str(error).removeprefix("--model_name_or_path: ")
        raise ConfigError(
            f"--discriminator {kind}: {what} Built in: from_generator, ngram_cnn, ngram_cnn-seqgan, language_model, "
            "none."
        ) from error


def has_other_tokenizer(chosen: ModelArguments, tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether a checkpoint comes with a tokenizer that is not the generator's."""
    from hf_gpt.files.checkpoints import find_model
    from hf_gpt.generation.scoring.shared_tokens import saved_tokenizer, tokenizer_difference

    own = saved_tokenizer(find_model(chosen.model_name_or_path))
    return own is not None and tokenizer_difference(own, tokenizer) is not None


def check_saved_tokens(chosen: ModelArguments, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Refuses a saved discriminator that reads other tokens than the generator's, before it is loaded or resized.

    Raises:
        ConfigError: it has another tokenizer, or fewer embeddings than the generator's has tokens.
    """
    from transformers import AutoConfig, AutoTokenizer

    from hf_gpt.files.checkpoints import find_model
    from hf_gpt.generation.scoring.shared_tokens import TokensError, check_shared_tokens

    path = find_model(chosen.model_name_or_path)
    source = {"revision": chosen.model_revision, "trust_remote_code": chosen.trust_remote_code}
    try:
        own = AutoTokenizer.from_pretrained(path, **source)
    except (OSError, ValueError, KeyError):
        own = None
    try:
        if own is not None:
            check_shared_tokens(None, None, tokenizer, own)
        size = AutoConfig.from_pretrained(path, **source).get_text_config().vocab_size
    except TokensError as error:
        raise ConfigError(str(error)) from error
    except (OSError, ValueError, AttributeError):
        # Whoever loads it says what is wrong with it.
        return
    if size < len(tokenizer):
        raise ConfigError(
            f"it reads {size:,} tokens, and the generator's tokenizer has {len(tokenizer):,}: it has another "
            "tokenizer. Train one with the generator's own (hf-gpt discriminator)."
        )
