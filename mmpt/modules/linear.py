"""Linear layers on the faster of the two matrix libraries that torch has for CPUs.

torch multiplies float32 matrices with MKL, whose AVX-512 kernels are for Intel's processors alone: on AMD's it reaches
half of what oneDNN does there. Products of some size are given to oneDNN on such a processor; all others, and those of
other devices, dtypes and of compiled code, are torch's own.
"""

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmpt.modules.activations import ACTIVATIONS, Activation

__all__ = ["Linear", "feed_forward", "linear", "onednn_is_faster"]

#: Multiplications of a product from which on oneDNN's higher price of a call is made up for.
_LEAST = 2**22

#: Widened values of a feed-forward block that are made at once, and up to which all are kept: 12 MiB.
_WIDENED, _FEW = 2**21, 3 * 2**20


class Linear(nn.Linear):
    """``nn.Linear`` whose products are those of :func:`linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return (.., out features) of (.., in features)."""
        return linear(input, self.weight, self.bias)


def linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``torch.nn.functional.linear`` of values (.., I), a weight (O, I) and a bias (O,): (.., O).

    Where oneDNN computes it there is no second derivative.
    """
    if not _takes(values, weight, bias):
        return F.linear(values, weight, bias)
    inputs = (values, weight) if bias is None else (values, weight, bias)
    if torch.is_grad_enabled() and any(one.requires_grad for one in inputs):
        return _Linear.apply(values, weight, bias)
    return _product(values, weight, bias)


def feed_forward(
    values: Tensor,
    wide: nn.Module,
    narrow: nn.Module,
    recompute: bool = True,
    activation: Activation = ACTIVATIONS["gelu"],
) -> Tensor:
    """Return ``narrow(activation(wide(values)))`` of values (.., I) and two linear layers.

    In eager training on a CPU a large block keeps the values alone, and what lies between, the widest things a layer
    makes, is computed again in the backward pass: a ninth more products in a layer of usual width. There is no second
    derivative then, and hooks of the two layers are not called. A small block saves too little memory for that, and
    keeps all. ``recompute`` false keeps everything, for layers that are themselves computed again.
    """
    if recompute and _keeps_little(values, wide, narrow):
        return _FeedForward.apply(values, wide.weight, wide.bias, narrow.weight, narrow.bias, activation)
    return narrow(activation(wide(values)))


@functools.cache
def onednn_is_faster() -> bool:
    """Say whether this processor is AMD's with AVX-512 instructions, and torch has both libraries."""
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and _vendor() == "AuthenticAMD"
    )


def _vendor() -> str:
    try:
        with Path("/proc/cpuinfo").open() as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("vendor_id"))
    except (OSError, StopIteration):
        return ""


def _is_eager(values: Tensor) -> bool:
    """Say whether values are on a CPU and neither compiled nor cast on the way."""
    compiled, cast = torch.compiler.is_compiling(), torch.is_autocast_enabled("cpu")
    return values.device.type == "cpu" and not compiled and not cast


def _keeps_little(values: Tensor, wide: nn.Module, narrow: nn.Module) -> bool:
    if not (type(wide) is Linear and type(narrow) is Linear):
        return False
    few = values.numel() // max(wide.in_features, 1) * wide.out_features <= _FEW
    # half precision would round the sum of the weights' gradients with every chunk
    exact = values.dtype in (torch.float32, torch.float64)
    return not few and exact and torch.is_grad_enabled() and _is_eager(values)


def _takes(values: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Say whether oneDNN is to compute this product."""
    return (
        values.numel() * weight.shape[0] >= _LEAST
        and values.dtype == weight.dtype == torch.float32
        and (bias is None or bias.dtype == torch.float32)
        and type(values) is Tensor
        and _is_eager(values)
        and bool(torch.backends.mkldnn.enabled)
        and onednn_is_faster()
    )


def _product(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``F.linear`` of (.., K), (O, K) and (O,), by the faster library; neither need be contiguous."""
    if not _takes(values, weight, bias):
        return F.linear(values, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(values, weight)
        return _product(values, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, weight = ctx.saved_tensors
        return _gradients(gradient, values, weight, ctx.needs_input_grad)


class _FeedForward(torch.autograd.Function):
    """Some rows at a time, so that their widened values are few and still in the cache when they are used."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        wide: Tensor,
        wide_bias: Tensor | None,
        narrow: Tensor,
        bias: Tensor | None,
        activation: Activation,
    ) -> Tensor:
        ctx.save_for_backward(values, wide, wide_bias, narrow)
        ctx.activation = activation
        output = values.new_empty(*values.shape[:-1], len(narrow))
        some = _rows_at_once(wide)
        for rows, made in zip(_rows(values).split(some), _rows(output).split(some), strict=True):
            made.copy_(_product(activation(_product(rows, wide, wide_bias)), narrow, bias))
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, wide, wide_bias, narrow = ctx.saved_tensors
        first, second = ctx.needs_input_grad[:3], ctx.needs_input_grad[3:5]
        of_values = values.new_empty(values.shape) if first[0] else None
        sums: list[Tensor | None] = [None] * 4
        some, begin = _rows_at_once(wide), 0
        for rows, given in zip(_rows(values).split(some), _rows(gradient).split(some), strict=True):
            widened = _product(rows, wide, wide_bias)
            of_activated, *of_narrow = _gradients(given, ctx.activation(widened), narrow, (any(first), *second))
            of_rows: Tensor | None = None
            of_wide: list[Tensor | None] = [None, None]
            if of_activated is not None:
                of_widened = ctx.activation.backward(of_activated, widened)
                of_rows, *of_wide = _gradients(of_widened, rows, wide, first)
            if of_values is not None and of_rows is not None:
                _rows(of_values)[begin : begin + len(rows)] = of_rows
            begin += len(rows)
            made = (*of_wide, *of_narrow)
            sums = [new if old is None or new is None else old.add_(new) for old, new in zip(sums, made, strict=True)]
        return of_values, *sums, None


def _rows(values: Tensor) -> Tensor:
    return values.reshape(-1, values.shape[-1])


def _rows_at_once(wide: Tensor) -> int:
    return max(_WIDENED // len(wide), 1)


def _gradients(
    gradient: Tensor, values: Tensor, weight: Tensor, needed: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of a product's values (.., I), weight (O, I) and bias (O,), as far as needed."""
    of_values = _product(gradient, weight.T) if needed[0] else None
    outputs, inputs = _rows(gradient), _rows(values)
    of_weight = None
    # oneDNN copies its first matrix if that is not contiguous: let it be the smaller one
    if needed[1] and outputs.shape[1] > inputs.shape[1] and _takes(inputs.T, outputs.T, None):
        of_weight = _product(inputs.T, outputs.T).T.contiguous()
    elif needed[1]:
        of_weight = _product(outputs.T, inputs.T)
    return of_values, of_weight, outputs.sum(0) if needed[2] else None
