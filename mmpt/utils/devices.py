"""Which device to run on."""

import torch

from mmpt.utils.errors import ConfigError

__all__ = ["pick_device"]


def pick_device(device: torch.device | str | None = None) -> torch.device:
    """Return a device by name; None and ``auto`` are the first GPU, or the CPU where there is none.

    Raises:
        ConfigError: if the device does not exist on this machine.
    """
    if device in (None, "", "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device {device!r} is not known; use auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r}: this machine has no usable CUDA GPU; use auto or cpu")
    return chosen
