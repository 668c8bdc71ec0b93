"""Video Swin transformer (Liu et al., CVPR 2022, arXiv:2106.13230) that keeps every frame.

As in VIOLET (Fu et al. 2021, arXiv:2111.12681) and LAVENDER (Li et al., CVPR 2023, arXiv:2206.07160), the patches move
by one frame in time, not two: T frames in, T out. Parameter names are those of the published weights.

Shape suffixes: B batch, T frames, Y rows and X columns of patches, C channels, A heads, W windows, N patches of a
window.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmpt.modules.linear import Linear, feed_forward
from mmpt.modules.swin_windows import Extent, WindowAttention, at_most, from_windows, kept_apart, to_windows
from mmpt.utils.errors import ConfigError, nearest

__all__ = ["SWIN_SIZES", "SwinOptions", "VideoSwin", "swin_options"]

PATCH: Extent = (2, 4, 4)


@dataclass(frozen=True)
class SwinOptions:
    """Sizes: width of the first stage, blocks and heads of each stage, frames x rows x columns of a window.

    ``drop_path`` is the rate of the last block; it rises linearly from 0 (stochastic depth, arXiv:1603.09382).
    ``gradient_checkpointing`` recomputes each block in the backward pass. ``init_std`` is that of the linear weights
    where none are loaded.
    """

    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 18, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window: Extent = (8, 7, 7)
    drop_path: float = 0.2
    gradient_checkpointing: bool = False
    init_std: float = 0.02

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.num_heads) or not self.depths:
            raise ConfigError(f"model.swin: {len(self.depths)} depths and {len(self.num_heads)} numbers of heads")
        for stage, heads in enumerate(self.num_heads):
            if (self.embed_dim << stage) % heads:
                raise ConfigError(f"model.swin: {heads} heads do not divide the width {self.embed_dim << stage}")
        if len(self.window) != 3 or min(*self.window, *self.depths, *self.num_heads) < 1:
            raise ConfigError(f"model.swin: a window is frames, rows and columns, all sizes at least 1: {self}")

    @property
    def dim(self) -> int:
        """Width of the output."""
        return self.embed_dim << (len(self.depths) - 1)

    @property
    def stride(self) -> int:
        """Pixels of a side that become one position of the output."""
        return PATCH[1] << (len(self.depths) - 1)


#: The published sizes (section 4.1). VIOLET is trained with small, LAVENDER with base.
SWIN_SIZES = {
    "tiny": SwinOptions(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": SwinOptions(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": SwinOptions(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": SwinOptions(192, (2, 2, 18, 2), (6, 12, 24, 48)),
    "large384": SwinOptions(192, (2, 2, 18, 2), (6, 12, 24, 48), (8, 12, 12)),
}


def swin_options(name: str) -> SwinOptions:
    """Return the published sizes of that name.

    Raises:
        ConfigError: if there are no such; names the nearest.
    """
    if name not in SWIN_SIZES:
        known = [*SWIN_SIZES, "custom"]
        raise ConfigError(f"model.swin: {name!r} is none of {', '.join(known)}.{nearest(name, known)}")
    return SWIN_SIZES[name]


class PatchEmbed(nn.Module):
    """Patches of 2 frames x 4 x 4 pixels, one for every frame: the last one is followed by a frame of zeros."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, dim, PATCH, stride=(1, *PATCH[1:]))
        self.norm = nn.LayerNorm(dim)

    def forward(self, images_B3THW: Tensor) -> Tensor:
        """Embed normalised images, padded below and to the right to whole patches: (B, T, Y, X, C)."""
        rows, columns = images_B3THW.shape[-2:]
        padded = F.pad(images_B3THW, (0, -columns % PATCH[2], 0, -rows % PATCH[1], 0, PATCH[0] - 1))
        return self.norm(self.proj(padded).permute(0, 2, 3, 4, 1))


