"""The one place that makes a discriminator, for Python and the command line."""

from typing import Any

from transformers import PreTrainedModel

from hf_gpt.adversarial.discriminator.model import discriminator_from_generator
from hf_gpt.errors import ConfigError
from hf_gpt.generation.embeddings import vocabulary_size


def make_discriminator(kind: str, generator: PreTrainedModel, **config_overrides: Any) -> PreTrainedModel:
    """An untrained discriminator for a generator's tokens.

    Args:
        kind: `"from_generator"`: a copy of the generator's trunk, which knows the language. `"ngram_cnn"`: a small
            untrained n-gram CNN, the quickest on little data. `"ngram_cnn-seqgan"`: the same with SeqGAN's widths.
        generator: The generator.
        config_overrides: Fields of its config.

    Raises:
        ConfigError: there is no such kind, or no head for the generator's architecture.
    """
    if kind == "from_generator":
        return discriminator_from_generator(generator, **config_overrides)
    if kind == "generator":
        raise ConfigError("the discriminator 'generator' is now called from_generator.")
    name, _, preset = kind.partition("-")
    if name != "ngram_cnn" or preset not in ("", "small", "seqgan"):
        raise ConfigError(f"there is no discriminator {kind!r}: use from_generator, ngram_cnn or ngram_cnn-seqgan.")
    from hf_gpt.models.configuration_hf_ngram_cnn import HfNgramCnnConfig
    from hf_gpt.models.modeling_hf_ngram_cnn import HfNgramCnnForSequenceClassification

    config = generator.config.get_text_config()
    ids = {f"{token}_token_id": getattr(config, f"{token}_token_id", None) for token in ("bos", "eos", "pad")}
    size = vocabulary_size(generator)
    fields = {"vocab_size": size, "num_labels": 1, "classifier_dropout": 0.25, **ids, **config_overrides}
    model = HfNgramCnnForSequenceClassification(HfNgramCnnConfig.preset(preset or "small", **fields))
    return model.to(generator.device)
