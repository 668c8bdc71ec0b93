"""A small 3-D convolutional video encoder with seeded random weights: features without a download.

Rectified random convolutions and pooling are a strong baseline for shape and motion (Jarrett et al.,
"What is the best multi-stage architecture for object recognition?", ICCV 2009). This one looks at what
stands out from the backdrop of its clip, by three paths:

* which colour it has: random rectified combinations of its mean colour;
* what it is and how it moves: random 3-D convolutions over the silhouette and its change between frames,
  mean and max pooled at each depth, and random filters over a glimpse that follows its centre and
  extent (spatial attention as in Jaderberg et al., "Spatial transformer networks", NeurIPS 2015);
* where it is at each moment: centre, extent and area of the silhouette in each frame.

Outputs are standardised by statistics of a fixed, seeded set of synthetic clips: features depend on the
clip and the seed alone, never on a corpus. Shape suffixes: B clips, C channels, T frames, H height,
W width, D features.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SmallConv3d", "synthetic_clips"]

_COLOURS = 48
_WIDTHS = (32, 64, 80)
_GLIMPSES = 40
_GLIMPSE_SIZE = 20
_CALIBRATION_CLIPS = 256
# Clips computed at once: their activations stay in the cache.
_BLOCK = 16


class SmallConv3d(nn.Module):
    """Encode clips of one second into vectors, with random weights fixed by ``seed``.

    Clips have ``fps`` frames of ``size`` x ``size`` pixels. Nothing is trained and nothing is loaded.
    The descriptors number 512; another ``dim`` is a fixed random projection of them.

    Raises:
        ValueError: if ``dim`` is not positive.
    """

    fps: int = 8
    size: int = 64

    def __init__(self, dim: int = 512, seed: int = 0) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be positive, not {dim}")
        self.dim, self.seed = dim, seed
        generator = torch.Generator().manual_seed(seed)
        self.colour = nn.Linear(3, _COLOURS)
        self.colour.weight.data = 4 * torch.randn(_COLOURS, 3, generator=generator)
        self.colour.bias.data = 0.5 * torch.randn(_COLOURS, generator=generator)
        kernels, widths = (5, 3, 3), (2, *_WIDTHS)
        self.layers = nn.ModuleList(
            _random_conv(widths[depth], widths[depth + 1], kernels[depth], 2 if depth == 1 else 1, generator)
            for depth in range(len(_WIDTHS))
        )
        coarse = torch.randn(_GLIMPSES, 3, 8, 8, generator=generator)
        filters = F.interpolate(coarse, size=(_GLIMPSE_SIZE, _GLIMPSE_SIZE), mode="bicubic")
        self.register_buffer("glimpse_filters", F.normalize(filters.flatten(1)).view_as(filters)[:, None])
        descriptors = _COLOURS + 2 * sum(_WIDTHS) + 2 * _GLIMPSES + 4 * self.fps
        self.register_buffer("mean", torch.zeros(descriptors))
        self.register_buffer("scale", torch.ones(descriptors))
        projection = torch.randn(descriptors, dim, generator=generator) / descriptors**0.5
        self.register_buffer("projection", None if dim == descriptors else projection)
        self.requires_grad_(False)
        self._calibrate(generator)

    @torch.no_grad()
    def _calibrate(self, generator: torch.Generator) -> None:
        """Measure mean and spread of the descriptors on synthetic clips."""
        clips = synthetic_clips(_CALIBRATION_CLIPS, self.fps, self.size, generator)
        found_BD = torch.cat([self._describe(block) for block in clips.split(_BLOCK)])
        self.mean.copy_(found_BD.mean(0))
        self.scale.copy_(1 / found_BD.std(0).clamp_min(1e-4))

    @torch.no_grad()
    def forward(self, clips: Tensor) -> Tensor:
        """Return features (batch, dim) float32 of clips (batch, 3, ``fps``, height, width) in [0, 1].

        Raises:
            ValueError: if the shape differs.
        """
        if clips.dim() != 5 or clips.shape[1] != 3 or clips.shape[2] != self.fps:
            raise ValueError(f"expected clips (batch, 3, {self.fps}, height, width), not {tuple(clips.shape)}")
        if not len(clips):
            return clips.new_zeros(0, self.dim)
        described = torch.cat([self._describe(block) for block in clips.split(_BLOCK)])
        # Unusual clips (black padding) must not dwarf the others.
        standard = ((described - self.mean) * self.scale).clamp(-5, 5)
        return standard if self.projection is None else standard @ self.projection

    def _describe(self, clips_BCTHW: Tensor) -> Tensor:
        """Return the descriptors (batch, 512) before standardisation."""
        silhouette = _silhouette(clips_BCTHW)
        change = torch.zeros_like(silhouette)
        change[:, :, 1:] = silhouette[:, :, 1:] - silhouette[:, :, :-1]
        weight = silhouette.square()
        colour_BC = (clips_BCTHW * weight).sum((2, 3, 4)) / weight.sum((2, 3, 4)).clamp_min(1)
        parts = [F.relu(self.colour(colour_BC - 0.5))]
        x_BCTHW = 3 * torch.cat([silhouette, change], 1)
        for layer in self.layers:
            x_BCTHW = F.relu(layer(x_BCTHW))
            parts += [x_BCTHW.mean((2, 3, 4)), x_BCTHW.amax((2, 3, 4))]
        centre_x, centre_y, extent, area = _moments(silhouette[:, 0])
        seen_BCT = self._glimpse(silhouette[:, 0], centre_x, centre_y, extent)
        parts += [seen_BCT.mean(2), seen_BCT.amax(2), centre_x, centre_y, extent, area.sqrt()]
        return torch.cat(parts, 1)

    def _glimpse(self, silhouette_BTHW: Tensor, x_BT: Tensor, y_BT: Tensor, extent_BT: Tensor) -> Tensor:
        """Filter the silhouette, moved to the middle and scaled to one size: (B, C, T)."""
        batch, frames, height, width = silhouette_BTHW.shape
        steps = torch.linspace(-2, 2, _GLIMPSE_SIZE, device=silhouette_BTHW.device)
        side = (batch, frames, _GLIMPSE_SIZE, _GLIMPSE_SIZE)
        across = (x_BT[..., None] + extent_BT[..., None] * steps)[:, :, None, :].expand(side)
        down = (y_BT[..., None] + extent_BT[..., None] * steps)[:, :, :, None].expand(side)
        grid = torch.stack([across, down], -1).flatten(0, 1)
        seen = F.grid_sample(silhouette_BTHW.reshape(-1, 1, height, width), grid, align_corners=True)
        return F.conv3d(seen.view(batch, 1, *side[1:]), self.glimpse_filters, padding=(1, 0, 0))[..., 0, 0]


def synthetic_clips(clips: int, frames: int, size: int, generator: torch.Generator) -> Tensor:
    """Return (clips, 3, frames, size, size) floats in [0, 1]: blobs and boxes that move and grow before noise."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(clips, *shape, generator=generator)

    patches = 0.08 * torch.randn(clips, 1, 8, 8, generator=generator)
    backdrop = uniform(0.1, 0.5, 3, 1, 1, 1) + F.interpolate(patches, size=(size, size)).unsqueeze(2)
    time = torch.linspace(0, 1, frames).view(1, frames, 1, 1)
    grid = torch.linspace(-1, 1, size)
    x, y = (uniform(-0.5, 0.5, 1, 1, 1) + uniform(-1, 1, 1, 1, 1) * (time - 0.5) for _ in range(2))
    radius = (uniform(0.2, 0.5, 1, 1, 1) * (1 + uniform(-0.6, 0.6, 1, 1, 1) * time)).clamp_min(0.05)
    across, down = ((grid.view(1, 1, 1, size) - x) / radius).abs(), ((grid.view(1, 1, size, 1) - y) / radius).abs()
    power = 2.0 ** uniform(0, 3, 1, 1, 1)
    distance = (across.pow(power) + down.pow(power)).pow(1 / power)
    alpha = ((1 - distance) * radius * size / 4 + 0.5).clamp(0, 1).unsqueeze(1)
    clip = backdrop * (1 - alpha) + uniform(0, 1, 3, 1, 1, 1) * alpha
    return (clip + 0.02 * torch.randn(clip.shape, generator=generator)).clamp(0, 1)


