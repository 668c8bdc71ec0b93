"""The convolutional part of MERLOT's image encoder (arXiv:2106.02636, section 3.1): a ResNet-50 without its last stage.

Every convolution is weight-standardised (Qiao et al. 2019, arXiv:1903.10520), has no bias and is followed by a
GroupNorm; where a block is strided, its 1 x 1 convolutions see 2 x 2 means, in place of a strided 3 x 3 one.

Shapes: I images, S pixels of a side.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

__all__ = ["STRIDE", "LiteResNet", "StandardConv"]

#: Pixels of a side that become one place.
STRIDE = 16
_STEM = (32, 32, 64)
_WIDTHS = (64, 128, 256)
_GROUPS, _NORM_EPS, _WEIGHT_EPS = 32, 1e-4, 1e-5


class StandardConv(nn.Module):
    """Convolution by a standardised weight, then GroupNorm: ``conv.weight`` (out, in, k, k), ``norm.{weight,bias}``."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
        self.norm = nn.GroupNorm(_GROUPS, outputs, eps=_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (I, in, h, w) to (I, out, h', w')."""
        weight = self.conv.weight
        exact = weight.to(torch.promote_types(weight.dtype, torch.float32))
        variance, mean = torch.var_mean(exact, dim=(1, 2, 3), correction=0, keepdim=True)
        standard = ((exact - mean) * (variance + _WEIGHT_EPS).rsqrt()).to(weight.dtype)
        return self.norm(F.conv2d(x, standard, stride=self.conv.stride, padding=self.conv.padding))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions to four times the width; the first of a stage has a shortcut of its own."""

    def __init__(self, inputs: int, width: int, stride: int, first: bool) -> None:
        super().__init__()
        self.stride = stride
        self.shortcut = StandardConv(inputs, 4 * width, 1) if first else None
        self.reduce = StandardConv(inputs, width, 1)
        self.spatial = StandardConv(width, width, 3)
        self.expand = StandardConv(width, 4 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (I, 4 * width, h / stride, w / stride)."""
        kept = x if self.shortcut is None else self.shortcut(self._pool(x))
        hidden = self.spatial(self.reduce(x).relu()).relu()
        return (self.expand(self._pool(hidden)) + kept).relu()

    def _pool(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.stride) if self.stride > 1 else x


class LiteResNet(nn.Module):
    """A stem of three convolutions and up to three stages of bottlenecks.

    Args:
        layers: blocks of each stage, such as ``(3, 4, 9)``.
    """

    def __init__(self, layers: Sequence[int], gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        sizes = zip((3, *_STEM), _STEM, (2, 1, 1), strict=False)
        self.stem = nn.ModuleList(StandardConv(inputs, outputs, 3, stride) for inputs, outputs, stride in sizes)
        width, self.stages = _STEM[-1], nn.ModuleList()
        for number, (count, narrow) in enumerate(zip(layers, _WIDTHS, strict=True)):
            blocks = nn.ModuleList()
            for block in range(count):
                blocks.append(Bottleneck(width, narrow, 2 if number and not block else 1, first=not block))
                width = 4 * narrow
            self.stages.append(blocks)
        self.width = width

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode (I, 3, S, S) to (I, width, S / 16, S / 16)."""
        x = pixels
        for conv in self.stem:
            x = conv(x).relu()
        x = F.avg_pool2d(x, 2)
        for blocks in self.stages:
            for block in blocks:  # type: ignore[attr-defined]
                if self.gradient_checkpointing and torch.is_grad_enabled():
                    x = checkpoint(block, x, use_reentrant=False)
                else:
                    x = block(x)
        return x
