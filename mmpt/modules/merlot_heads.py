"""What stands on MERLOT's encoders (arXiv:2106.02636, sections 3.2 and 4): heads, and the targets of temporal order.

Shapes: R groups of chunks, n chunks of a group, H hidden.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpt.modules.linear import Linear

__all__ = ["EASY_PAIR", "ORDERS", "AnswerHead", "MLPHead", "TextPositions", "order_targets", "order_weights", "unit"]

#: Classes of a pair of moments: of different videos, the same, the first before the second, the first after it.
ORDERS = 4
#: Weight of a pair of which neither image's place was hidden: its answer can be read from the indices.
EASY_PAIR = 0.01
_UNIT_EPS = 1e-12
#: Options of a question in VCR: an option is right with this share before anything is learned.
_OPTIONS = 4


class MLPHead(nn.Module):
    """Linear, GELU, LayerNorm and Linear: ``dense``, ``LayerNorm`` and ``output``."""

    def __init__(self, inputs: int, hidden_size: int, outputs: int, eps: float) -> None:
        super().__init__()
        self.dense = Linear(inputs, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=eps)
        self.output = Linear(hidden_size, outputs)

    def forward(self, states: Tensor) -> Tensor:
        """Map (.., inputs) to (.., outputs)."""
        return self.output(self.LayerNorm(F.gelu(self.dense(states))))

    def pairs(self, first: Tensor, second: Tensor) -> Tensor:
        """Classify each pair of a row i of ``first`` and a row j of ``second``, (R, n, H) both: (R, n, n, outputs)."""
        rows, count, width = first.shape
        joined = torch.cat(
            [first[:, :, None].expand(rows, count, count, width), second[:, None].expand(rows, count, count, width)], -1
        )
        return self(joined)


class AnswerHead(nn.Module):
    """Dropout, Linear to half the width, GELU, dropout and Linear to one score: ``dense`` and ``output`` (VCR)."""

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.dense = Linear(hidden_size, hidden_size // 2)
        self.output = Linear(hidden_size // 2, 1)

    def reset_bias(self) -> None:
        """Set the bias of the score to the log-odds of one right option among four (published)."""
        nn.init.constant_(self.output.bias, -math.log(_OPTIONS - 1))

    def forward(self, states: Tensor) -> Tensor:
        """Score states (.., H): (..,)."""
        return self.output(self.dropout(F.gelu(self.dense(self.dropout(states)))))[..., 0]


class TextPositions(nn.Module):
    """Positions, LayerNorm and dropout over word embeddings: ``position_embeddings`` and ``LayerNorm``."""

    def __init__(self, positions: int, hidden_size: int, eps: float, dropout: float) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(positions, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, words: Tensor) -> Tensor:
        """Embed word vectors (R, L, H) at their positions 0 .. L - 1."""
        return self.dropout(self.LayerNorm(words + self.position_embeddings.weight[: words.shape[1]]))


def unit(vectors: Tensor) -> Tensor:
    """Scale vectors (.., H) to length one, in float32 or float64; a zero vector stays zero."""
    exact = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    return exact * (exact.square().sum(-1, keepdim=True) + _UNIT_EPS).rsqrt()


def order_targets(sources: Tensor) -> Tensor:
    """Return the class of each ordered pair of moments of a group, int64 (R, n, n), one of :data:`ORDERS`.

    0 where they are of different videos; else 1 for the same moment, 2 where the first comes before the second, 3 where
    it comes after. The places are the true ones, also of images whose index was hidden.

    Args:
        sources: int64 (R, n), equal for moments of one video.
    """
    place = torch.arange(sources.shape[1], device=sources.device)
    first, second = place[:, None], place[None]
    order = torch.where(first == second, 1, torch.where(first < second, 2, 3))
    return torch.where(sources[:, :, None] == sources[:, None], order, 0)


def order_weights(index: Tensor, offset: int) -> Tensor:
    """Return what each pair of images counts, float32 (R, n, n): :data:`EASY_PAIR` where neither index was hidden.

    Args:
        index: int64 (R, n), of the images; from ``offset`` on it says nothing about their place.
    """
    shown = index < offset
    easy = shown[:, :, None] & shown[:, None]
    return torch.ones(easy.shape, dtype=torch.float32, device=index.device).masked_fill(easy, EASY_PAIR)
