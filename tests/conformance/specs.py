"""One tiny configuration for each architecture option, and the reference that they are held against."""

import importlib
from dataclasses import dataclass, field
from typing import Any


HEADS = {
    "base_model_class": "Model",
    "causal_lm_class": "ForCausalLM",
    "sequence_classification_class": "ForSequenceClassification",
    "token_classification_class": "ForTokenClassification",
    "question_answering_class": "ForQuestionAnswering",
}
WITHOUT_CAUSAL_LM = tuple(head for head in HEADS if head != "causal_lm_class")

# The odd vocabulary and inner size do not divide by the number of ranks: sharding has to cope.
SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@dataclass(frozen=True)
class Spec:
    """A model family with one set of options."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    heads: tuple[str, ...] = tuple(HEADS)
    package: str = "hf_gpt"
    prefix: str = "HfGpt"
    has_attentions: bool = True

    @property
    def title(self) -> str:
        """Name of its test class."""
        return "".join(part.capitalize() for part in self.name.split("_"))

    @property
    def config_class(self) -> type:
        return getattr(importlib.import_module(self.package), f"{self.prefix}Config")

    @property
    def classes(self) -> dict[str, type | None]:
        """The model class of every head, by the name that the testers use; None where the spec has none."""
        module = importlib.import_module(self.package)
        return {
            head: getattr(module, self.prefix + suffix) if head in self.heads else None
            for head, suffix in HEADS.items()
        }

    def build_config(self, **overrides: Any) -> Any:
        return self.config_class(**{**SIZES, **self.options, **overrides})


def ours(name: str, heads: tuple[str, ...] = tuple(HEADS), **options: Any) -> Spec:
    """A spec of our classes. Its residual projections start random: zeros would hide what attention and MLP do."""
    return Spec(name, {"output_projection_init": "normal", **options}, heads)


REFERENCE = Spec("llama", package="transformers", prefix="Llama")

SPECS = (
    REFERENCE,
    Spec("default"),
    ours(
        "gpt2_like",
        position_embedding_type="learned",
        norm_type="layernorm",
        norm_eps=1e-5,
        hidden_act="gelu_new",
        use_qk_norm=False,
        attention_bias=True,
        mlp_bias=True,
        tie_word_embeddings=True,
        output_projection_init="scaled",
    ),
    ours(
        "llama_like",
        hidden_act="silu",
        is_gated_act=True,
        use_qk_norm=False,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    ),
    ours(
        "qwen3_like",
        hidden_act="silu",
        is_gated_act=True,
        use_qk_norm=True,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=False,
    ),
    ours(
        "tied",
        hidden_act="silu",
        is_gated_act=True,
        use_qk_norm=False,
        attention_bias=True,
        attention_out_bias=False,
        tie_word_embeddings=True,
    ),
    ours(
        "sliding_window",
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=4,
        tie_word_embeddings=False,
    ),
    ours(
        "rope_scaled",
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        },
        tie_word_embeddings=False,
    ),
    ours("no_positions", position_embedding_type="none", tie_word_embeddings=False),
    ours("softcap", final_logit_softcapping=10.0, logit_scale=2.0, chunked_loss="always", tie_word_embeddings=False),
    ours("bidirectional", WITHOUT_CAUSAL_LM, is_causal=False, classifier_pooling="mean"),
    ours(
        "discriminator",
        ("base_model_class", "sequence_classification_class"),
        num_labels=1,
        classifier_pooling="attention",
        classifier_hidden_size=16,
        classifier_spectral_norm=True,
    ),
    Spec(
        "ngram_cnn",
        {"embedding_size": 32, "kernel_sizes": [1, 2, 4], "num_highway_layers": 1, "num_hidden_layers": 1},
        ("base_model_class", "sequence_classification_class"),
        prefix="HfNgramCnn",
        has_attentions=False,
    ),
)

BY_NAME = {spec.name: spec for spec in SPECS}
BY_TITLE = {spec.title: spec for spec in SPECS}
