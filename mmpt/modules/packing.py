"""Batches without their padding: the valid positions of all rows in one row, and attention within each sequence.

Everything but attention treats positions one by one, so that it needs no more than the (N, H) valid ones. Attention is
computed between the positions of one sequence: in groups of sequences of equal length, which need neither a mask nor a
copy (the packed order is by length); on CUDA by one kernel for all lengths, or where that does not serve, for attention
alone, in padded form with one mask that all layers share.

Shapes: B rows, L positions, N valid positions of the batch, A heads, D = H / A.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.modules.group_attention import attend_with_dropout

__all__ = ["Group", "Packing", "Segments", "packed_attention", "packing_of", "padded_attention", "reordered"]


class Segments(NamedTuple):
    """Who sees whom where each row is cut into parts that do not see each other.

    ``parts``, integers (B, L): positions of a row with the same number above 0 see each other; 0 is padding.
    """

    parts: Tensor


class Group(NamedTuple):
    """``rows`` sequences of ``length`` positions, which follow each other."""

    rows: int
    length: int


class Packing:
    """Where the valid positions of a batch are, in an order by the length of their sequences.

    The mask is copied to the host once, on a GPU the only time that it is waited for; all else follows from that copy.

    Args:
        mask: bool or integer (B, L), true where a position is valid, or :class:`Segments`.

    Attributes:
        shape: (B, L).
        index: int64 (N,), the places of the valid positions in B x L.
        groups: of equal length, shortest first.
    """

    def __init__(self, mask: Tensor | Segments) -> None:
        device = (mask.parts if isinstance(mask, Segments) else mask).device
        parts = (mask.parts if isinstance(mask, Segments) else mask.bool()).cpu().long()
        self.shape: tuple[int, int] = (parts.shape[0], parts.shape[1])
        flat = parts.flatten()
        places = flat.nonzero()[:, 0]
        rows = torch.div(places, max(self.shape[1], 1), rounding_mode="floor")
        sequence = rows * (int(flat.max()) + 1 if len(flat) else 1) + flat[places]
        lengths = sequence.bincount()
        # stable, so that a sequence keeps the order of its positions
        order = (lengths[sequence] * len(lengths) + sequence).argsort(stable=True)
        self._places = places[order]
        counts = lengths[lengths > 0].bincount().tolist()
        self.groups = [Group(rows, length) for length, rows in enumerate(counts) if rows]
        self._ends = F.pad(lengths[lengths > 0].sort().values.cumsum(0), (1, 0)).int().to(device, non_blocking=True)
        self.index = self._places.to(device, non_blocking=True)
        self._mask: Tensor | None = None

    @property
    def longest(self) -> int:
        """Length of the longest sequence."""
        return self.groups[-1].length if self.groups else 0

    def pack(self, values: Tensor) -> Tensor:
        """Return the valid positions of values (B or 1, L, ..): (N, ..)."""
        return values.expand(*self.shape, *values.shape[2:]).flatten(0, 1).index_select(0, self.index)

    def unpack(self, values: Tensor) -> Tensor:
        """Return values (N, ..) at their places, (B, L, ..), with zeros elsewhere."""
        rows, length = self.shape
        padded = values.new_zeros(rows * length, *values.shape[1:]).index_copy(0, self.index, values)
        return padded.unflatten(0, self.shape)

    def numbers(self, places: Tensor) -> Tensor:
        """Return which of the N positions are at places (n,) of B x L, int64 (n,); -1 for padding."""
        number = torch.full((self.shape[0] * self.shape[1],), -1, device=self.index.device)
        number[self.index] = torch.arange(len(self.index), device=self.index.device)
        return number[places]

    def between(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Say which of the N positions are in columns ``first`` to ``last`` - 1.

        Returns:
            Their numbers among the N, and their places in (B, last - first); int64 on the device of ``index``.
        """
        length = max(self.shape[1], 1)
        columns = self._places % length
        chosen = ((columns >= first) & (columns < last)).nonzero()[:, 0]
        rows = torch.div(self._places[chosen], length, rounding_mode="floor")
        places = rows * (last - first) + columns[chosen] - first
        device = self.index.device
        return chosen.to(device, non_blocking=True), places.to(device, non_blocking=True)

    def sequence_mask(self) -> Tensor:
        """Return which keys of its row a position sees, as numbers to add to scores: made once, shared by layers.

        Sequences are padded to the longest one: bool (sequences, 1, 1, longest).
        """
        if self._mask is None:
            lengths = self._ends.diff()
            self._mask = (torch.arange(self.longest, device=lengths.device) < lengths[:, None])[:, None, None]
        return self._mask

    def sequence_places(self) -> Tensor:
        """Return where the N positions are in sequences padded to the longest one: int64 (N,)."""
        number = torch.arange(len(self.index), device=self.index.device)
        sequence = torch.searchsorted(self._ends[1:], number, right=True)
        return number - self._ends[sequence] + sequence * self.longest

    @property
    def ends(self) -> Tensor:
        """Where sequences begin and end among the N, int32 (sequences + 1,)."""
        return self._ends


