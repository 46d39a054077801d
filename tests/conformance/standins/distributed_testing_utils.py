"""Starts the ranks of a distributed test as real processes, joined by gloo."""

import functools
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as torch_mp
from torch.distributed import distributed_c10d


# A rank that dies inside a collective would otherwise hold the others for gloo's half hour.
TIMEOUT = timedelta(minutes=2)
# Importing torch and the library takes a rank several seconds, and its test rarely one: ranks are forked from a
# server that has imported them already.
PRELOAD = ["torch", "torch.distributed.tensor", "transformers", "conformance.ranks"]


def _start_method() -> str:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    multiprocessing.set_forkserver_preload(PRELOAD)
    return "forkserver"


def _start_rank_processes(fn: Callable, args: tuple = (), nprocs: int = 1) -> None:
    """Runs `fn(rank, *args)` in `nprocs` processes and raises what the first failing one raised."""
    torch_mp.start_processes(_run_impatiently, (fn, *args), nprocs=nprocs, join=True, start_method=_start_method())


def _run_impatiently(rank: int, fn: Callable, *args: Any) -> None:
    distributed_c10d.default_pg_timeout = TIMEOUT
    fn(rank, *args)


def _get_distributed_device_type() -> str:
    return "cpu"


def _get_distributed_backend() -> str:
    return "gloo"


def _get_rank_device(rank: int) -> torch.device:
    return torch.device("cpu")


def _set_rank_device(rank: int) -> None:
    """Every rank computes on the one CPU: there is no device to choose."""


def _run_rank(rank: int, func: Callable, world_size: int, rendezvous: str, args: tuple, kwargs: dict) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    # A file needs no free port, so parallel test workers cannot take one another's.
    dist.init_process_group(
        _get_distributed_backend(),
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=world_size,
    )
    try:
        func(rank, *args, **kwargs)
        dist.barrier()
    finally:
        dist.destroy_process_group()


def run_distributed(world_size: int) -> Callable[[Callable], Callable[..., None]]:
    """Decorates `func(rank, ...)` so that calling it runs it in `world_size` joined ranks."""

    def decorate(func: Callable) -> Callable[..., None]:
        @functools.wraps(func)
        def call(*args: Any, **kwargs: Any) -> None:
            with tempfile.TemporaryDirectory() as folder:
                rendezvous = os.path.join(folder, "rendezvous")
                _start_rank_processes(_run_rank, (func, world_size, rendezvous, args, kwargs), nprocs=world_size)

        return call

    return decorate