class SwinMLP(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, checkpointed: bool) -> None:
        super().__init__()
        self.checkpointed = checkpointed
        self.fc1 = Linear(dim, 4 * dim)
        self.fc2 = Linear(4 * dim, dim)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the same shape."""
        return feed_forward(hidden, self.fc1, self.fc2, not self.checkpointed)


class SwinBlock(nn.Module):
    """Pre-norm block; every second one works on windows moved by half their size."""

    def __init__(
        self, dim: int, num_heads: int, window: Extent, shifted: bool, drop_path: float, checkpointed: bool = False
    ) -> None:
        super().__init__()
        self.window = window
        self.shifted = shifted
        self.drop_path = DropPath(drop_path)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = SwinMLP(dim, checkpointed)

    def forward(self, hidden_BTYXC: Tensor, apart_WNN: Tensor | None = None) -> Tensor:
        """Return (B, T, Y, X, C); ``apart_WNN`` is :meth:`apart` of such an input."""
        hidden = hidden_BTYXC + self.drop_path(self._attend(self.norm1(hidden_BTYXC), apart_WNN))
        return hidden + self.drop_path(self.mlp(self.norm2(hidden)))

    def apart(self, hidden_BTYXC: Tensor) -> Tensor | None:
        """Return what keeps patches apart that only the shift brings together; all shifted blocks of a stage share it.

        None where no axis is shifted.
        """
        extent = hidden_BTYXC.shape[1:4]
        window, shift = at_most(self.window, extent), self._shift(extent)
        whole = [length + -length % size for length, size in zip(extent, window, strict=True)]
        return kept_apart(whole, window, shift, hidden_BTYXC.device) if any(shift) else None

    def _shift(self, extent: Sequence[int]) -> list[int]:
        # An axis that one window covers is not shifted.
        return [w // 2 if self.shifted and length > w else 0 for w, length in zip(self.window, extent, strict=True)]

    def _attend(self, hidden_BTYXC: Tensor, apart_WNN: Tensor | None) -> Tensor:
        extent = hidden_BTYXC.shape[1:4]
        window, shift = at_most(self.window, extent), self._shift(extent)
        missing = [-length % size for length, size in zip(extent, window, strict=True)]
        padded = F.pad(hidden_BTYXC, (0, 0, 0, missing[2], 0, missing[1], 0, missing[0]))
        if any(shift):
            padded = padded.roll([-s for s in shift], (1, 2, 3))
        attended = from_windows(self.attn(to_windows(padded, window), apart_WNN), window, padded.shape)
        if any(shift):
            attended = attended.roll(shift, (1, 2, 3))
        return attended[:, : extent[0], : extent[1], : extent[2]]


class PatchMerging(nn.Module):
    """Four neighbouring patches of a frame become one of twice the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, hidden_BTYXC: Tensor) -> Tensor:
        """Return (B, T, ceil(Y / 2), ceil(X / 2), 2 C)."""
        rows, columns = hidden_BTYXC.shape[2:4]
        hidden = F.pad(hidden_BTYXC, (0, 0, 0, columns % 2, 0, rows % 2))
        parts = [hidden[:, :, row::2, column::2] for column, row in itertools.product((0, 1), (0, 1))]
        return self.reduction(self.norm(torch.cat(parts, dim=-1)))


class SwinStage(nn.Module):
    """Blocks of one resolution, and the merging that ends all stages but the last."""

    def __init__(self, options: SwinOptions, stage: int, rates: Sequence[float]) -> None:
        super().__init__()
        dim, heads = options.embed_dim << stage, options.num_heads[stage]
        self.gradient_checkpointing = options.gradient_checkpointing
        self.blocks = nn.ModuleList(
            SwinBlock(dim, heads, options.window, number % 2 == 1, rate, options.gradient_checkpointing)
            for number, rate in enumerate(rates)
        )
        last = stage == len(options.depths) - 1
        self.downsample = None if last else PatchMerging(dim)

    def forward(self, hidden_BTYXC: Tensor) -> Tensor:
        """Return the input of the next stage."""
        hidden = hidden_BTYXC
        shifted = next((block for block in self.blocks if block.shifted), None)
        apart = shifted.apart(hidden) if isinstance(shifted, SwinBlock) else None
        for block in self.blocks:
            inputs = (hidden, apart if block.shifted else None)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                hidden = checkpoint(block, *inputs, use_reentrant=False)
            else:
                hidden = block(*inputs)
        return hidden if self.downsample is None else self.downsample(hidden)


class VideoSwin(nn.Module):
    """Four stages of windowed attention over the patches of a clip.

    ``relative_position_index`` is a buffer in the published files; it follows from the window and may be missing.
    """

    def __init__(self, options: SwinOptions) -> None:
        super().__init__()
        self.options = options
        blocks = sum(options.depths)
        rates = [options.drop_path * number / max(blocks - 1, 1) for number in range(blocks)]
        self.patch_embed = PatchEmbed(options.embed_dim)
        first = [sum(options.depths[:stage]) for stage in range(len(options.depths) + 1)]
        self.layers = nn.ModuleList(
            SwinStage(options, stage, rates[first[stage] : first[stage + 1]]) for stage in range(len(options.depths))
        )
        self.norm = nn.LayerNorm(options.dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=options.init_std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images_BT3HW: Tensor) -> Tensor:
        """Encode normalised images of any size: (B, T, ceil(H / 32), ceil(W / 32), C) for four stages."""
        hidden = self.patch_embed(images_BT3HW.transpose(1, 2))
        for stage in self.layers:
            hidden = stage(hidden)
        return self.norm(hidden)


class DropPath(nn.Module):
    """Leave a branch out for a share of the samples, in training; the others weigh more for it."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Return the same shape; the first dimension counts samples."""
        if not self.training or self.rate == 0:
            return branch
        kept = branch.new_empty((len(branch),) + (1,) * (branch.dim() - 1)).bernoulli_(1 - self.rate)
        return branch * kept / (1 - self.rate)
