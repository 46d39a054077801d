"""Weights in shards over processes, by tensor parallelism and FSDP2, as Transformers shards a model while it loads it.

Transformers shards from a checkpoint, each process reading its part. So the model, however it was made, is written to a
temporary folder of the machine and read back. The shards are `torch.distributed.tensor.DTensor`.
"""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from accelerate import ParallelismConfig
from accelerate.utils import fsdp2_canonicalize_names
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from hf_gpt import compat
from hf_gpt.errors import CheckpointError, ConfigError


if TYPE_CHECKING:
    from hf_gpt.training.training_arguments import HfGptTrainingArguments


class CpuParallelismConfig(ParallelismConfig):
    """Accelerate's sizes of parallelism, which it holds possible on accelerators alone; gloo serves on a CPU."""

    def _validate_accelerator(self, accelerator: Any) -> None:
        """Nothing: the training arguments have checked the sizes."""


def shard_model(model: PreTrainedModel, training_args: "HfGptTrainingArguments") -> PreTrainedModel:
    """The whole model with its weights in shards as the arguments ask; raises `ConfigError` where that cannot be."""
    if not training_args.is_sharded:
        return model
    config = distributed_config(model, training_args)
    former = model.config.dtype
    folder = shared_folder(training_args)
    try:
        model.save_pretrained(folder, is_main_process=training_args.local_process_index == 0)
        dist.barrier()
        options = {"dtype": model.dtype, "attn_implementation": compat.attention_implementation(model.config)}
        sharded = type(model).from_pretrained(folder, distributed_config=config, **options)
        sharded.generation_config = getattr(model, "generation_config", None)
        sharded.config.dtype = former
        dist.barrier()
    except ValueError as error:
        raise ConfigError(f"{type(model).__name__} cannot be sharded like this: {error}") from error
    finally:
        if training_args.local_process_index == 0:
            shutil.rmtree(folder, ignore_errors=True)
    return sharded


def distributed_config(model: PreTrainedModel, training_args: "HfGptTrainingArguments") -> Any:
    """Transformers' description of the shards; raises `ConfigError` where model or library cannot do this."""
    try:
        from transformers.distributed import DistributedConfig
    except ImportError as error:
        raise ConfigError(
            "--tensor_parallel_size and --fsdp_size need a newer Transformers: 5.23 can do it."
        ) from error
    sizes: dict[str, Any] = {"tp_size": training_args.tensor_parallel_size, "fsdp_size": training_args.fsdp_size}
    if training_args.tensor_parallel_size > 1 and not compat.tensor_parallel_plan(model):
        raise ConfigError(f"{type(model).__name__} has no plan for tensor parallelism. Use --accelerate fsdp2.")
    if training_args.fsdp_size > 1 and not any("*" in name for name in compat.fsdp_plan(model) or {}):
        blocks = {
            re.sub(r"\.\d+(?=\.|$)", ".*", name)
            for name, module in model.named_modules()
            if type(module).__name__ in (compat.block_classes(model) or ())
        }
        if not blocks:
            raise ConfigError(f"{type(model).__name__} names no blocks (_no_split_modules) to shard. Use ddp.")
        sizes["fsdp_plan"] = dict.fromkeys(sorted(blocks), "free_full_weight")
    return DistributedConfig(**sizes)


def shard_in_place(module: torch.nn.Module, blocks: Iterable[str], device_type: str) -> None:
    """Shards a module that is in memory, and the same in every process, by FSDP2 over all processes.

    Its `forward` gathers each block of a class in `blocks` by itself, and the rest as one more.
    """
    mesh, names = init_device_mesh(device_type, (dist.get_world_size(),)), set(blocks)
    for inner in module.modules():
        if type(inner).__name__ in names:
            fully_shard(inner, mesh=mesh)
    fully_shard(module, mesh=mesh, reshard_after_forward=True)


def reshard(model: torch.nn.Module) -> None:
    """Frees what forward passes have gathered and no backward pass has freed.

    A pass without gradients before a step of the optimizer would leave the next one weights from before the step.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def named_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Parameters by the names that they have in a model of which Accelerate has not wrapped any blocks."""
    return fsdp2_canonicalize_names(dict(model.named_parameters()))


