"""`hf-gpt` with Accelerate's FSDP2 on a CPU, where Accelerate by itself would quietly train by DDP.

What Accelerate does where there are GPUs, gloo standing in for NCCL: started by the command that a machine with GPUs is
given, in place of `-m hf_gpt`.
"""

import os
import sys

import torch.distributed as dist
from accelerate import PartialState, accelerator
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from hf_gpt.cli.main import main


PREPARED = []


def prepare(accelerator, model, prepare=accelerator.fsdp2_prepare_model):
    PREPARED.append(prepare(accelerator, model))
    return PREPARED[-1]


if __name__ == "__main__":
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    PartialState._prepare_backend = lambda state, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
    accelerator.fsdp2_prepare_model = prepare
    dist.init_process_group("gloo")
    status = main(sys.argv[1:])
    (model,) = PREPARED
    assert isinstance(model, FSDPModule) and all(isinstance(block, FSDPModule) for block in model.base_model.layers)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    raise SystemExit(status)
