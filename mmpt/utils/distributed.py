"""torch.distributed, usable with one process too.

Python objects travel between the processors: where the process group can do nothing but GPUs' tensors (nccl, which
fairseq uses), in a gloo group of the same processes. Its patience is long, as the others wait while one searches.
"""

import pickle
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = [
    "all_gather_objects",
    "broadcast_object",
    "check_sendable",
    "gather_items",
    "gather_numbers",
    "gather_rows",
    "is_main_process",
    "row_counts",
    "synchronize",
    "world",
]

T = TypeVar("T")

#: How long a process waits for one that lives, where the process group is not the one for objects.
_PATIENCE = timedelta(hours=12)
#: The default process group, and the one that was made for its objects.
_for_objects: tuple[Any, Any] = (None, None)


def world() -> tuple[int, int]:
    """Return (rank, number of processes); (0, 1) without a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def is_main_process() -> bool:
    """Tell whether this process writes the files that are written once."""
    return world()[0] == 0


def synchronize() -> None:
    """Wait until every process is here."""
    if world()[1] > 1:
        dist.barrier(group=_object_group())


def _object_group() -> Any:
    """Return the group in which objects travel. It may be made here, so all processes must call this together."""
    global _for_objects
    default = dist.group.WORLD
    if any(part.startswith("cpu:") for part in dist.get_backend_config().split(",")):
        return default
    if _for_objects[0] is not default:
        _for_objects = (default, dist.new_group(backend="gloo", timeout=_PATIENCE))
    return _for_objects[1]


def all_gather_objects(value: T) -> list[T]:
    """Return every process's value, in the order of ranks."""
    size = world()[1]
    if size == 1:
        return [value]
    values: list[T | None] = [None] * size
    dist.all_gather_object(values, value, group=_object_group())
    return values  # type: ignore[return-value]


def broadcast_object(value: T | None) -> T:
    """Return the first process's value in every process; what the others hand in does not count."""
    values = [value]
    if world()[1] > 1:
        dist.broadcast_object_list(values, src=0, group=_object_group())
    return values[0]  # type: ignore[return-value]


def check_sendable(value: Any) -> None:
    """Raise what sending a value to another process would, in time for all to hear of it; arrays are not copied."""
    pickle.dumps(value, protocol=5, buffer_callback=lambda buffer: None)


def gather_items(items: Sequence[T]) -> list[list[T]] | None:
    """Return every process's items on the first one, in the order of ranks; None on the others.

    One item travels at a time: the first process needs the memory of all items, and of hardly more.
    """
    rank, size = world()
    if size == 1:
        return [list(items)]
    group = _object_group()
    if rank > 0:
        for message in (len(items), *items):
            dist.send_object_list([message], dst=0, group=group)
        return None

    def received(source: int) -> Any:
        values: list[Any] = [None]
        dist.recv_object_list(values, src=source, group=group)
        return values[0]

    return [list(items), *([received(source) for _ in range(received(source))] for source in range(1, size))]


def row_counts(rows: Tensor) -> list[int]:
    """Return how many rows each process has, in the order of ranks."""
    return gather_numbers(torch.tensor([len(rows)], device=rows.device)).flatten().tolist()


def gather_numbers(numbers: Tensor) -> Tensor:
    """Return every process's numbers (K,), as many and of one type in each, in the order of ranks: (processes, K)."""
    size = world()[1]
    if size == 1:
        return numbers[None]
    everyone = [torch.empty_like(numbers) for _ in range(size)]
    dist.all_gather(everyone, numbers)
    return torch.stack(everyone)


def gather_rows(rows: Tensor, counts: list[int] | None = None) -> tuple[Tensor, int]:
    """Return every process's rows (N, ..), in the order of ranks, and the number of rows before this process's own.

    Gradients flow: a row's gradient is the sum of what all processes make of it, and goes to the process that the row
    came from. The processes may hand in different numbers of rows (B, ..), even none; of all else (dtype, further
    dimensions, whether a gradient is wanted) they must agree, and all of them must call this, and the backward pass
    if there is one, equally often. Without a process group these are the rows themselves, and 0.
    ``counts`` are the :func:`row_counts`, from one who knows them already.
    """
    rank, size = world()
    if size == 1:
        return rows, 0
    numbers = row_counts(rows) if counts is None else counts
    if not any(numbers):  # in every process: nothing need travel, nor back
        return rows, 0
    return _GatherRows.apply(rows, numbers), sum(numbers[:rank])


class _GatherRows(torch.autograd.Function):
    """Concatenation over processes; what travels is padded to the longest, as backends want equal shapes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        own, longest = _padded(rows, max(counts)), max(counts)
        everyone = rows.new_empty(longest * len(counts), *rows.shape[1:])
        parts = everyone.split(longest)
        dist.all_gather(list(parts), own)
        if min(counts) == longest:
            return everyone
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        longest = max(ctx.counts)
        parts = [_padded(part, longest) for part in gradient.split(ctx.counts)]
        summed = torch.empty_like(parts[0])
        dist.reduce_scatter(summed, parts)
        return summed[: ctx.counts[dist.get_rank()]], None


def _padded(rows: Tensor, length: int) -> Tensor:
    """Return contiguous rows with zeros appended up to ``length``; a copy where there is something to append."""
    if len(rows) == length:
        return rows.contiguous()
    padded = rows.new_zeros(length, *rows.shape[1:])
    padded[: len(rows)] = rows
    return padded
