"""Encoder of the discrete VAE that makes visual tokens (DALL-E, Ramesh et al. 2021, arXiv:2102.12092, section 2.1).

A residual convolutional network over an image gives scores of the codes on a grid of one cell per 8 x 8 pixels; the
code of a cell is the best one. VIOLET (arXiv:2111.12681, section 3.2) predicts these codes where it masks a frame.
Parameters are called as in the published file: ``blocks.group_2.block_1.res_path.conv_3.w``.

Shapes: N images, h x w cells of 8 x 8 pixels, C codes.
"""

import math
import re
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpt.utils.checkpoint import load_into
from mmpt.utils.errors import CheckpointError, DataError

__all__ = ["CELL", "DVAEEncoder", "check_images", "map_pixels"]

#: Pixels along each side of the square that one code describes.
CELL = 8
GROUPS = 4
#: Half of the margin that is left at both ends of the range of pixels, so that their logits stay finite.
_MARGIN = 0.1


def map_pixels(images: Tensor) -> Tensor:
    """Map images, uint8 or float in [0, 1], to float in [0.1, 0.9] (arXiv:2102.12092, appendix A.3)."""
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images
    return (1 - 2 * _MARGIN) * scaled + _MARGIN


def check_images(images: Tensor) -> None:
    """Raise DataError unless ``images`` are (N, 3, H, W) with H and W multiples of 8."""
    if images.dim() != 4 or images.shape[1] != 3 or images.shape[2] % CELL or images.shape[3] % CELL:
        raise DataError(f"images have shape {tuple(images.shape)}; expected (N, 3, H, W), H and W multiples of {CELL}")


class _Conv(nn.Module):
    """Convolution of odd size that keeps height and width; parameters ``w`` and ``b``."""

    def __init__(self, width_in: int, width_out: int, size: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(width_out, width_in, size, size) / math.sqrt(width_in * size**2))
        self.b = nn.Parameter(torch.zeros(width_out))

    def forward(self, images: Tensor) -> Tensor:
        """Convolve (N, in, H, W) to (N, out, H, W)."""
        return F.conv2d(images, self.w, self.b, padding=self.w.shape[-1] // 2)


class _Block(nn.Module):
    """Residual block of four convolutions through a quarter of its width; ``gain`` scales their result."""

    def __init__(self, width_in: int, width_out: int, gain: float) -> None:
        super().__init__()
        inner = width_out // 4
        self.gain = gain
        self.id_path = _Conv(width_in, width_out, 1) if width_in != width_out else nn.Identity()
        widths = [(width_in, inner, 3), (inner, inner, 3), (inner, inner, 3), (inner, width_out, 1)]
        self.res_path = nn.ModuleDict({f"conv_{n}": _Conv(*sizes) for n, sizes in enumerate(widths, start=1)})

    def forward(self, images: Tensor) -> Tensor:
        """Transform (N, in, H, W) to (N, out, H, W)."""
        result = images
        for conv in self.res_path.values():
            result = conv(F.relu(result))
        return self.id_path(images) + self.gain * result


class DVAEEncoder(nn.Module):
    """Scores of visual codes, randomly initialised; published sizes by default (53.8 M parameters).

    Args:
        hidden: width of the first group; it doubles from each group to the next.
        num_codes: C.
        blocks_per_group: residual blocks of each of the four groups.
    """

    def __init__(self, hidden: int = 256, num_codes: int = 8192, blocks_per_group: int = 2) -> None:
        super().__init__()
        gain = 1 / (GROUPS * blocks_per_group) ** 2
        groups: dict[str, nn.Module] = {}
        width = hidden
        for group in range(GROUPS):
            wide = hidden * 2**group
            blocks = {}
            for block in range(blocks_per_group):
                blocks[f"block_{block + 1}"] = _Block(wide if block else width, wide, gain)
            groups[f"group_{group + 1}"] = nn.ModuleDict(blocks)
            width = wide
        output = nn.ModuleDict({"conv": _Conv(width, num_codes, 1)})
        self.blocks = nn.ModuleDict({"input": _Conv(3, hidden, 7), **groups, "output": output})
        self.num_codes = num_codes

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], source: str = "state dict") -> "DVAEEncoder":
        """Build the encoder whose weights ``state`` holds, at the sizes that they have, in evaluation mode.

        Raises:
            CheckpointError: if these are not the weights of such an encoder; names ``source``.
        """
        first, last = state.get("blocks.input.w"), state.get("blocks.output.conv.w")
        if first is None or last is None or first.dim() != 4 or last.dim() != 4:
            raise CheckpointError(
                f"{source}: not the encoder of a discrete VAE (no blocks.input.w, blocks.output.conv.w)"
            )
        numbers = [int(found[1]) for key in state if (found := re.match(r"blocks\.group_1\.block_(\d+)\.", key))]
        model = cls(len(first), len(last), max(numbers, default=1))
        load_into(model, state, source=source)
        return model.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Score the codes of images.

        Args:
            images: (N, 3, H, W), uint8 or float in [0, 1]; H and W multiples of 8.

        Returns:
            (N, C, H / 8, W / 8).

        Raises:
            DataError: if the images are of another shape.
        """
        if images.dim() != 4 or images.shape[1] != 3 or images.shape[2] % CELL or images.shape[3] % CELL:
            raise DataError(
                f"images have shape {tuple(images.shape)}; expected (N, 3, H, W), H and W multiples of {CELL}"
            )
        states = self.blocks["input"](map_pixels(images))
        for number in range(1, GROUPS + 1):
            for block in cast(nn.ModuleDict, self.blocks[f"group_{number}"]).values():
                states = block(states)
            if number < GROUPS:
                states = F.max_pool2d(states, 2)
        return cast(nn.ModuleDict, self.blocks["output"])["conv"](F.relu(states))

    def codes(self, images: Tensor) -> Tensor:
        """Return the best code of each cell, int64 (N, H / 8, W / 8); arguments as :meth:`forward`."""
        return self(images).argmax(dim=1)