def packing_of(masks: object) -> Packing | None:
    """Return the packing that masks are, or the first of a sequence of them; None where they are none."""
    first = next(iter(masks), None) if isinstance(masks, list | tuple) else masks
    return first if isinstance(first, Packing) else None


def reordered(hidden: Tensor, old: Packing, new: Packing) -> Tensor:
    """Bring packed values (N, ..) from the order of one packing to that of another.

    Raises:
        ValueError: if the two are not of the same batch.
    """
    if old is new:
        return hidden
    if old.shape != new.shape or len(old.index) != len(new.index):
        raise ValueError(
            f"packings of {len(old.index)} of {old.shape} and {len(new.index)} of {new.shape} positions do not belong "
            "to one batch"
        )
    place = torch.empty(old.shape[0] * old.shape[1], dtype=torch.long, device=hidden.device)
    place[old.index] = torch.arange(len(old.index), device=hidden.device)
    return hidden.index_select(0, place[new.index])


@torch.compiler.disable
def packed_attention(query: Tensor, key: Tensor, value: Tensor, packing: Packing, dropout: float = 0.0) -> Tensor:
    """Attend within the sequences of a packing.

    Args:
        query: (N, A, D), as ``key`` and ``value``.
        dropout: probability of leaving a weight out.

    Returns:
        (N, A, D).
    """
    if not len(query):
        return query + key + value  # keeps all of them in the graph
    if not query.is_cuda and 0 < dropout < 1:
        return attend_with_dropout(query, key, value, packing.groups, dropout)
    if not query.is_cuda:
        return _in_groups((query, key, value), packing.groups, dropout)
    if dropout == 0 and _takes_any_length(query):
        from torch.nn.attention.varlen import varlen_attn

        ends, longest = packing.ends, packing.longest
        return varlen_attn(query, key, value, ends, ends, longest, longest)  # type: ignore[return-value]
    return padded_attention(query, key, value, packing, dropout)


def padded_attention(query: Tensor, key: Tensor, value: Tensor, packing: Packing, dropout: float = 0.0) -> Tensor:
    """Do what :func:`packed_attention` does with sequences padded to the longest one."""
    places, mask = packing.sequence_places(), packing.sequence_mask()
    rows = len(mask)

    def padded(values: Tensor) -> Tensor:
        wide = values.new_zeros(rows * packing.longest, *values.shape[1:]).index_copy(0, places, values)
        return wide.unflatten(0, (rows, packing.longest)).transpose(1, 2)

    context = F.scaled_dot_product_attention(
        padded(query), padded(key), padded(value), attn_mask=mask, dropout_p=dropout
    )
    return context.transpose(1, 2).flatten(0, 1).index_select(0, places)


def _in_groups(inputs: Sequence[Tensor], groups: Sequence[Group], dropout: float) -> Tensor:
    sizes = [rows * length for rows, length in groups]
    parts = []
    # split, whose backward pass joins the gradients once: slices would each make zeros of the whole
    for group, *qkv in zip(groups, *(one.split(sizes) for one in inputs), strict=True):
        query, key, value = (one.unflatten(0, group).transpose(1, 2) for one in qkv)
        context = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        parts.append(context.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)


def _takes_any_length(query: Tensor) -> bool:
    """Say whether torch's kernel for sequences of any length (torch 2.10, flash attention) takes these."""
    try:
        import torch.nn.attention.varlen
    except ImportError:
        return False
    half = query.dtype in (torch.float16, torch.bfloat16)
    return half and query.shape[-1] % 8 == 0 and torch.cuda.get_device_capability(query.device) >= (8, 0)
