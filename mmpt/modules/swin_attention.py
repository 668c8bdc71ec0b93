"""Attention within windows with a bias that is learned: fast on the CPU, where torch's fused kernel takes no such bias.

The scores of windows are many times the numbers of what goes in. The forward pass is the fused kernel's, which keeps
none of them; the backward pass makes them again, some windows at a time, while they are in the processor's cache.
What windows that are shifted add to the scores of patches from opposite ends (-100, as published) leaves probabilities
of 1e-44 behind, with which a processor computes many times more slowly than with other numbers: there they are zeros.

Shapes: B batch, W windows, A heads, N patches of a window, D = C / A; V is 1 or W.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["window_attention"]

#: Scores that the backward pass holds at a time: 4 MiB of float32.
_SCORES = 2**20


def window_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Attend within windows: softmax of the scores with the bias added.

    Args:
        query: (B, W, A, N, D), as ``key`` and ``value``.
        bias: of their dtype, (V, A, N, N): the same for all windows, or one for each.

    Returns:
        (B, W, A, N, D).
    """
    if query.device.type == "cpu" and query.dtype in (torch.float32, torch.float64) and torch.is_grad_enabled():
        return _Recomputed.apply(query, key, value, bias)
    return _fused(query, key, value, bias)


def _fused(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    if len(bias) == 1:
        flat = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
        return F.scaled_dot_product_attention(*flat, attn_mask=bias).unflatten(0, query.shape[:2])
    # Windows and heads share a dimension, so that one bias serves the whole batch.
    flat = query.flatten(1, 2), key.flatten(1, 2), value.flatten(1, 2)
    context = F.scaled_dot_product_attention(*flat, attn_mask=bias.flatten(0, 1)[None])
    return context.unflatten(1, query.shape[1:3])


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        constant = bias.detach()  # the fused kernel looks at whether it is to be learned
        if len(bias) == 1:
            context = _fused(query, key, value, constant)
        else:  # sample by sample, which needs no copy of them
            parts = zip(query, key, value, strict=True)
            context = torch.stack([F.scaled_dot_product_attention(*part, attn_mask=constant) for part in parts])
        ctx.save_for_backward(query, key, value, bias, context)
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        query, key, value, bias, context = ctx.saved_tensors
        scale, single = query.shape[-1] ** -0.5, len(bias) == 1
        projections = (gradient * context).sum(-1)
        grads = [torch.empty(given.shape, dtype=given.dtype) for given in (query, key, value)]
        of_bias = torch.zeros_like(bias)
        windows = max(1, _SCORES // max(bias[0].numel(), 1))
        for sample in range(len(query)):
            for first in range(0, query.shape[1], windows):
                part = (sample, slice(first, first + windows))
                rows = slice(0, 1) if single else part[1]
                q, k, v, outer = (given[part].flatten(0, 1) for given in (query, key, value, gradient))
                of_q, of_k, of_v = (given[part].flatten(0, 1) for given in grads)
                count = len(q) // bias.shape[1]
                offset = bias[rows].expand(count, -1, -1, -1).flatten(0, 1)
                weights = torch.baddbmm(offset, q, k.mT, alpha=scale).softmax(-1)
                if not single:
                    torch.threshold_(weights, torch.finfo(weights.dtype).tiny, 0.0)
                torch.bmm(weights.mT, outer, out=of_v)
                scores = torch.baddbmm(projections[part].flatten(0, 1)[..., None], outer, v.mT, beta=-1).mul_(weights)
                by_window = scores.unflatten(0, (count, -1))
                of_bias[rows] += by_window.sum(0, keepdim=True) if single else by_window
                torch.baddbmm(of_q, scores, k, beta=0, alpha=scale, out=of_q)
                torch.baddbmm(of_k, scores.mT, q, beta=0, alpha=scale, out=of_k)
        return (*grads, of_bias)
