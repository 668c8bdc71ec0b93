"""torch.distributed, usable with one process too."""

from typing import TypeVar

import torch.distributed as dist

__all__ = ["all_gather_objects", "is_main_process", "synchronize", "world"]

T = TypeVar("T")


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
        dist.barrier()


def all_gather_objects(value: T) -> list[T]:
    """Return every process's value, in the order of ranks."""
    size = world()[1]
    if size == 1:
        return [value]
    values: list[T | None] = [None] * size
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]
