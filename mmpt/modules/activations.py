"""Activation functions by their Hugging Face names, and their derivatives."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.utils.errors import ConfigError, nearest

__all__ = ["ACTIVATIONS", "Activation", "activation"]

_aten = torch.ops.aten
_QUICK = 1.702


class Activation(NamedTuple):
    """A function of each value, which is what a call computes, and its backward pass.

    Attributes:
        function: of values of any shape.
        backward: gradient of the values, from that of what was made of them and from the values.
    """

    function: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, values: Tensor) -> Tensor:
        """Return the function of values, of their shape."""
        return self.function(values)


_TANH_GELU = Activation(
    lambda x: F.gelu(x, approximate="tanh"), lambda grad, x: _aten.gelu_backward(grad, x, approximate="tanh")
)
ACTIVATIONS: dict[str, Activation] = {
    "gelu": Activation(F.gelu, _aten.gelu_backward),
    "gelu_new": _TANH_GELU,
    "gelu_pytorch_tanh": _TANH_GELU,
    # x sigmoid(1.702 x), of torch's one kernel for x sigmoid(x)
    "quick_gelu": Activation(
        lambda x: F.silu(x * _QUICK).div_(_QUICK), lambda grad, x: _aten.silu_backward(grad, x * _QUICK)
    ),
    "relu": Activation(F.relu, lambda grad, x: _aten.threshold_backward(grad, x, 0)),
    "silu": Activation(F.silu, _aten.silu_backward),
}


def activation(name: str) -> Activation:
    """Return the activation of a Hugging Face name.

    Raises:
        ConfigError: if the name is unknown.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(f"hidden_act: unknown activation {name!r}.{nearest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]
