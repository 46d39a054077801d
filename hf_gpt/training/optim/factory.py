"""The optimizers that the library cannot build for us."""

from collections.abc import Collection

import torch
from torch import nn

from hf_gpt.errors import ConfigError
from hf_gpt.training.optim.muon_adamw import build_muon_adamw
from hf_gpt.training.training_arguments import HfGptTrainingArguments


def build_optimizer(
    model: nn.Module, args: HfGptTrainingArguments, decayed: Collection[str]
) -> torch.optim.Optimizer | None:
    """Muon with AdamW, or AdamW for a tensor-parallel model; None where the library builds the optimizer.

    Args:
        model: Whose parameters are trained.
        args: Learning rates and settings.
        decayed: Names of the parameters that decay.

    Raises:
        ConfigError: `--optim` does not work with tensor parallelism.
    """
    betas = (args.adam_beta1, args.adam_beta2)
    if args.optimizer == "muon":
        return build_muon_adamw(
            model,
            learning_rate=args.learning_rate,
            muon_learning_rate=args.muon_learning_rate,
            weight_decay=args.weight_decay,
            momentum=args.muon_momentum,
            betas=betas,
            eps=args.adam_epsilon,
        )
    if args.tensor_parallel_size == 1:
        return None
    # The library would group parameters by their sharding, and another number of processes could not resume.
    if not args.optim.startswith("adamw_torch"):
        raise ConfigError(f"--optim {args.optim} does not work with tensor parallelism. Leave it out.")
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for name, parameter in trained if (name in decayed) is decays],
            "weight_decay": args.weight_decay if decays else 0.0,
        }
        for decays in (True, False)
    ]
    return torch.optim.AdamW(groups, foreach=False, lr=args.learning_rate, betas=betas, eps=args.adam_epsilon)
