"""The one place that makes a discriminator, for Python and the command line."""

from typing import Any

from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from hf_gpt.adversarial.discriminator.model import discriminator_from_generator
from hf_gpt.errors import ConfigError
from hf_gpt.files.checkpoints import find_existing_model
from hf_gpt.generation.embeddings import vocabulary_size
from hf_gpt.generation.scoring.shared_tokens import saved_tokenizer, tokenizer_difference
from hf_gpt.generation.scoring.texts import TextDiscriminator


def make_discriminator(
    kind: str,
    generator: PreTrainedModel,
    *,
    processing_class: PreTrainedTokenizerBase | None = None,
    trust_remote_code: bool = False,
    **config_overrides: Any,
) -> PreTrainedModel:
    """An untrained discriminator for a generator's tokens.

    Args:
        kind: `"from_generator"`: a copy of the generator's trunk, which knows the language. `"ngram_cnn"`: a small
            untrained n-gram CNN, the quickest on little data. `"ngram_cnn-seqgan"`: the same with SeqGAN's widths. Or
            the folder or Hub id of a pretrained model, such as BERT or ModernBERT, which gets a new head unless it has
            one with one label. With a tokenizer of its own it reads whole texts, see [`TextDiscriminator`].
        generator: The generator.
        processing_class: The generator's tokenizer, for a pretrained model. None: the one saved with the generator.
        trust_remote_code: Whether code that comes with a pretrained model may be run.
        config_overrides: Fields of its config.

    Raises:
        ConfigError: there is no such kind or model, or no head for the generator's architecture.
    """
    if kind == "from_generator":
        return discriminator_from_generator(generator, **config_overrides)
    if kind == "generator":
        raise ConfigError("the discriminator 'generator' is now called from_generator.")
    name, _, preset = kind.partition("-")
    if name != "ngram_cnn" or preset not in ("", "small", "seqgan"):
        return _pretrained(kind, generator, processing_class, trust_remote_code, config_overrides)
    from hf_gpt.models.configuration_hf_ngram_cnn import HfNgramCnnConfig
    from hf_gpt.models.modeling_hf_ngram_cnn import HfNgramCnnForSequenceClassification

    config = generator.config.get_text_config()
    ids = {f"{token}_token_id": getattr(config, f"{token}_token_id", None) for token in ("bos", "eos", "pad")}
    size = vocabulary_size(generator)
    fields = {"vocab_size": size, "num_labels": 1, "classifier_dropout": 0.25, **ids, **config_overrides}
    model = HfNgramCnnForSequenceClassification(HfNgramCnnConfig.preset(preset or "small", **fields))
    return model.to(generator.device)


def _pretrained(
    name_or_path: str,
    generator: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase | None,
    trust_remote_code: bool,
    overrides: dict[str, Any],
) -> PreTrainedModel:
    """A pretrained model with one label, as a reader of the generator's tokens or of its texts."""
    try:
        path = find_existing_model(name_or_path)
        options = {"trust_remote_code": trust_remote_code}
        model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1, **overrides, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        # The library refuses weights of another shape by this kind of error alone.
        why = "its head has several labels." if isinstance(error, RuntimeError) else str(error).splitlines()[0]
        raise ConfigError(
            f"there is no discriminator {name_or_path!r}: {why} Use from_generator, ngram_cnn, ngram_cnn-seqgan, or "
            "the folder or Hub id of a model with one label or without a head."
        ) from error
    model, tokenizer = model.to(generator.device), saved_tokenizer(path)
    if tokenizer is None:
        # It reads the generator's tokens; whoever trains it checks that it can.
        return model
    if processing_class is None and generator.name_or_path:
        processing_class = saved_tokenizer(generator.name_or_path)
    if processing_class is None:
        raise ConfigError(
            "a discriminator with a tokenizer of its own reads the generator's texts, which needs the generator's "
            "tokenizer: give it as processing_class."
        )
    if tokenizer_difference(tokenizer, processing_class) is None:
        return model
    return TextDiscriminator(model, tokenizer, processing_class, vocabulary_size(generator))
