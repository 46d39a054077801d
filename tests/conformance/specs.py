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
LSTM_SIZES = {name: size for name, size in SIZES.items() if "head" not in name and "position" not in name}
LSTM_SIZES["intermediate_size"] = 40

# The head that writes stands where the causal one does for decoders.
SEQ2SEQ_HEADS = {
    "base_model_class": "HfGptSeq2SeqModel",
    "seq2seq_lm_class": "HfGptForConditionalGeneration",
    "sequence_classification_class": "HfGptSeq2SeqForSequenceClassification",
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
    sizes: dict[str, Any] = field(default_factory=lambda: SIZES)
    class_names: dict[str, str] = field(default_factory=dict)
    reference_name: str = "llama"

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
        names = self.class_names or {head: self.prefix + suffix for head, suffix in HEADS.items()}
        every = dict.fromkeys((*HEADS, *SEQ2SEQ_HEADS))
        return every | {head: getattr(module, name) for head, name in names.items() if head in self.heads}

    @property
    def is_encoder_decoder(self) -> bool:
        return "seq2seq_lm_class" in self.heads

    def build_config(self, **overrides: Any) -> Any:
        return self.config_class(**{**self.sizes, **self.options, **overrides})


def ours(name: str, heads: tuple[str, ...] = tuple(HEADS), **options: Any) -> Spec:
    """A spec of our classes. Its residual projections start random: zeros would hide what attention and MLP do."""
    return Spec(name, {"output_projection_init": "normal", **options}, heads)


def seq2seq(name: str, **options: Any) -> Spec:
    """A spec of our encoder-decoder, which is held against BART."""
    return Spec(
        name,
        {"output_projection_init": "normal", **options},
        tuple(SEQ2SEQ_HEADS),
        prefix="HfGptSeq2Seq",
        class_names=SEQ2SEQ_HEADS,
        reference_name="bart",
    )


def lstm(name: str, **options: Any) -> Spec:
    """A spec of our LSTM."""
    heads = tuple(head for head in HEADS if head != "question_answering_class")
    return Spec(name, options, heads, prefix="HfLstm", sizes=LSTM_SIZES)


LLAMA = Spec("llama", package="transformers", prefix="Llama")
BART = Spec(
    "bart",
    {
        "vocab_size": 99,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 37,
        "decoder_ffn_dim": 37,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
    },
    ("base_model_class", "seq2seq_lm_class"),
    package="transformers",
    prefix="Bart",
    sizes={},
    class_names={"base_model_class": "BartModel", "seq2seq_lm_class": "BartForConditionalGeneration"},
    reference_name="bart",
)
REFERENCES = {spec.name: spec for spec in (LLAMA, BART)}

SPECS = (
    *REFERENCES.values(),
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
    seq2seq("seq2seq"),
    seq2seq(
        "seq2seq_untied",
        share_encoder_decoder_embeddings=False,
        tie_word_embeddings=False,
        num_key_value_heads=2,
        hidden_act="silu",
        is_gated_act=True,
    ),
    seq2seq("seq2seq_separate", share_encoder_decoder_embeddings=False, position_embedding_type="learned"),
    lstm("lstm"),
    lstm("lstm_untied", tie_word_embeddings=False, final_logit_softcapping=10.0),
    lstm("lstm_plain", num_decoder_layers=0, intermediate_size=32, lstm_init="normal", initializer_range=0.5),
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
