"""Which batches of a test set a process predicts: whole ones, so that what a model says of an item never differs."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch.utils.data import DataLoader

from mmpt.utils.distributed import world

__all__ = ["NEW_ROWS", "Share"]

#: Key of a batch: its rows whose video no earlier row of the whole test set shows.
NEW_ROWS = "new_rows"
_KEPT = (
    "collate_fn",
    "multiprocessing_context",
    "num_workers",
    "pin_memory",
    "prefetch_factor",
    "timeout",
    "worker_init_fn",
)

Batch = Mapping[str, Any]


class Share:
    """The batches of a loader that fall to this process: of N processes the r-th takes batches r, r + N, r + 2N ..

    The test set is cut into batches first, as for one process, and whole batches are dealt: nothing is padded or
    repeated, and some processes may have no batch. A plain ``DataLoader`` reads no batch but those of this process;
    of other iterables every process sees all batches and leaves out those of others.

    Args:
        dataloader: gives the same batches in the same order in every process.
        mark_new: add to each batch :data:`NEW_ROWS`, by ``video_id``.
    """

    def __init__(self, dataloader: Iterable[Batch], mark_new: bool = False) -> None:
        self.dataloader = dataloader
        self.mark_new = mark_new
        #: Number of batches of all processes together, and a hash of their order; known after iteration.
        self.total = 0
        self.order = ""

    def __len__(self) -> int:
        """Return the number of batches of this process; TypeError where the loader does not know its own."""
        rank, size = world()
        return len(range(rank, len(self.dataloader), size))  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        """Yield the number of each batch in the whole test set, and the batch."""
        rank, size = world()
        rows = _rows_of_batches(self.dataloader) if size > 1 else None
        new = _new_rows(self.dataloader, rows) if rows is not None and self.mark_new else None
        if rows is None or (self.mark_new and new is None):
            yield from self._passing(rank, size)
            return
        self.total = len(rows)
        self.order = hashlib.sha256(repr(rows).encode()).hexdigest()
        own = range(rank, len(rows), size)
        for number, batch in zip(own, _reading(self.dataloader, [rows[number] for number in own]), strict=True):
            yield number, batch if new is None else {**batch, NEW_ROWS: new[number]}

    def _passing(self, rank: int, size: int) -> Iterator[tuple[int, Batch]]:
        seen: set[str] = set()
        for number, batch in enumerate(self.dataloader):
            self.total = number + 1
            if self.mark_new:
                batch = {**batch, NEW_ROWS: _unseen(map(str, batch["video_id"]), seen)}
            if number % size == rank:
                yield number, batch


def _unseen(names: Iterable[str], seen: set[str]) -> list[int]:
    """Return the positions of names that are new, and note them."""
    new = []
    for row, name in enumerate(names):
        if name not in seen:
            seen.add(name)
            new.append(row)
    return new


def _rows_of_batches(dataloader: Any) -> list[list[Any]] | None:
    """Return the indices of the items of each batch; None where only reading the batches would tell."""
    if type(dataloader) is not DataLoader or dataloader.batch_sampler is None:
        return None
    return [list(rows) for rows in dataloader.batch_sampler]


def _new_rows(dataloader: Any, batches: Sequence[Sequence[Any]]) -> list[list[int]] | None:
    """Return :data:`NEW_ROWS` of each batch from the list of the test set; None where that names no videos."""
    meta: Any = getattr(dataloader.dataset, "meta_processor", None)
    seen: set[str] = set()
    new = []
    for rows in batches:
        items = [meta[row] if hasattr(meta, "__getitem__") else None for row in rows]
        if not all(isinstance(item, tuple) and len(item) == 2 for item in items):
            return None
        new.append(_unseen((str(item[0]) for item in items if item is not None), seen))
    return new


def _reading(dataloader: Any, batches: list[list[Any]]) -> Iterable[Batch]:
    """Return a loader of some batches, with all else as the given one has it."""
    return DataLoader(dataloader.dataset, batch_sampler=batches, **{name: getattr(dataloader, name) for name in _KEPT})
