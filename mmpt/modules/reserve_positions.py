"""Positions of MERLOT Reserve (arXiv:2201.02639): coordinates in time and space that scale queries and keys.

The published code means to rotate pairs of dimensions but swaps sine and cosine and does not mix the pairs: what is
left is a factor for each dimension. Released weights were trained with that, so it is kept.

Shapes: B batch, L sequence, n coordinate axes, D dimensions of a head.
"""

import math

import torch
from torch import Tensor

from mmpt.modules.transformer import Rotary
from mmpt.utils.errors import ConfigError

__all__ = [
    "ROTARY_DIMENSIONS",
    "audio_coordinates",
    "centred",
    "grid_coordinates",
    "reserve_rotary",
    "rotary_factors",
    "span_coordinates",
]

#: Dimensions of a head that positions scale; the others stay.
ROTARY_DIMENSIONS = 32
#: The longest text span is read as if it had so many positions.
_SPAN_LENGTH = 16
#: Frequencies of an axis run from 1 to this, evenly in their logarithm.
_HIGHEST = 5


def centred(n: int) -> Tensor:
    """Return ``-(n // 2) .. -1, 1 .. n - n // 2``, float32 (n,): places around a middle that is left out."""
    return torch.cat([torch.arange(-(n // 2), 0), torch.arange(1, n - n // 2 + 1)]).float()


def grid_coordinates(rows: int, columns: int) -> Tensor:
    """Return the (row, column) of the patches of an image in raster order, float32 (rows * columns, 2), in (-1, 1)."""
    places = torch.stack(torch.meshgrid(centred(rows), centred(columns), indexing="ij"), dim=-1)
    return places.flatten(0, 1) / (max(rows, columns) + 1)


def audio_coordinates(length: int) -> Tensor:
    """Return the times of the tokens of a sound, float32 (length, 1)."""
    return centred(length)[:, None] / length


def span_coordinates(length: int) -> Tensor:
    """Return the times of the tokens of a text span, float32 (length, 1)."""
    return torch.arange(1, length + 1)[:, None] / _SPAN_LENGTH


def rotary_factors(coordinates: Tensor) -> Tensor:
    """Return what each dimension is multiplied by, (.., L, 32) of coordinates (.., L, n), in their dtype.

    An angle is coordinate * frequency * pi, axis after axis; a pair of dimensions shares one: the first is scaled by
    sin - cos of it, the second by sin + cos.

    Raises:
        ConfigError: if 32 dimensions cannot be shared out among n axes.
    """
    axes = coordinates.shape[-1]
    if not axes or ROTARY_DIMENSIONS % (2 * axes):
        raise ConfigError(f"{axes} coordinate axes do not share {ROTARY_DIMENSIONS} dimensions in pairs")
    count = ROTARY_DIMENSIONS // (2 * axes)
    frequencies = torch.linspace(0, math.log2(_HIGHEST), count, dtype=torch.float64, device=coordinates.device).exp2()
    angles = (coordinates[..., None] * (frequencies * math.pi).to(coordinates.dtype)).flatten(-2)
    sine, cosine = angles.sin(), angles.cos()
    return torch.stack([sine - cosine, sine + cosine], dim=-1).flatten(-2)


def reserve_rotary(coordinates: Tensor, head_size: int) -> Rotary:
    """Return the hook of an encoder whose sequences have coordinates (L, n) or (B, L, n).

    Raises:
        ConfigError: if a head has fewer than 32 dimensions, or as :func:`rotary_factors`.
    """
    if head_size < ROTARY_DIMENSIONS:
        raise ConfigError(
            f"model.size_per_head: {head_size}, but positions scale the first {ROTARY_DIMENSIONS} dimensions of a head"
        )
    factors = rotary_factors(coordinates)
    rest = factors.new_ones(*factors.shape[:-1], head_size - ROTARY_DIMENSIONS)
    factors = torch.cat([factors, rest], dim=-1)
    factors = factors[:, None] if factors.dim() == 3 else factors

    def turn(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        scale = factors.to(query.dtype)
        return query * scale, key * scale

    return turn
