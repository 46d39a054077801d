"""The device that a user names."""

from typing import TYPE_CHECKING

from hf_gpt.errors import ConfigError


if TYPE_CHECKING:
    import torch


def pick_device(name: str | None) -> "torch.device | str":
    """The device of that name. None: an accelerator if there is one, else the CPU.

    Raises:
        ConfigError: there is no such device on this machine.
    """
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name is None:
        return accelerator or "cpu"
    here = "cpu" if accelerator is None else f"cpu, {accelerator.type}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise ConfigError(f"--device {name}: there is no such device here ({reason}). Use one of: {here}.") from error
    if device.type == "meta":
        raise ConfigError(f"--device meta holds no weights to compute with. Use one of: {here}.")
    return device
