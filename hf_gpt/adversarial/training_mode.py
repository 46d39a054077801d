"""Whether a model computes in training what it computes in evaluation."""

from torch import nn

from hf_gpt import compat
from hf_gpt.models.pooling_hf_gpt import HfGptSpectralLinear


def is_alike_in_training(model: nn.Module) -> bool:
    """Whether a forward pass in training gives what one in evaluation gives, and leaves nothing behind."""
    changing = (compat.batch_norm_class(), HfGptSpectralLinear)
    return not has_dropout(model) and not any(isinstance(module, changing) for module in model.modules())


def has_dropout(model: nn.Module) -> bool:
    """Whether any layer drops something in training; what attention layers drop stands in the config."""
    layers = any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
    config = model.config.get_text_config()
    return layers or any(bool(getattr(config, name, 0)) for name in ("attention_dropout", "attn_pdrop", "dropout_rate"))
