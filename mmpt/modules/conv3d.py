"""A small 3-D convolutional video encoder with seeded random weights: features without a download.

Rectified random convolutions and pooling are a strong baseline for shape and motion (Jarrett et al.,
"What is the best multi-stage architecture for object recognition?", ICCV 2009). Mean and max pooling
say what is there, spatial softmax (Levine et al., "End-to-end training of deep visuomotor policies",
JMLR 2016) says where it is at each moment. Outputs are standardised with statistics of a fixed, seeded
set of synthetic clips, so that features depend on the clip and the seed alone, never on a corpus.

Shape suffixes: B clips, C channels, T frames, H height, W width, D features.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SmallConv3d", "synthetic_clips"]

_WIDTHS = (32, 64, 96)
_POINTS = 24
_SHARPNESS = 8.0


def synthetic_clips(clips: int, frames: int, size: int, generator: torch.Generator) -> Tensor:
    """Return (clips, 3, frames, size, size) floats in [0, 1]: coloured boxes and blobs moving before noise."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(clips, *shape, generator=generator)

    backdrop = uniform(0.1, 0.5, 3, 1, 1, 1) + 0.08 * torch.randn(clips, 1, 1, 8, 8, generator=generator).repeat_interleave(
        size // 8, -1
    ).repeat_interleave(size // 8, -2)
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

    def __init__(self, dim: int = 512, seed: int = 0) -> None:
        super().__init__()
        self.dim = dim
        generator = torch.Generator().manual_seed(seed)
        widths = (3, *_WIDTHS)
        self.layers = nn.ModuleList(
            _random_conv(before, after, 5 if before == 3 else 3, generator) for before, after in zip(widths, widths[1:], strict=False)
        )
        total = 2 * sum(_WIDTHS) + 2 * _POINTS * (self.fps // 2)
        projection = torch.randn(total, dim, generator=generator) / total**0.5
        self.register_buffer("mean", torch.zeros(total))
        self.register_buffer("scale", torch.ones(total))
        self.register_buffer("projection", projection)
        self.requires_grad_(False)
        self._calibrate(generator)

    @torch.no_grad()
    def _calibrate(self, generator: torch.Generator) -> None:
        raw_BD = self._describe(synthetic_clips(128, self.fps, self.size, generator))
        self.mean.copy_(raw_BD.mean(0))
        self.scale.copy_(1 / raw_BD.std(0).clamp_min(1e-4))

    def _describe(self, clips: Tensor) -> Tensor:
        """Return the unstandardised descriptors (batch, total)."""
        x = (clips - 0.4) * 4
        parts: list[Tensor] = []
        for depth, layer in enumerate(self.layers):
            x = F.relu(layer(x))
            parts += [x.mean((2, 3, 4)), x.amax((2, 3, 4))]
            if depth == 1:
                parts.append(_where(x[:, :_POINTS]))
        return torch.cat(parts, 1)

    @torch.no_grad()
    def forward(self, clips: Tensor) -> Tensor:
        """Return features (batch, dim) float32 of clips (batch, 3, frames, height, width) in [0, 1]."""
        standard = ((self._describe(clips) - self.mean) * self.scale).clamp(-5, 5)
        return standard @ self.projection


def _random_conv(before: int, after: int, kernel: int, generator: torch.Generator) -> nn.Conv3d:
    """Return a convolution of random weights: half of the filters see contrasts only (zero mean)."""
    layer = nn.Conv3d(before, after, (3, kernel, kernel), stride=(1, 2, 2), padding=(1, kernel // 2, kernel // 2))
    weight = torch.randn(layer.weight.shape, generator=generator)
    contrast = weight[: after // 2]
    contrast -= contrast.mean((2, 3, 4), keepdim=True)
    layer.weight.data = weight * (2 / weight[0].numel()) ** 0.5
    layer.bias.data = 0.1 * torch.randn(after, generator=generator)
    return layer


def _where(x_BCTHW: Tensor) -> Tensor:
    """Return where each channel is strongest at each moment: (batch, channels * frames / 2 * 2) in [-1, 1]."""
    x = F.avg_pool3d(x_BCTHW, (2, 1, 1))
    batch, channels, frames, height, width = x.shape
    flat = x.flatten(3)
    flat = flat / flat.amax((2, 3), keepdim=True).clamp_min(1e-6)
    weight = (flat * _SHARPNESS).softmax(-1).view(batch, channels, frames, height, width)
    across = (weight.sum(3) * torch.linspace(-1, 1, width, device=x.device)).sum(-1)
    down = (weight.sum(4) * torch.linspace(-1, 1, height, device=x.device)).sum(-1)
    return torch.cat([across.flatten(1), down.flatten(1)], 1)
