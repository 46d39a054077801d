"""Options: the model that a training command starts from. Imports nothing heavy: `--help` reads the class."""

from dataclasses import dataclass
from typing import Any, Literal

from hf_gpt.option_values import option, parse_mapping


@dataclass
class ModelArguments:
    """Which model is trained: a new one of a given shape, or one that exists already."""

    _argument_group_name = "model"

    model_name_or_path: str | None = option(
        None, "Start from these weights: a checkpoint folder or a Hub id. Left out: a new model."
    )
    model_revision: str = option("main", "Branch, tag or commit of a Hub id.")
    trust_remote_code: bool = option(False, "Run model code that comes with the checkpoint. Only for code you trust.")
    model_type: str = option(
        "hf_gpt",
        "Architecture of a new model: hf_gpt, hf_gpt_seq2seq, hf_lstm, llama, gpt2, t5, ... (any type that "
        "AutoConfig knows).",
    )
    preset: str | None = option(
        None,
        "Named size of a new hf_gpt or hf_gpt_seq2seq model: nano, micro, mini, small, 124m, 350m, ... "
        "hf-gpt pretrain without a size, or with auto: one that fits the text and the machine.",
    )
    config_overrides: str | None = option(
        None,
        "Config fields as hidden_size=256,num_hidden_layers=6, as JSON or, in a recipe, as a mapping. They "
        "set a new model; pretrain and finetune change a loaded one too. The command line replaces single entries.",
    )
    attn_implementation: str | None = option(
        None, "Attention: eager, sdpa, flash_attention_2, flex_attention or a Hub kernel."
    )
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = option(
        "float32", "Type of the weights. --bf16 computes in bfloat16 over float32 weights."
    )
    pad_vocab_to_multiple_of: int = option(
        64, "Round a new model's vocabulary up to a multiple of this; faster on GPUs."
    )

    @property
    def overrides(self) -> dict[str, Any]:
        """`config_overrides` as a mapping; `ConfigError` where it is neither JSON nor `key=value` pairs."""
        return parse_mapping(self.config_overrides, "config_overrides")