def _random_conv(before: int, after: int, kernel: int, time_stride: int, generator: torch.Generator) -> nn.Conv3d:
    """Return a convolution of random weights; half of its filters see contrasts only (zero mean)."""
    layer = nn.Conv3d(before, after, (3, kernel, kernel), (time_stride, 2, 2), (1, kernel // 2, kernel // 2))
    weight = torch.randn(layer.weight.shape, generator=generator)
    weight[: after // 2] -= weight[: after // 2].mean((2, 3, 4), keepdim=True)
    layer.weight.data = weight * (2 / weight[0].numel()) ** 0.5
    assert layer.bias is not None
    layer.bias.data = 0.1 * torch.randn(after, generator=generator)
    return layer


def _silhouette(clips_BCTHW: Tensor) -> Tensor:
    """Return (B, 1, T, H, W) in [0, 1]: how far each pixel's colour is from the median colour of its clip."""
    backdrop = clips_BCTHW[..., ::4, ::4].flatten(2).median(-1).values[:, :, None, None, None]
    distance = (clips_BCTHW - backdrop).square().sum(1, keepdim=True).sqrt()
    smooth = F.avg_pool3d(distance, (1, 3, 3), 1, (0, 1, 1))
    # A floor keeps the noise of an empty scene from being blown up to a shape.
    peak = smooth.flatten(1).amax(1).clamp_min(0.15)[:, None, None, None, None]
    return ((smooth / peak - 0.3) * 2.5).clamp(0, 1)


def _moments(silhouette_BTHW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return centre x and y in [-1, 1], extent and area share of each frame, all (B, T); 0 where nothing is seen."""
    height, width = silhouette_BTHW.shape[2:]
    across = torch.linspace(-1, 1, width, device=silhouette_BTHW.device)
    down = torch.linspace(-1, 1, height, device=silhouette_BTHW.device)
    columns, rows = silhouette_BTHW.sum(2), silhouette_BTHW.sum(3)
    total = columns.sum(2)
    seen, divisor = (total > 0.002 * height * width).float(), total.clamp_min(1e-3)
    x, y = (columns * across).sum(2) / divisor * seen, (rows * down).sum(2) / divisor * seen
    spread = (columns * across**2).sum(2) / divisor - x**2 + (rows * down**2).sum(2) / divisor - y**2
    return x, y, spread.clamp_min(0.005).sqrt(), total / (height * width)
