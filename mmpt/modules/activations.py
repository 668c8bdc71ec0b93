"""Activation functions by their Hugging Face names."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.utils.errors import ConfigError, nearest

__all__ = ["ACTIVATIONS", "activation"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "silu": F.silu,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Return the activation of a Hugging Face name.

    Raises:
        ConfigError: if the name is unknown.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(f"hidden_act: unknown activation {name!r}.{nearest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]
