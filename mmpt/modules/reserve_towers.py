"""The encoders of MERLOT Reserve (arXiv:2201.02639, section 3.2): of frames, of sounds, of text spans.

Shapes: N images, sounds or spans, L sequence, H hidden, n coordinate axes, G tokens pooled to one.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpt.modules.linear import Linear
from mmpt.modules.reserve_positions import (
    audio_coordinates,
    grid_coordinates,
    reserve_rotary,
    span_coordinates,
)
from mmpt.modules.reserve_tokens import AUDIO_TOKENS, PATCH
from mmpt.modules.transformer import TransformerEncoder, TransformerOptions
from mmpt.utils.errors import ConfigError, DataError

__all__ = [
    "MELS",
    "AttentionPool",
    "AudioEncoder",
    "Encoded",
    "SpanEncoder",
    "Tower",
    "VisionEncoder",
    "patches_of",
    "tower_options",
]

#: Numbers that a frame of a spectrogram has: 64 mel bands and the playback speed.
MELS = 65
#: As published: so low that in float32 nothing is left of the scores, and padding attends evenly to all.
_MASKED_SCORE = -1e10
#: Frames of a spectrogram that make one token.
_AUDIO_STRIDE = 2


class Encoded(NamedTuple):
    """``cls`` (N, H), ``sequence`` (N, L, H) without it, ``pooled`` (N, L / G, H)."""

    cls: Tensor
    sequence: Tensor
    pooled: Tensor


def tower_options(
    hidden_size: int, num_layers: int, size_per_head: int, gradient_checkpointing: bool = False
) -> TransformerOptions:
    """Return what all of Reserve's transformers share: norms first, quick GELU, no bias behind attention and MLP.

    Raises:
        ConfigError: if the heads do not fill the hidden size.
    """
    if size_per_head < 1 or hidden_size % size_per_head:
        raise ConfigError(f"model.hidden_size: {hidden_size} is not a multiple of model.size_per_head: {size_per_head}")
    return TransformerOptions(
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=hidden_size // size_per_head,
        intermediate_size=4 * hidden_size,
        activation="quick_gelu",
        norm="pre",
        layer_norm_eps=1e-5,
        output_bias=False,
        masked_score=_MASKED_SCORE,
        gradient_checkpointing=gradient_checkpointing,
    )


class Tower(nn.Module):
    """A transformer with a norm before its first and one after its last layer, and optionally a CLS in front."""

    def __init__(self, options: TransformerOptions, with_cls: bool = True) -> None:
        super().__init__()
        size, eps = options.hidden_size, options.layer_norm_eps
        self.head_size = size // options.num_heads
        self.pre_ln = nn.LayerNorm(size, eps=eps)
        self.encoder = TransformerEncoder(options)
        self.final_ln = nn.LayerNorm(size, eps=eps)
        self.with_cls = with_cls
        if with_cls:
            self.cls = nn.Parameter(torch.zeros(size))
            self.cls_proj = Linear(size, size)

    def forward(
        self, hidden: Tensor, coordinates: Tensor, mask: Tensor | None = None, places: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor]:
        """Encode ``hidden`` (N, L, H).

        Args:
            coordinates: float (L, n) or (N, L, n); those of the CLS are 0.
            mask: true where a position may be seen, (N, L) or, without a CLS, (N, L, L) with a row per query. The
                CLS always is.
            places: without a CLS, which of the N * L positions are wanted, int64 (n,); None: all.

        Returns:
            The projected CLS (N, H), or None, and the sequence (N, L, H), or (n, H), both after the last norm.
        """
        if self.with_cls:
            hidden = torch.cat([self.cls.to(hidden.dtype).expand(len(hidden), 1, -1), hidden], dim=1)
            coordinates = F.pad(coordinates, (0, 0, 1, 0))
            mask = None if mask is None else F.pad(mask.bool(), (1, 0), value=True)
        rotary = reserve_rotary(coordinates.to(hidden.device), self.head_size)
        output = self.encoder(self.pre_ln(hidden), mask, rotary=rotary, rows=places)
        states = self.final_ln(output.last_hidden_state)
        if not self.with_cls:
            return None, states
        return self.cls_proj(states[:, 0]), states[:, 1:]


class AttentionPool(nn.Module):
    """Multi-head attention of the mean of a group to its members: one token for each group."""

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.out = (Linear(size, size) for _ in range(4))

    def forward(self, groups: Tensor) -> Tensor:
        """Pool ``groups`` (.., G, H) to (.., H)."""
        rows = groups.flatten(0, -3)
        query, key, value = (
            projection(one).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection, one in (
                (self.query, rows.mean(1, keepdim=True)),
                (self.key, rows),
                (self.value, rows),
            )
        )
        pooled = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(1)
        return self.out(pooled).view(*groups.shape[:-2], -1)


def patches_of(frames: Tensor) -> Tensor:
    """Cut frames (.., 3, rows * 16, columns * 16), uint8 or float in [0, 1], to patches (.., rows * columns, 768).

    Raster order; a patch is flattened by row, column, channel. uint8 becomes float32 in [0, 1].

    Raises:
        DataError: if the sides are not multiples of 16 pixels.
    """
    if frames.shape[-3] != 3 or frames.shape[-1] % PATCH or frames.shape[-2] % PATCH:
        raise DataError(
            f"frames of shape {tuple(frames.shape[-3:])}: expected (3, height, width) in multiples of {PATCH} pixels"
        )
    if frames.dtype == torch.uint8:
        frames = frames.float() / 255
    cut = frames.unflatten(-1, (-1, PATCH)).unflatten(-3, (-1, PATCH))  # .., 3, rows, 16, columns, 16
    return cut.movedim(-5, -1).transpose(-4, -3).flatten(-3).flatten(-3, -2)


class VisionEncoder(nn.Module):
    """A vision transformer whose patches are pooled, 2 x 2 to one token as published."""

    def __init__(self, options: TransformerOptions, pooling: int = 2) -> None:
        super().__init__()
        self.pooling = pooling
        self.embedding = Linear(3 * PATCH * PATCH, options.hidden_size)
        self.transformer = Tower(options)
        self.seq_attnpool = AttentionPool(options.hidden_size, options.num_heads)

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Encoded:
        """Encode ``patches``, float (N, rows * columns, 768), of a ``grid`` of (rows, columns).

        Raises:
            DataError: if the patches are not those of the grid.
        """
        rows, columns = grid
        if patches.shape[-2:] != (rows * columns, 3 * PATCH * PATCH):
            raise DataError(f"patches {tuple(patches.shape)} are not those of a grid of {rows} x {columns}")
        if rows % self.pooling or columns % self.pooling:
            raise ConfigError(f"dataset.image_grid: {rows} x {columns} does not split by model.pooling: {self.pooling}")
        embedded = self.embedding(patches.to(self.embedding.weight.dtype))
        cls, sequence = self.transformer(embedded, grid_coordinates(rows, columns))
        assert cls is not None
        side = self.pooling
        squares = sequence.unflatten(1, (rows // side, side, columns // side, side)).transpose(2, 3)
        return Encoded(cls, sequence, self.seq_attnpool(squares.flatten(3, 4).flatten(1, 2)))


class AudioEncoder(nn.Module):
    """A transformer over the spectrogram of a short sound, pooled to six tokens."""

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__()
        self.embedding = nn.Conv1d(MELS, options.hidden_size, _AUDIO_STRIDE, stride=_AUDIO_STRIDE)
        self.transformer = Tower(options)
        self.seq_attnpool = AttentionPool(options.hidden_size, options.num_heads)

    def forward(self, clips: Tensor) -> Encoded:
        """Encode ``clips``, log-mel spectrograms (N, 60, 65), any float dtype.

        Raises:
            DataError: if they are of another shape.
        """
        if clips.dim() != 3 or clips.shape[2] != MELS or clips.shape[1] % (_AUDIO_STRIDE * AUDIO_TOKENS):
            raise DataError(f"audio clips of shape {tuple(clips.shape)}: expected (clips, 60, {MELS})")
        embedded = self.embedding(clips.to(self.embedding.weight.dtype).transpose(1, 2)).transpose(1, 2)
        cls, sequence = self.transformer(embedded, audio_coordinates(embedded.shape[1]))
        assert cls is not None
        return Encoded(cls, sequence, self.seq_attnpool(sequence.unflatten(1, (AUDIO_TOKENS, -1))))


class SpanEncoder(nn.Module):
    """A small transformer over the words of a span, of which the CLS is the span's vector."""

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__()
        self.transformer = Tower(options)

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Encode token embeddings (N, L, H) with ``mask`` (N, L), true where a token is real, to (N, H)."""
        cls, _ = self.transformer(embeddings, span_coordinates(embeddings.shape[1]), mask)
        assert cls is not None
        return cls
