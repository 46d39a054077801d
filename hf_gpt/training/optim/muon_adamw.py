"""Muon and AdamW behind one optimizer, and AdamW where the library cannot build it for us."""

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from hf_gpt.errors import ConfigError
from hf_gpt.training.distributed.sharding import is_mixed
from hf_gpt.training.optim.muon import Muon
from hf_gpt.training.training_arguments import HfGptTrainingArguments


class MuonAdamW(torch.optim.Optimizer):
    """Muon for groups of 2-D parameters and `torch.optim.AdamW` for everything else, as one optimizer.

    `param_groups` holds the groups of both, AdamW's first, each with its own `lr`, so a schedule scales all of them by
    one factor. The two share this optimizer's groups and state, hence `state_dict` is that of a plain optimizer.
    """

    def __init__(self, muon_groups: list[dict[str, Any]], adamw_groups: list[dict[str, Any]]):
        muon_groups = [{**group, "use_muon": True} for group in muon_groups if group["params"]]
        adamw_groups = [{**group, "use_muon": False} for group in adamw_groups if group["params"]]
        self._muon = Muon(muon_groups, adjust_lr_fn="match_rms_adamw") if muon_groups else None
        self._adamw = torch.optim.AdamW(adamw_groups, **adamw_kernel(adamw_groups)) if adamw_groups else None
        groups = [group for part in (self._adamw, self._muon) if part is not None for group in part.param_groups]
        super().__init__(groups, defaults={})
        self._share()

    def _share(self) -> None:
        for part, uses_muon in ((self._muon, True), (self._adamw, False)):
            if part is not None:
                part.param_groups = [group for group in self.param_groups if group["use_muon"] is uses_muon]
                part.state = self.state

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_muon": self._muon, "_adamw": self._adamw}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # load_state_dict puts new groups and a new state in place of the shared ones.
        self._share()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group; `use_muon` in it says whose it is, AdamW's if it does not say."""
        known = getattr(self, "_muon", None), getattr(self, "_adamw", None)
        owner = known[0] if param_group.setdefault("use_muon", False) else known[1]
        if owner is not None:
            for name, value in owner.defaults.items():
                param_group.setdefault(name, value)
        super().add_param_group(param_group)
        if "state" in self.__dict__:
            self._share()

    @torch.no_grad()
    def step(self, closure=None):
        """One step of both; `closure` is evaluated once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in (self._muon, self._adamw):
            if part is not None:
                part.step()
        return loss


def parameter_roles(model: nn.Module) -> dict[str, str]:
    """The role of every trainable parameter, by name.

    - `"embedding"`: token and position embeddings, and a head tied to them;
    - `"hidden"`: 2-D weights inside the base model, which Muon trains;
    - `"matrix"`: other weights of two or more dimensions: heads, convolutions, stacked experts;
    - `"vector"`: biases, norms and scalars.
    """
    embeddings = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    base_model = getattr(model, "base_model", model)
    inside = {id(parameter) for parameter in base_model.parameters()}
    get_head = getattr(model, "get_output_embeddings", None)
    head = get_head() if get_head is not None else None
    heads = set() if head is None else {id(parameter) for parameter in head.parameters()}

    roles = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in embeddings:
            roles[name] = "embedding"
        elif dimensions(parameter) < 2:
            roles[name] = "vector"
        elif dimensions(parameter) == 2 and id(parameter) in inside and id(parameter) not in heads:
            roles[name] = "hidden"
        else:
            roles[name] = "matrix"
    return roles


def dimensions(parameter: nn.Parameter) -> int:
    """Of the whole tensor: in shards of DeepSpeed ZeRO-3 a parameter itself has one, and is empty."""
    return len(getattr(parameter, "ds_shape", parameter.shape))


def decayed_parameter_names(model: nn.Module) -> list[str]:
    """Names of the parameters that weight decay applies to: hidden and other matrices, no embedding and no vector."""
    return [name for name, role in parameter_roles(model).items() if role in ("hidden", "matrix")]


def build_optimizer(
    model: nn.Module, args: HfGptTrainingArguments, decayed: Collection[str]
) -> torch.optim.Optimizer | None:
    """Muon with AdamW, or AdamW for a tensor-parallel model; None where the library builds the optimizer.

    `decayed` names the parameters that decay.

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


def build_muon_adamw(
    model: nn.Module,
    *,
    learning_rate: float,
    muon_learning_rate: float | None = None,
    weight_decay: float = 0.0,
    momentum: float = 0.95,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
) -> MuonAdamW:
    """The optimizer of a model, grouped by `parameter_roles`.

    Args:
        model: What is trained.
        learning_rate, betas, eps: Of AdamW.
        muon_learning_rate, momentum: Of Muon, whose updates are scaled to AdamW's size
            (https://arxiv.org/abs/2502.16982); None takes `learning_rate`.
        weight_decay: Of matrices; embeddings and vectors have none.
    """
    roles = parameter_roles(model)
    by_role: dict[str, list[nn.Parameter]] = {"embedding": [], "hidden": [], "matrix": [], "vector": []}
    for name, parameter in model.named_parameters():
        if name in roles:
            by_role[roles[name]].append(parameter)
    adamw = {"lr": learning_rate, "betas": betas, "eps": eps}
    return MuonAdamW(
        muon_groups=[
            {
                "params": by_role["hidden"],
                "lr": learning_rate if muon_learning_rate is None else muon_learning_rate,
                "momentum": momentum,
                "weight_decay": weight_decay,
            }
        ],
        adamw_groups=[
            {"params": by_role["embedding"] + by_role["vector"], "weight_decay": 0.0, **adamw},
            {"params": by_role["matrix"], "weight_decay": weight_decay, **adamw},
        ],
    )


def adamw_kernel(groups: list[dict[str, Any]]) -> dict[str, bool | None]:
    """Options of PyTorch's AdamW: fused where it can, one parameter after the other where only some are in shards."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    if is_mixed(parameters):
        return {"foreach": False}
    fits = all(p.device.type in ("cpu", "cuda", "xpu", "mps") and torch.is_floating_point(p) for p in parameters)
    return {"fused": True if fits else None}
