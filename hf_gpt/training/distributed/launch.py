"""`hf-gpt <command> --accelerate NAME`: starts a command in several processes, by a named profile."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_gpt.errors import ConfigError, UserError, did_you_mean
from hf_gpt.training.settings import take_options


PROFILES = Path(__file__).with_name("accelerate")

# Profiles whose shards Transformers makes itself, by the option that says over how many processes. Accelerate's FSDP2
# quietly turns into DDP on a CPU, where this one does not.
_SHARDED = {"tp": "--tensor_parallel_size"}
_SHARDED_ON_CPU = {**_SHARDED, "fsdp2": "--fsdp_size"}

_DEEPSPEED = ("zero1", "zero2", "zero3")


def built_in_profiles() -> list[str]:
    """Names that `--accelerate` takes instead of the path of a file of `accelerate config`."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def split_launch_options(argv: Sequence[str]) -> tuple[str | None, int | None, list[str]]:
    """Profile of `--accelerate` and number of `--num_processes`, each None if not given, and what else is on the line.

    Raises:
        ConfigError: an option has no value or no fitting one.
    """
    values, rest = take_options(argv, "--accelerate", "--num_processes")
    for name, value in values.items():
        if value is None or value.startswith("--"):
            raise ConfigError(f"{name} needs a value.")
    count = values.get("--num_processes")
    if count is not None and (not count.isdigit() or int(count) == 0):
        raise ConfigError(f"--num_processes must be a number above 0, got {count!r}.")
    return values.get("--accelerate"), None if count is None else int(count), rest


def launch_command(profile: str, num_processes: int | None, argv: Sequence[str], *, num_gpus: int) -> list[str]:
    """The command line that starts `hf-gpt *argv` under a profile.

    Args:
        profile: Name of a built-in profile, or path of a file of `accelerate config`.
        num_processes: Left out: one for each GPU, at least one.
        argv: The command and its options.
        num_gpus: GPUs of this machine. Without any, torchrun starts the processes: `accelerate launch --cpu` starts one
            whatever number it is told. DeepSpeed is started by Accelerate there too, and told to talk by gloo, without
            which each process would train on all rows.

    Raises:
        ConfigError: there is no such profile, or it needs GPUs or a package that are not there.
    """
    path = PROFILES / f"{profile}.yaml" if profile in built_in_profiles() else Path(profile)
    if not path.is_file():
        hint = did_you_mean(profile, built_in_profiles())
        raise ConfigError(f"--accelerate: no profile {profile!r}{hint} Built in: {', '.join(built_in_profiles())}.")
    count = 1 if profile == "single" else num_processes or max(1, num_gpus)
    if num_gpus and count > num_gpus:
        raise ConfigError(f"--num_processes {count} is more than the {num_gpus} GPUs of this machine.")
    option = (_SHARDED if num_gpus else _SHARDED_ON_CPU).get(profile)
    given = {token.partition("=")[0] for token in argv}
    if option is not None and not given & set(_SHARDED_ON_CPU.values()):
        argv = [*argv, option, str(count)]
    if profile in _DEEPSPEED:
        if importlib.util.find_spec("deepspeed") is None:
            raise ConfigError(
                f"--accelerate {profile} needs DeepSpeed. Install it: pip install deepspeed. Or use fsdp2."
            )
        if num_gpus == 0 and "--ddp_backend" not in given:
            argv = [*argv, "--ddp_backend", "gloo"]
    if num_gpus == 0 and profile not in _DEEPSPEED:
        launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    else:
        options = ["--config_file", str(path), "--num_processes", str(count)]
        # Port 0 lets the system choose, so that two runs on a machine do not meet.
        launcher = ["accelerate.commands.launch", *options, "--main_process_port", "0"]
    return [sys.executable, "-m", *launcher, "-m", "hf_gpt", *argv]


def main(argv: Sequence[str]) -> int:
    """Replaces this process by the launcher; returns 2 if that cannot be."""
    try:
        profile, num_processes, rest = split_launch_options(argv)
        if profile is None:
            raise ConfigError(f"--num_processes needs --accelerate, one of {', '.join(built_in_profiles())}.")
        import torch

        command = launch_command(profile, num_processes, rest, num_gpus=torch.cuda.device_count())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    sys.stdout.flush()
    os.execv(command[0], command)
    return 0
