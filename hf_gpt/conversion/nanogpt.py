"""The settings of nanoGPT (https://github.com/karpathy/nanoGPT, `model.py`) as an `HfGptConfig`."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from hf_gpt.errors import ConversionError
from hf_gpt.models.configuration_hf_gpt import HfGptConfig


_FIELDS = {
    "vocab_size": "vocab_size",
    "block_size": "max_position_embeddings",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_embd": "hidden_size",
}


def nanogpt_config(settings: Mapping[str, Any]) -> tuple[HfGptConfig, list[str]]:
    """The configuration for `model_args` of a checkpoint, and notes on what was assumed.

    Raises:
        ConversionError: a setting is missing or is no number that can work.
    """
    if missing := [name for name in _FIELDS if not isinstance(settings.get(name), int)]:
        raise ConversionError(f"'model_args' of this nanoGPT checkpoint have no whole number for {', '.join(missing)}.")
    has_bias, dropout = bool(settings.get("bias", True)), settings.get("dropout", 0.0)
    try:
        config = HfGptConfig(
            **{ours: settings[theirs] for theirs, ours in _FIELDS.items()},
            position_embedding_type="learned",
            norm_type="layernorm",
            norm_eps=1e-5,
            norm_bias=has_bias,
            attention_bias=has_bias,
            mlp_bias=has_bias,
            use_qk_norm=False,
            # The exact GELU, as in nanoGPT since its use of torch.compile.
            hidden_act="gelu",
            hidden_dropout=dropout,
            attention_dropout=dropout,
        )
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise ConversionError(
            f"'model_args' of this nanoGPT checkpoint make no model: {error.__cause__ or error}"
        ) from error
    return config, ["hidden_act is taken to be the exact gelu; nanoGPT before June 2023 used gelu_new"]
