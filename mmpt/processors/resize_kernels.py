"""Image resizing by kernels that neither torch nor Pillow has, as TensorFlow's antialiased resize defines them.

MERLOT Reserve draws a kernel for each frame of its pre-training; three of the eight are these.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["KERNELS", "Kernel", "kernel_weights", "resize_part"]


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


@functools.lru_cache(maxsize=256)
def kernel_weights(name: str, source: int, target: int) -> Tensor:
    """Return what each source pixel gives to each target pixel of a line, float32 (target, source); rows sum to 1.

    Where the line shrinks, kernels are widened by as much (antialias); pixel centres lie at half integers.
    """
    kernel, scale = KERNELS[name], source / target
    centres = (torch.arange(target, dtype=torch.float64) + 0.5) * scale
    distances = (torch.arange(source, dtype=torch.float64) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = torch.where(distances.abs() < kernel.radius, kernel.value(distances), 0.0)
    return (weights / weights.sum(1, keepdim=True)).float()


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
        uint8 (3, *part), rounded, clipped.
    """
    sides = zip(image.shape[1:], size, corner, part, strict=True)
    rows, columns = (kernel_weights(name, old, new)[first : first + count] for old, new, first, count in sides)
    # What the part does not depend on is left out of the products.
    top, bottom = _needed(rows)
    left, right = _needed(columns)
    pixels = image[:, top:bottom, left:right].to(torch.float32, memory_format=torch.contiguous_format)
    resized = rows[:, top:bottom] @ pixels @ columns[:, left:right].T
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def _needed(weights: Tensor) -> tuple[int, int]:
    used = weights.abs().amax(0).nonzero()
    return int(used[0]), int(used[-1]) + 1
