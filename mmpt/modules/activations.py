"""Activation functions by their Hugging Face names."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmpt.utils.errors import ConfigError, nearest

__all__ = ["ACTIVATIONS", "activation", "gelu_linear"]

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


def gelu_linear(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``linear(gelu(values), weight, bias)`` of values (.., I), and keep of it the values alone.

    The activation, the widest thing a layer makes, is computed again in the backward pass.
    There is no second derivative.
    """
    return _GeluLinear.apply(values, weight, bias)


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(values, weight)
        return F.linear(F.gelu(values), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        values, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        of_values = of_weight = of_bias = None
        if ctx.needs_input_grad[1]:
            of_weight = rows.T @ F.gelu(values).flatten(0, -2)
        if ctx.needs_input_grad[2]:
            of_bias = rows.sum(0)
        if ctx.needs_input_grad[0]:
            of_values = torch.ops.aten.gelu_backward(gradient @ weight, values)
        return of_values, of_weight, of_bias
