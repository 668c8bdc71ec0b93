"""What the joint states of MERLOT Reserve are to tell (arXiv:2201.02639, section 3.3): pooling, and choice of targets.

Shapes: B examples, n sequences of each, L positions, H hidden, A sounds, P text spans.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Pooled", "choose_sounds", "choose_spans", "pool_by_pointer", "unit_rows"]

#: Above any noise: a span without words or without a mask is taken only when no other is left.
_VALID = 1e6
#: Logarithm of how much likelier a span is of which sound or image tells, than one of text alone.
_HIT = math.log(4)
#: Under the root of the norm.
_EPSILON = 1e-5


class Pooled(NamedTuple):
    """``states`` (B, slots, H), the sum of what points to each slot; ``hits`` int64 (B, slots), how many do."""

    states: Tensor
    hits: Tensor


def unit_rows(rows: Tensor) -> Tensor:
    """Scale rows (.., H) to length 1: ``u / sqrt(sum u^2 + 1e-5)``, computed in float32 at least."""
    wide = rows if rows.dtype == torch.float64 else rows.float()  # squares of half precision lose the small ones
    return (wide * (wide.square().sum(-1, keepdim=True) + _EPSILON).rsqrt()).to(rows.dtype)


def pool_by_pointer(states: Tensor, chosen: Tensor, pointers: Tensor, slots: int, examples: int) -> Pooled:
    """Sum the states that point to each slot of their example.

    Args:
        states: (rows, H), those at the chosen positions, in raster order.
        chosen: bool (B * n, L), the sequences of an example one after another.
        pointers: int64 (B * n, L); those outside [0, slots) count for nothing.
        slots: how many each example has.
        examples: B.
    """
    row, place = chosen.nonzero(as_tuple=True)
    pointer = pointers[row, place]
    inside = (pointer >= 0) & (pointer < slots)
    # What points nowhere goes to one more slot, which is cut off: no shape depends on the data.
    slot = torch.where(inside, row // (len(chosen) // examples) * slots + pointer, examples * slots)
    summed = states.new_zeros(examples * slots + 1, states.shape[-1]).index_add(0, slot, states)[:-1]
    hits = torch.zeros(examples * slots + 1, dtype=torch.long, device=states.device)
    hits = hits.index_add(0, slot, torch.ones_like(slot))[:-1]
    return Pooled(summed.view(examples, slots, -1), hits.view(examples, slots))


def choose_sounds(hits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return which sounds are told, (B, count), and the others (B, A - count): those with most hits come first.

    Of equally many the earlier one.
    """
    order = hits.argsort(dim=1, descending=True, stable=True)
    return order[:, :count], order[:, count:]


def choose_spans(valid: Tensor, hits: Tensor, noise: Tensor, count: int) -> Tensor:
    """Return which text spans of a batch are told, int64 (at most count,), of all its B * P spans in one row.

    At random among the valid ones, those that stand beside images or sound four times as likely as those of text
    alone, in float32: its rounding at a million is part of the published choice. Of equals the earlier one comes first.
    No span that is not valid is told.

    Args:
        valid: bool (B, P), the span has words and a mask points to it.
        hits: (B, P), the masks beside images or sound that point to it.
        noise: Gumbel noise, (B, P).
        count: for the whole batch.
    """
    scores = _VALID * valid.float() + _HIT * hits.float() + noise.float()
    order = scores.flatten().argsort(descending=True, stable=True)[:count]
    return order[valid.flatten()[order]]
