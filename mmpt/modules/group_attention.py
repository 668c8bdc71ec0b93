"""Attention with dropout in groups of sequences of like length, for CPUs.

torch's fast kernel for CPUs has no dropout, and what it falls back to keeps the scores three times and scaled copies of
queries and keys. Here the softmax and one byte a score are kept.

Groups of equal length are joined as long as the padding adds little to the scores: each call has a price, and where
other programs want the processor too, a high one, as threads wait for each other at its end.

Shapes: N positions of all sequences, A heads, D size of a head; a group has R sequences of at most L positions.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmpt.modules.dropout import apply_mask, draw_kept, kept_scale

__all__ = ["attend_with_dropout"]

#: How many times the scores of groups joining them may make.
_WASTE = 1.25


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
        parts = _joined(groups)
        count = heads * sum(part.rows * part.length**2 for part in parts)
        kept, weights, context = draw_kept((count,), dropout), query.new_empty(count), torch.empty_like(query)
        for part, scored in _scored(parts, heads):
            q, k, v = (part.by_head(one) for one in (query, key, value))
            scores = weights[scored].view(-1, part.length, part.length)
            products = part.hide(torch.bmm(q, k.transpose(1, 2)).mul_(size**-0.5), heads)
            torch.softmax(products, -1, out=scores)
            used = apply_mask(scores, kept[scored].view_as(scores), kept_scale(dropout))
            part.put(context, torch.bmm(used, v))
        ctx.save_for_backward(query, key, value, weights, kept)
        ctx.parts, ctx.scale = parts, kept_scale(dropout)
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, weights, kept = ctx.saved_tensors
        heads, size = query.shape[1:]
        results = tuple(torch.empty_like(one) for one in (query, key, value))
        for part, scored in _scored(ctx.parts, heads):
            q, k, v, g = (part.by_head(one) for one in (query, key, value, gradient))
            scores = weights[scored].view(-1, part.length, part.length)
            mask = kept[scored].view_as(scores)
            of_weights = apply_mask(torch.bmm(g, v.transpose(1, 2)), mask, ctx.scale)
            of_scores = torch._softmax_backward_data(of_weights, scores, -1, scores.dtype).mul_(size**-0.5)
            of_value = torch.bmm(apply_mask(scores, mask, ctx.scale).transpose(1, 2), g)
            made = torch.bmm(of_scores, k), torch.bmm(of_scores.transpose(1, 2), q), of_value
            for result, one in zip(results, made, strict=True):
                part.put(result, one)
        return *results, None, None


class _Part(NamedTuple):
    """Sequences from position ``begin`` to ``end`` of the N, at most ``length`` long; ``places`` in (R, L), if less."""

    begin: int
    end: int
    rows: int
    length: int
    places: Tensor | None
    seen: Tensor | None

    def by_head(self, values: Tensor) -> Tensor:
        """Take this part of (N, A, D) as (R * A, L, D), zeros beyond the end of a sequence."""
        own = values[self.begin : self.end]
        if self.places is not None:
            own = own.new_zeros(self.rows * self.length, *own.shape[1:]).index_copy_(0, self.places, own)
        return own.unflatten(0, (self.rows, self.length)).transpose(1, 2).flatten(0, 1)

    def put(self, values: Tensor, by_head: Tensor) -> None:
        """Write (R * A, L, D) to this part of (N, A, D)."""
        own = by_head.unflatten(0, (self.rows, -1)).transpose(1, 2).flatten(0, 1)
        values[self.begin : self.end] = own if self.places is None else own.index_select(0, self.places)

    def hide(self, scores: Tensor, heads: int) -> Tensor:
        """Hide the keys beyond the end of a sequence in scores (R * A, L, L), in place."""
        if self.seen is not None:
            scores.view(self.rows, heads, self.length, self.length).masked_fill_(~self.seen[:, None, None], -torch.inf)
        return scores


def _joined(groups: Sequence[tuple[int, int]]) -> list[_Part]:
    """Join groups of rising length as long as it does not add more than ``_WASTE`` to their scores."""
    parts: list[_Part] = []
    waiting: list[tuple[int, int]] = []
    begin = 0
    for group in [*groups, None]:
        exact = sum(rows * length**2 for rows, length in [*waiting, group]) if group else 0
        if waiting and (group is None or sum(rows for rows, _ in [*waiting, group]) * group[1] ** 2 > _WASTE * exact):
            parts.append(_part(begin, waiting))
            begin, waiting = parts[-1].end, []
        if group is not None:
            waiting.append(group)
    return parts


def _part(begin: int, groups: Sequence[tuple[int, int]]) -> _Part:
    lengths = torch.tensor([length for rows, length in groups for _ in range(rows)])
    longest, end = groups[-1][1], begin + int(lengths.sum())
    if len(groups) == 1:
        return _Part(begin, end, len(lengths), longest, None, None)
    seen = torch.arange(longest) < lengths[:, None]
    return _Part(begin, end, len(lengths), longest, seen.flatten().nonzero()[:, 0], seen)


def _scored(parts: Sequence[_Part], heads: int) -> Iterator[tuple[_Part, slice]]:
    """Yield each part with the place of its scores."""
    begin = 0
    for part in parts:
        count = part.rows * heads * part.length**2
        yield part, slice(begin, begin + count)
        begin += count
