"""MERLOT's image encoder (arXiv:2106.02636, section 3.1): convolutions, then a transformer over the places they leave.

Shapes: I images, h x w places of an image (16 pixels a side each), P = h / 2 * w / 2 pooled places, H hidden.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpt.modules.lite_resnet import STRIDE, LiteResNet
from mmpt.modules.transformer import TransformerEncoder, TransformerOptions
from mmpt.utils.errors import DataError

__all__ = ["GRID", "POOL", "EncodedImages", "GridPositions", "ImageEncoder", "ImageTokens"]

#: Rows and columns of the tables of positions.
GRID = 64
#: Places of a side that become one token.
POOL = 2
#: States that stand for the whole image: the joint encoder's, and that which is compared with text.
_SUMMARIES = 2


class EncodedImages(NamedTuple):
    """``summary`` (I, H), of a joint sequence; ``target`` (I, H), compared with text; ``patches`` (I, h/2, w/2, H)."""

    summary: Tensor
    target: Tensor
    patches: Tensor


class GridPositions(nn.Module):
    """Learned embeddings of places, ``patches`` (1, 64, 64, H), and of the states before them, ``cls`` (1, n, H)."""

    def __init__(self, hidden_size: int, summaries: int) -> None:
        super().__init__()
        self.patches = nn.Parameter(torch.zeros(1, GRID, GRID, hidden_size))
        self.cls = nn.Parameter(torch.zeros(1, summaries, hidden_size))

    def forward(self, rows: int, columns: int) -> Tensor:
        """Return (1, n + rows * columns, H), places row by row.

        Raises:
            DataError: if there are more rows or columns than embeddings.
        """
        if max(rows, columns) > GRID:
            raise DataError(f"an image has {rows} x {columns} places, but the model has embeddings of {GRID} x {GRID}")
        return torch.cat([self.cls, self.patches[:, :rows, :columns].flatten(1, 2)], dim=1)


class ImageEncoder(nn.Module):
    """ResNet, projection, 12 pre-norm layers over two summaries and the places, norm, pooling.

    Args:
        options: of the transformer.
        resnet_layers: blocks of each stage; none: squares of 16 pixels are projected as they are.
    """

    def __init__(self, options: TransformerOptions, resnet_layers: Sequence[int]) -> None:
        super().__init__()
        hidden, eps = options.hidden_size, options.layer_norm_eps
        self.resnet = LiteResNet(resnet_layers, options.gradient_checkpointing) if len(resnet_layers) else None
        if self.resnet is None:
            self.projection = nn.Conv2d(3, hidden, STRIDE, STRIDE)
        else:
            self.projection = nn.Conv2d(self.resnet.width, hidden, 1)
        self.positions = GridPositions(hidden, _SUMMARIES)
        self.input_norm = nn.LayerNorm(hidden, eps=eps)
        self.encoder = TransformerEncoder(options)
        self.norm = nn.LayerNorm(hidden, eps=eps)

    def forward(self, images: Tensor) -> EncodedImages:
        """Encode images (I, 3, height, width), uint8 or floats in [0, 1].

        Raises:
            DataError: if the sides are not multiples of 32 pixels.
        """
        if images.dim() != 4 or images.shape[1] != 3 or any(side % (STRIDE * POOL) for side in images.shape[-2:]):
            raise DataError(
                f"images have shape {tuple(images.shape)}, expected (images, 3, height, width) with sides that are "
                f"multiples of {STRIDE * POOL}: set dataset.image_size so"
            )
        dtype = self.projection.weight.dtype
        pixels = images.to(dtype) / 255 if images.dtype == torch.uint8 else images.to(dtype)
        pixels = pixels - 0.5
        places = self.projection(pixels if self.resnet is None else self.resnet(pixels))
        rows, columns = places.shape[-2:]
        positions = self.positions(rows, columns)
        # the summaries begin as their embeddings alone
        tokens = F.pad(places.flatten(2).transpose(1, 2), (0, 0, _SUMMARIES, 0)) + positions
        states = self.norm(self.encoder(self.input_norm(tokens)).last_hidden_state)
        patches = states[:, _SUMMARIES:].unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
        pooled = F.avg_pool2d(patches, POOL).permute(0, 2, 3, 1)
        return EncodedImages(states[:, 0], states[:, 1], pooled)


class ImageTokens(nn.Module):
    """The images of a joint sequence: of each its summary and its pooled places, with index and place.

    Args:
        hidden_size: H.
        max_index: rows of the table of indices.
        eps: of the norm.
    """

    def __init__(self, hidden_size: int, max_index: int, eps: float) -> None:
        super().__init__()
        self.index = nn.Embedding(max_index, hidden_size)
        self.positions = GridPositions(hidden_size, 1)
        self.norm = nn.LayerNorm(hidden_size, eps=eps)

    def forward(self, encoded: EncodedImages, index: Tensor) -> Tensor:
        """Return (I, 1 + P, H); ``index`` int64 (I,), in 0 .. max_index - 1, tells the images of a sequence apart."""
        rows, columns = encoded.patches.shape[1:3]
        tokens = torch.cat([encoded.summary[:, None], encoded.patches.flatten(1, 2)], dim=1)
        return self.norm(tokens + self.index(index)[:, None] + self.positions(rows, columns))