def own_class(model: torch.nn.Module) -> contextlib.AbstractContextManager[Any]:
    """Inside, a model in shards is of the class that `fully_shard` derived one from, whose code a checkpoint carries.

    The library would copy PyTorch's code into the checkpoint, and name a class of it in `auto_map`.
    """
    return compat.saved_as(model, _sharded_class(model) if isinstance(model, FSDPModule) else type(model))


def keep_name(model: torch.nn.Module) -> None:
    """Lets a model in shards call itself by the name that it had before, by which the library knows how it is trained.

    With smoothed labels Trainer would not shift them for a class that `fully_shard` derived.
    """
    if isinstance(model, FSDPModule):
        compat.set_class_name(model, _sharded_class(model).__name__)


def _sharded_class(model: FSDPModule) -> type:
    # As FSDPModule itself finds it: behind the derived class and FSDPModule.
    return type(model).__mro__[2]


def load_weights(model: PreTrainedModel, checkpoint: str | Path) -> None:
    """Fills a sharded model from a checkpoint in whole tensors."""
    config = model.config.distributed_config
    loaded = type(model).from_pretrained(checkpoint, distributed_config=config, dtype=model.dtype)
    with torch.no_grad():
        for parameter, other in zip(model.parameters(), loaded.parameters(), strict=True):
            local(parameter).copy_(local(other))


def whole(value: Any, keep: bool) -> Any:
    """The value with every tensor in it whole and in the machine's memory; None in place of each shard without `keep`.

    All processes must ask for it together. One tensor after the other is gathered, so that no device holds them all.
    """
    if isinstance(value, DTensor):
        gathered = value.full_tensor()
        return gathered.cpu() if keep else None
    if isinstance(value, dict):
        return {key: whole(item, keep) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(whole(item, keep) for item in value)
    return value


def tied_once(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state with each tied weight under one name; the library knows ties by memory, which gathering parts."""
    tied = getattr(model, "all_tied_weights_keys", {})
    return {name: tensor for name, tensor in state.items() if tied.get(name) not in state}


@contextlib.contextmanager
def whole_state_dict(model: PreTrainedModel, keep: bool) -> Iterator[dict[str, torch.Tensor]]:
    """The state of a sharded model in whole tensors, tied ones once; inside, `model` is saved as one without shards."""
    state = whole(tied_once(model, model.state_dict()), keep)
    with compat.saved_whole(model.config):
        yield state


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    """This process's shard of a whole tensor that all have, laid out as `example`; no process talks to another."""
    if not isinstance(example, DTensor):
        return tensor
    return distribute_tensor(tensor.to(example.device), example.device_mesh, example.placements, src_data_rank=None)


def shard_optimizer_state(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A whole state in shards like the parameters; raises `CheckpointError` for one of another optimizer."""
    if [len(group["params"]) for group in state["param_groups"]] != [len(g["params"]) for g in optimizer.param_groups]:
        raise CheckpointError(
            "the checkpoint's optimizer has other groups of parameters. Resume with the --optimizer of its run."
        )
    kernels = [
        {name: group[name] for name in ("foreach", "fused") if name in group} for group in optimizer.param_groups
    ]
    groups = [{**group, **kernel} for group, kernel in zip(state["param_groups"], kernels, strict=True)]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sharded = {
        index: {
            name: shard_like(value, parameters[index])
            if torch.is_tensor(value) and value.shape == parameters[index].shape
            else value
            for name, value in values.items()
        }
        for index, values in state["state"].items()
    }
    return {"state": sharded, "param_groups": groups}


def is_mixed(parameters: Iterable[torch.Tensor]) -> bool:
    """Whether some are in shards and some whole, as under tensor parallelism, which no fused kernel takes together."""
    return len({parameter.device_mesh if isinstance(parameter, DTensor) else None for parameter in parameters}) > 1


def shared_folder(training_args: "HfGptTrainingArguments") -> Path:
    """A new folder that the processes of this machine share."""
    is_first = training_args.local_process_index == 0
    own = tempfile.mkdtemp(prefix="hf-gpt-") if is_first else None
    names: list[str | None] = [None] * training_args.world_size
    dist.all_gather_object(names, own)
    first = training_args.process_index - int(os.environ.get("LOCAL_RANK", training_args.local_process_index))
    return Path(names[first])
