"""Self-attention of the shared encoder, and the masks that it takes.

Shapes: B batch, L sequence, H hidden size, A heads.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpt.modules.kv_cache import LayerCache
from mmpt.modules.linear import Linear
from mmpt.modules.packing import Packing, packed_attention

__all__ = ["MASKED_SCORE", "AttentionInputs", "Rotary", "SelfAttention", "additive_mask"]

# Added to masked scores. Finite in fp16 too, so that a row whose keys are all masked gives numbers and not NaN,
# and low enough that exp() of it is exactly zero beside any unmasked score.
MASKED_SCORE = -3e4

# Turns queries and keys, each (B, A, L, H / A), by their positions.
Rotary = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def additive_mask(mask: Tensor, dtype: torch.dtype, score: float = MASKED_SCORE) -> Tensor:
    """Turn a mask, true where a key may be seen, into scores to add.

    Args:
        mask: (B, L) for keys, or (B or 1, L, L) with a row per query; bool or integer.

    Returns:
        (B, 1, 1, L) or (B, 1, L, L) of ``dtype``: 0 where seen, ``score`` where not.
    """
    mask = mask.bool()
    mask = mask[:, None, None, :] if mask.dim() == 2 else mask[:, None]
    if dtype == torch.float16:  # holds no lower number with room for what it is added to
        score = max(score, MASKED_SCORE)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, score)


class AttentionInputs(NamedTuple):
    """What a layer's attention takes beside the hidden states: an additive mask, and the arguments of the encoder.

    For packed states (N, H) the packing stands in place of the mask; neither a cache nor maps are there. ``rows``,
    int64 (n,), are the positions of all sequences in one row that go on behind attention, the others being seen alone.
    """

    mask: Tensor | None = None
    rotary: Rotary | None = None
    need_attention: bool = False
    cache: LayerCache | None = None
    packing: Packing | None = None
    rows: Tensor | None = None


class SelfAttention(nn.Module):
    """Multi-head attention up to, but without, the output projection."""

    def __init__(self, size: int, num_heads: int, bias: bool, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = Linear(size, size, bias=bias)
        self.key = Linear(size, size, bias=bias)
        self.value = Linear(size, size, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, inputs: AttentionInputs) -> tuple[Tensor, Tensor | None]:
        """Return the context (B, L, H) and, when asked for, the probabilities (B, A, L, L) before dropout."""
        query, key, value = (
            projection(hidden).unflatten(-1, (self.num_heads, -1)) for projection in (self.query, self.key, self.value)
        )
        dropout = self.dropout.p if self.training else 0.0
        if inputs.packing is not None:
            return packed_attention(query, key, value, inputs.packing, dropout).flatten(1), None
        query, key, value = (projected.transpose(1, 2) for projected in (query, key, value))
        if inputs.rotary is not None:
            query, key = inputs.rotary(query, key)
        if inputs.cache is not None:
            key, value = inputs.cache.append(key, value)
        mask = inputs.mask
        if mask is not None and mask.dtype != query.dtype:  # under autocast
            if query.dtype == torch.float16:
                mask = mask.clamp(min=MASKED_SCORE)
            mask = mask.to(query.dtype)
        if inputs.need_attention:
            scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
            probabilities = (scores if mask is None else scores + mask).softmax(-1)
            context = self.dropout(probabilities) @ value
        else:
            probabilities = None
            context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return context.transpose(1, 2).flatten(2), probabilities
