"""What the library must see while a model is made ready or saved."""

import contextlib
from collections.abc import Iterator

from torch import nn

from hf_gpt.training.training_arguments import HfGptTrainingArguments


@contextlib.contextmanager
def saves_sharded_optimizer(args: HfGptTrainingArguments) -> Iterator[None]:
    """Inside, the library takes a model in shards, whose optimizer it cannot save but `HfGptTrainer` can."""
    former = args.save_only_model
    args.save_only_model = former or args.is_sharded
    try:
        yield
    finally:
        args.save_only_model = former


@contextlib.contextmanager
def generation_cache(model: nn.Module) -> Iterator[None]:
    """Inside, the config has the cache that Trainer switches off for training, without which a checkpoint is slow."""
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "use_cache"):
        yield
        return
    former, config.use_cache = config.use_cache, True
    try:
        yield
    finally:
        config.use_cache = former
