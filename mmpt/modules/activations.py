"""Activation functions by their Hugging Face names, and their derivatives."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.utils.errors import ConfigError, nearest

__all__ = ["ACTIVATIONS", "Activation", "activation"]

_aten = torch.ops.aten
_QUICK = 1.702


class Activation:
    """A function of each value, which is what a call computes, and its backward pass.

    Attributes:
        name: by which a pickle finds it again.
        backward: gradient of the values, from that of what was made of them and from the values.
    """

    def __init__(
        self, name: str, function: Callable[[Tensor], Tensor], backward: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        self.name, self.function, self.backward = name, function, backward

    def __call__(self, values: Tensor) -> Tensor:
        """Return the function of values, of their shape."""
        return self.function(values)

    def __reduce__(self) -> tuple[Any, ...]:
        return activation, (self.name,)


def _tanh_gelu(values: Tensor) -> Tensor:
    return F.gelu(values, approximate="tanh")


def _tanh_gelu_backward(gradient: Tensor, values: Tensor) -> Tensor:
    return _aten.gelu_backward(gradient, values, approximate="tanh")


def _quick_gelu(values: Tensor) -> Tensor:
    """Return x sigmoid(1.702 x)."""
    if values.dtype in (torch.float16, torch.bfloat16):  # where 1.702 x could overflow, and would be rounded once more
        return values * torch.sigmoid(_QUICK * values)
    return F.silu(values * _QUICK).div_(_QUICK)  # torch has one kernel for x sigmoid(x)


def _quick_gelu_backward(gradient: Tensor, values: Tensor) -> Tensor:
    return _aten.silu_backward(gradient, values * _QUICK)


ACTIVATIONS: dict[str, Activation] = {
    name: Activation(name, function, backward)
    for name, function, backward in (
        ("gelu", F.gelu, _aten.gelu_backward),
        ("gelu_new", _tanh_gelu, _tanh_gelu_backward),
        ("gelu_pytorch_tanh", _tanh_gelu, _tanh_gelu_backward),
        ("quick_gelu", _quick_gelu, _quick_gelu_backward),
        ("relu", F.relu, lambda gradient, values: _aten.threshold_backward(gradient, values, 0)),
        ("silu", F.silu, _aten.silu_backward),
    )
}


def activation(name: str) -> Activation:
    """Return the activation of a Hugging Face name.

    Raises:
        ConfigError: if the name is unknown.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(f"hidden_act: unknown activation {name!r}.{nearest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]
