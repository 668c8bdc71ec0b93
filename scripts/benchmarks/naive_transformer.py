"""The transformer as the published code computes it: eager attention, every row at full length, a mask per layer.

It runs on the weights of MMPT's own encoder, so that both steps can be compared number by number.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpt.modules.bert import BertModel

__all__ = ["eager_encode", "plain_adam"]

#: What the published encoder adds to masked scores.
_MASKED = -1e4


def eager_encode(bert: BertModel, hidden: Tensor, mask: Tensor) -> Tensor:
    """Encode embedded sequences (B, L, H) under a mask, true where a key may be seen: (B, L) or (B, L, L).

    The mask is made (B, layers, 1, L, L), as published for encoders whose layers may differ.
    """
    layers = bert.encoder.layer
    mask = mask[:, None].expand(-1, mask.shape[-1], -1) if mask.dim() == 2 else mask
    masks = (1 - mask[:, None, None].repeat(1, len(layers), 1, 1, 1).to(hidden.dtype)) * _MASKED
    for number, layer in enumerate(layers):
        hidden = _layer(layer, hidden, masks[:, number])
    return hidden


def plain_adam(model: nn.Module) -> torch.optim.Optimizer:
    """Return Adam that steps from tensor to tensor, operation by operation."""
    return torch.optim.Adam(model.parameters(), lr=5e-5, betas=(0.9, 0.98), foreach=False, fused=False)


def _layer(layer: nn.Module, hidden: Tensor, mask: Tensor) -> Tensor:
    attention, block = layer.attention.self, layer.attention.output
    query, key, value = (
        projection(hidden).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for projection in (attention.query, attention.key, attention.value)
    )
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + mask
    weights = F.dropout(scores.softmax(-1), attention.dropout.p, layer.training)
    context = (weights @ value).transpose(1, 2).flatten(2)
    hidden = block.LayerNorm(block.dropout(block.dense(context)) + hidden)
    widened = F.gelu(layer.intermediate.dense(hidden))
    output = layer.output
    return output.LayerNorm(output.dropout(output.dense(widened)) + hidden)
