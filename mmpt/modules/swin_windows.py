"""Windows of Swin transformers, and attention within them (Liu et al., CVPR 2022, arXiv:2106.13230, section 3.2).

Shape suffixes: B batch, T frames, Y rows and X columns of patches, C channels, A heads, W windows, N patches of a
window.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmpt.modules.linear import Linear
from mmpt.modules.swin_attention import window_attention

__all__ = ["Extent", "WindowAttention", "at_most", "from_windows", "kept_apart", "to_windows"]

#: Frames, rows and columns.
Extent = tuple[int, int, int]

#: Added to the scores of patches that only the cyclic shift brought together, as published.
_APART = -100.0


class WindowAttention(nn.Module):
    """Attention within windows, with a learned bias for every offset between two of its patches (equation 2)."""

    relative_position_index: Tensor

    def __init__(self, dim: int, num_heads: int, window: Extent) -> None:
        super().__init__()
        self.num_heads = num_heads
        offsets = 1
        for length in window:
            offsets *= 2 * length - 1
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets, num_heads))
        self.register_buffer("relative_position_index", _offset_numbers(window))
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, patches_BWNC: Tensor, apart_WNN: Tensor | None) -> Tensor:
        """Return (B, W, N, C); ``apart_WNN``, added to the scores, keeps patches from each other."""
        batch, windows, patches = patches_BWNC.shape[:3]
        qkv = self.qkv(patches_BWNC).view(batch, windows, patches, 3, self.num_heads, -1)
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5)
        bias = self._bias(patches).to(query.dtype)[None]
        if apart_WNN is not None:
            bias = bias + apart_WNN.to(query.dtype)[:, None]
        return self.proj(window_attention(query, key, value, bias).transpose(2, 3).flatten(3))

    def _bias(self, patches: int) -> Tensor:
        """Return the bias (A, N, N) of the first N patches of a window.

        For windows cut short in time these are the right offsets; for those cut short in space they are those of
        other patches, as published: weights are learned with them.
        """
        index = self.relative_position_index[:patches, :patches].flatten()
        return self.relative_position_bias_table.index_select(0, index).view(patches, patches, -1).permute(2, 0, 1)


def _offset_numbers(window: Extent) -> Tensor:
    """Number the offset between any two patches of a window, int64 (N, N): the row of its bias in the table."""
    axes = torch.meshgrid(*(torch.arange(length) for length in window), indexing="ij")
    place = torch.stack([axis.flatten() for axis in axes], dim=-1)
    offset = place[:, None] - place[None] + torch.tensor(window) - 1
    strides = ((2 * window[1] - 1) * (2 * window[2] - 1), 2 * window[2] - 1, 1)
    return (offset * torch.tensor(strides)).sum(-1)


def at_most(window: Extent, extent: Sequence[int]) -> Extent:
    """Return a window that is no longer than what it is to cover, on any axis."""
    frames, rows, columns = (min(size, length) for size, length in zip(window, extent, strict=True))
    return frames, rows, columns


def to_windows(hidden_BTYXC: Tensor, window: Extent) -> Tensor:
    """Cut whole windows: (B, W, N, C), both in the order frames, rows, columns."""
    batch, frames, rows, columns, channels = hidden_BTYXC.shape
    t, y, x = window
    cut = hidden_BTYXC.view(batch, frames // t, t, rows // y, y, columns // x, x, channels)
    return cut.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch, -1, t * y * x, channels)


def from_windows(patches_BWNC: Tensor, window: Extent, shape: Sequence[int]) -> Tensor:
    """Undo :func:`to_windows`; ``shape`` is that of its input."""
    batch, frames, rows, columns, channels = shape
    t, y, x = window
    cut = patches_BWNC.view(batch, frames // t, rows // y, columns // x, t, y, x, channels)
    return cut.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(batch, frames, rows, columns, channels)


def kept_apart(extent: Sequence[int], window: Extent, shift: Sequence[int], device: torch.device) -> Tensor:
    """Return what is added to scores so that patches from opposite ends do not see each other: float32 (W, N, N)."""
    regions = torch.zeros((1, *extent, 1), device=device)
    for axis, (length, size, moved) in enumerate(zip(extent, window, shift, strict=True)):
        if moved:
            place = torch.arange(length, device=device)
            number = (place >= length - size).int() + (place >= length - moved).int()
            sides = [1] * 5
            sides[axis + 1] = length
            regions = regions * 3 + number.view(sides)
    region_WN = to_windows(regions, window)[0, ..., 0]
    return (region_WN[:, :, None] != region_WN[:, None]) * _APART
