"""Image resizing by kernels that neither torch nor Pillow has, as TensorFlow's antialiased resize defines them.

MERLOT Reserve draws a kernel for each frame of its pre-training; three of the eight are these.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["KERNELS", "Kernel", "Weights", "kernel_weights", "resize_part"]

_ROWS = 32  # of a product: more of them need more lines, fewer keep the processor less busy


class Kernel(NamedTuple):
    """``value`` of the distance, in source pixels where nothing shrinks; 0 from ``radius`` on."""

    radius: float
    value: Callable[[Tensor], Tensor]


def _gaussian(x: Tensor) -> Tensor:
    return torch.exp(-2 * x * x)  # a deviation of half a pixel


def _mitchell(x: Tensor) -> Tensor:
    x = x.abs()
    near = (7 * x**3 - 12 * x**2 + 16 / 3) / 6
    far = (-7 / 3 * x**3 + 12 * x**2 - 20 * x + 32 / 3) / 6
    return torch.where(x < 1, near, far)


def _lanczos(x: Tensor, radius: int) -> Tensor:
    return torch.sinc(x) * torch.sinc(x / radius)


#: ``triangle`` is the bilinear one, of which torch has a faster version.
KERNELS = {
    "triangle": Kernel(1, lambda x: 1 - x.abs()),
    "gaussian": Kernel(1.5, _gaussian),
    "mitchell": Kernel(2, _mitchell),
    "lanczos5": Kernel(5, functools.partial(_lanczos, radius=5)),
}


class Weights(NamedTuple):
    """What each source pixel of a line gives to each target pixel, float32 (target, source); rows sum to 1.

    Attributes:
        values: these.
        begins: for each target pixel the first source pixel that matters to it, never falling.
        ends: the one behind the last, never falling.
    """

    values: Tensor
    begins: list[int]
    ends: list[int]


@functools.lru_cache(maxsize=256)
def kernel_weights(name: str, source: int, target: int) -> Weights:
    """Return the weights of a kernel for lines of ``source`` pixels that become ``target`` pixels long.

    Where the line shrinks, kernels are widened by as much (antialias); pixel centres lie at half integers.
    """
    kernel, scale = KERNELS[name], source / target
    centres = (torch.arange(target, dtype=torch.float64) + 0.5) * scale
    distances = (torch.arange(source, dtype=torch.float64) + 0.5 - centres[:, None]) / max(scale, 1.0)
    reached = distances.abs() < kernel.radius
    weights, matters = torch.where(reached, kernel.value(distances), 0.0), reached.int()
    begins, ends = matters.argmax(1), source - matters.flip(1).argmax(1)
    return Weights((weights / weights.sum(1, keepdim=True)).float(), begins.tolist(), ends.tolist())


def resize_part(
    image: Tensor, size: tuple[int, int], corner: tuple[int, int], part: tuple[int, int], name: str
) -> Tensor:
    """Resize an image by a kernel and cut out a part, of which alone the pixels are computed.

    Args:
        image: uint8 (3, height, width).
        size: height and width to resize to.
        corner: first row and column of the part.
        part: its height and width.
        name: of :data:`KERNELS`.

    Returns:
        uint8 ``(3, *part)``, rounded, clipped.
    """
    rows, columns = (kernel_weights(name, old, new) for old, new in zip(image.shape[1:], size, strict=True))
    lines = image.permute(1, 2, 0).flatten(1).float()  # (height, width * 3)
    lines = _weighted(rows, range(corner[0], corner[0] + part[0]), lines)
    lines = lines.unflatten(1, (-1, 3)).transpose(0, 1).flatten(1)  # (width, rows * 3)
    lines = _weighted(columns, range(corner[1], corner[1] + part[1]), lines)
    resized = lines.round_().clamp_(0, 255).to(torch.uint8)
    return resized.unflatten(1, (-1, 3)).permute(2, 1, 0)


def _weighted(weights: Weights, targets: range, lines: Tensor) -> Tensor:
    """Return the target lines, (targets, any), some at a time: these need few of the source lines (source, any)."""
    found = lines.new_empty(len(targets), lines.shape[1])
    for place in range(0, len(targets), _ROWS):
        some = targets[place : place + _ROWS]
        begin, end = weights.begins[some[0]], weights.ends[some[-1]]
        values = weights.values[some[0] : some[-1] + 1, begin:end]
        torch.mm(values, lines[begin:end], out=found[place : place + len(some)])
    return found
