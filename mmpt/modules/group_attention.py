"""Attention with dropout in groups of sequences of equal length, for CPUs.

torch's fast kernel for CPUs has no dropout, and what it falls back to keeps the scores three times and scaled copies of
queries and keys. Here the softmax and one byte a score are kept.

Shapes: N positions of all sequences, A heads, D size of a head; a group has R sequences of L positions.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmpt.modules.dropout import apply_mask, draw_kept, kept_scale

__all__ = ["attend_with_dropout"]


def attend_with_dropout(
    query: Tensor, key: Tensor, value: Tensor, groups: Sequence[tuple[int, int]], dropout: float
) -> Tensor:
    """Attend within the sequences of groups, (R, L) each, that follow each other in (N, A, D); return (N, A, D).

    Weights are left out with probability ``dropout``, below 1; there is no second derivative.
    """
    return _Attention.apply(query, key, value, groups, dropout)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, groups: Sequence[tuple[int, int]], dropout: float
    ) -> Tensor:
        heads, size = query.shape[1:]
        count = heads * sum(rows * length**2 for rows, length in groups)
        kept, weights, context = draw_kept((count,), dropout), query.new_empty(count), torch.empty_like(query)
        for place, scored, rows, length in _parts(groups, heads):
            q, k, v = (_by_head(one[place], rows, length) for one in (query, key, value))
            scores = weights[scored].view(-1, length, length)
            torch.softmax(torch.bmm(q, k.transpose(1, 2)).mul_(size**-0.5), -1, out=scores)
            used = apply_mask(scores, kept[scored].view_as(scores), kept_scale(dropout))
            context[place] = _by_position(torch.bmm(used, v), rows, length)
        ctx.save_for_backward(query, key, value, weights, kept)
        ctx.groups, ctx.scale = groups, kept_scale(dropout)
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, weights, kept = ctx.saved_tensors
        heads, size = query.shape[1:]
        results = tuple(torch.empty_like(one) for one in (query, key, value))
        for place, scored, rows, length in _parts(ctx.groups, heads):
            q, k, v, g = (_by_head(one[place], rows, length) for one in (query, key, value, gradient))
            scores = weights[scored].view(-1, length, length)
            mask = kept[scored].view_as(scores)
            of_weights = apply_mask(torch.bmm(g, v.transpose(1, 2)), mask, ctx.scale)
            of_scores = torch._softmax_backward_data(of_weights, scores, -1, scores.dtype).mul_(size**-0.5)
            of_value = torch.bmm(apply_mask(scores, mask, ctx.scale).transpose(1, 2), g)
            made = torch.bmm(of_scores, k), torch.bmm(of_scores.transpose(1, 2), q), of_value
            for result, one in zip(results, made, strict=True):
                result[place] = _by_position(one, rows, length)
        return *results, None, None


def _parts(groups: Sequence[tuple[int, int]], heads: int) -> Iterator[tuple[slice, slice, int, int]]:
    """Yield of each group its positions, its scores, and its numbers of rows and of positions in a row."""
    position = score = 0
    for rows, length in groups:
        positions, scores = rows * length, rows * heads * length**2
        yield slice(position, position + positions), slice(score, score + scores), rows, length
        position, score = position + positions, score + scores


def _by_head(values: Tensor, rows: int, length: int) -> Tensor:
    """Turn (R * L, A, D) into (R * A, L, D)."""
    return values.unflatten(0, (rows, length)).transpose(1, 2).flatten(0, 1)


def _by_position(values: Tensor, rows: int, length: int) -> Tensor:
    """Turn (R * A, L, D) into (R * L, A, D)."""
    return values.unflatten(0, (rows, -1)).transpose(1, 2).flatten(0, 1)
