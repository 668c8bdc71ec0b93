"""A small 3-D convolutional video encoder with seeded random weights: features without a download.

Random rectified convolutions with pooling describe shape and motion well (Jarrett et al., "What is the best
multi-stage architecture for object recognition?", ICCV 2009). They look at what stands out from the still
background: as a mask with its change over time, and, like a fovea, once more in the frame of the thing itself
(its centre and extent), where shape is seen apart from place and size. Outputs are standardised with the
statistics of a fixed, seeded set of synthetic clips, so a feature depends on the clip and the seed alone.

Shape suffixes: B clips, C channels, T frames, H height, W width, D features.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SmallConv3d", "synthetic_clips"]

_WIDTHS = (2, 32, 64, 80)
_COLOUR_UNITS = 32
_FOVEA_UNITS = 32
_FOVEA = 20
#: The fovea spans this many extents (standard deviations of the mask) to each side of the centre.
_FOVEA_REACH = 2.0
_CALIBRATION_CLIPS = 256
#: As many as caches hold: the same numbers in less time.
_CLIPS_AT_ONCE = 16
_CLAMP = 5.0
#: By output width, seed and number of clips.
_STATISTICS: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}


def synthetic_clips(clips: int, frames: int, size: int, generator: torch.Generator) -> Tensor:
    """Return (clips, 3, frames, size, size) floats in [0, 1]: coloured boxes and blobs moving before noise."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(clips, *shape, generator=generator)

    patches = torch.randn(clips, 1, 1, 8, 8, generator=generator)
    texture = patches.repeat_interleave(size // 8, -1).repeat_interleave(size // 8, -2)
    backdrop = uniform(0.1, 0.5, 3, 1, 1, 1) + 0.08 * texture
    time = torch.linspace(0, 1, frames).view(1, frames, 1, 1)
    grid = torch.linspace(-1, 1, size)
    centre_x, centre_y = (uniform(-0.5, 0.5, 1, 1, 1) + uniform(-1, 1, 1, 1, 1) * (time - 0.5) for _ in range(2))
    radius = (uniform(0.2, 0.5, 1, 1, 1) * (1 + uniform(-0.6, 0.6, 1, 1, 1) * time)).clamp_min(0.05)
    across, down = (grid.view(1, 1, 1, size) - centre_x) / radius, (grid.view(1, 1, size, 1) - centre_y) / radius
    power = 2.0 ** uniform(0, 3, 1, 1, 1)
    distance = (across.abs().pow(power) + down.abs().pow(power)).pow(1 / power)
    alpha = ((1 - distance) * radius * size / 4 + 0.5).clamp(0, 1).unsqueeze(1)
    clip = backdrop * (1 - alpha) + uniform(0, 1, 3, 1, 1, 1) * alpha
    return (clip + 0.02 * torch.randn(clip.shape, generator=generator)).clamp(0, 1)


class SmallConv3d(nn.Module):
    """Encode clips of one second into vectors, with random weights fixed by ``seed``.

    Clips have ``fps`` frames of ``size`` x ``size`` pixels. Nothing is trained and nothing is loaded.
    """

    fps: int = 8
    size: int = 64

    colour_weight: Tensor
    colour_bias: Tensor
    fovea_weight: Tensor
    mean: Tensor
    scale: Tensor
    projection: Tensor

    def __init__(self, dim: int = 512, seed: int = 0) -> None:
        super().__init__()
        self.dim = dim
        generator = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList(
            _random_conv(before, after, kernel, stride, generator)
            for (before, after), kernel, stride in zip(pairwise(_WIDTHS), (5, 3, 3), (1, 2, 1), strict=True)
        )
        self.register_buffer("colour_weight", torch.randn(3, _COLOUR_UNITS, generator=generator))
        self.register_buffer("colour_bias", 0.5 * torch.randn(_COLOUR_UNITS, generator=generator))
        self.register_buffer("fovea_weight", _smooth_filters(generator))
        total = _COLOUR_UNITS + 2 * sum(_WIDTHS[1:]) + 2 * _FOVEA_UNITS + 4 * self.fps
        self.register_buffer("mean", torch.zeros(total))
        self.register_buffer("scale", torch.ones(total))
        self.register_buffer("projection", _orthogonal(total, dim, generator))
        self.requires_grad_(False)
        self._calibrate((dim, seed, _CALIBRATION_CLIPS), generator)

    @torch.no_grad()
    def forward(self, clips: Tensor) -> Tensor:
        """Return features (batch, dim) float32 of clips (batch, 3, frames, height, width) in [0, 1]."""
        standard_BD = ((self._describe(clips) - self.mean) * self.scale).clamp(-_CLAMP, _CLAMP)
        return standard_BD @ self.projection

    @torch.no_grad()
    def _calibrate(self, key: tuple[int, int, int], generator: torch.Generator) -> None:
        """Set the statistics, which take seconds to measure: those of a key once in a process."""
        if key not in _STATISTICS:
            _STATISTICS[key] = self._measure(generator)
        self.mean, self.scale = (statistic.clone() for statistic in _STATISTICS[key])

    def _measure(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return mean and inverse standard deviation of the descriptors of synthetic clips."""
        clips = synthetic_clips(_CALIBRATION_CLIPS, self.fps, self.size, generator)
        raw_BD = torch.cat([self._describe(part) for part in clips.split(_CLIPS_AT_ONCE)])
        return raw_BD.mean(0), 1 / raw_BD.std(0).clamp_min(1e-4)

    def _describe(self, clips: Tensor) -> Tensor:
        """Return the unstandardised descriptors (batch, total): colour, motion, fovea, place."""
        mask = _foreground(clips)
        change = torch.zeros_like(mask)
        change[:, :, 1:] = mask[:, :, 1:] - mask[:, :, :-1]
        weight = mask.square()
        colour = (clips * weight).sum((2, 3, 4)) / weight.sum((2, 3, 4)).clamp_min(1)
        parts = [F.relu((colour - 0.5) * 4 @ self.colour_weight + self.colour_bias)]
        x = torch.cat([3 * mask, 3 * change], 1)
        for layer in self.layers:
            x = F.relu(layer(x))
            parts += [x.mean((2, 3, 4)), x.amax((2, 3, 4))]
        mask_BTHW = mask[:, 0]
        x_BT, y_BT, extent_BT, share_BT = _place(mask_BTHW)
        seen = F.conv3d(_fovea(mask_BTHW, x_BT, y_BT, extent_BT), self.fovea_weight, padding=(1, 0, 0))[..., 0, 0]
        return torch.cat([*parts, seen.mean(2), seen.amax(2), x_BT, y_BT, extent_BT, share_BT.sqrt()], 1)


def _foreground(clips_BCTHW: Tensor) -> Tensor:
    """Return how much each pixel differs from the clip's median colour, (batch, 1, frames, H, W) in [0, 1]."""
    background = clips_BCTHW[..., ::4, ::4].flatten(2).median(-1).values[:, :, None, None, None]
    distance = (clips_BCTHW - background).square().sum(1, keepdim=True).sqrt()
    distance = F.avg_pool3d(distance, (1, 3, 3), 1, (0, 1, 1))
    strongest = distance.flatten(1).amax(1).clamp_min(0.15)[:, None, None, None, None]
    return ((distance / strongest - 0.3) * 2.5).clamp(0, 1)


def _place(mask_BTHW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return centre x and y in [-1, 1], extent and share of the frame of a mask, each (batch, frames)."""
    size = mask_BTHW.shape[-1]
    line = torch.linspace(-1, 1, size, device=mask_BTHW.device)
    area = mask_BTHW.sum((2, 3))
    total = area.clamp_min(1e-3)
    visible = (area > 8).float()
    across, down = mask_BTHW.sum(2), mask_BTHW.sum(3)
    x = (across * line).sum(2) / total * visible
    y = (down * line).sum(2) / total * visible
    spread = (across * line**2).sum(2) / total - x**2 + (down * line**2).sum(2) / total - y**2
    return x, y, spread.clamp_min(0.005).sqrt(), area / size**2


def _fovea(mask_BTHW: Tensor, x_BT: Tensor, y_BT: Tensor, extent_BT: Tensor) -> Tensor:
    """Return the mask cut out around its centre at its own scale: (batch, 1, frames, _FOVEA, _FOVEA)."""
    batch, frames, size, _ = mask_BTHW.shape
    line = torch.linspace(-_FOVEA_REACH, _FOVEA_REACH, _FOVEA, device=mask_BTHW.device)
    across = x_BT[..., None] + extent_BT[..., None] * line
    down = y_BT[..., None] + extent_BT[..., None] * line
    shape = (batch, frames, _FOVEA, _FOVEA)
    grid = torch.stack([across[:, :, None, :].expand(shape), down[:, :, :, None].expand(shape)], -1)
    cut = F.grid_sample(mask_BTHW.reshape(-1, 1, size, size), grid.flatten(0, 1), align_corners=True)
    return cut.view(batch, 1, frames, _FOVEA, _FOVEA)


def _random_conv(before: int, after: int, kernel: int, stride: int, generator: torch.Generator) -> nn.Conv3d:
    """Return a convolution of random weights, ``stride`` in time; half of its filters see contrasts only."""
    padding = (1, kernel // 2, kernel // 2)
    layer = nn.Conv3d(before, after, (3, kernel, kernel), (stride, 2, 2), padding, device="meta")  # both are set below
    weight = torch.randn(layer.weight.shape, generator=generator)
    contrast = weight[: after // 2]
    contrast -= contrast.mean((2, 3, 4), keepdim=True)
    layer.weight = nn.Parameter(weight * (2 / weight[0].numel()) ** 0.5)
    layer.bias = nn.Parameter(0.1 * torch.randn(after, generator=generator))
    return layer


def _smooth_filters(generator: torch.Generator) -> Tensor:
    """Return unit-norm random filters over the whole fovea, (units, 1, 3, _FOVEA, _FOVEA)."""
    coarse = torch.randn(_FOVEA_UNITS, 3, 8, 8, generator=generator)
    filters = F.interpolate(coarse, size=(_FOVEA, _FOVEA), mode="bicubic").unsqueeze(1)
    return filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1, 1)


def _orthogonal(total: int, dim: int, generator: torch.Generator) -> Tensor:
    """Return a seeded (total, dim) map that keeps distances where ``dim`` allows it, at the scale of its input."""
    square = torch.linalg.qr(torch.randn(max(total, dim), max(total, dim), generator=generator)).Q
    return square[:total, :dim] * math.sqrt(max(total, dim) / total)
