"""Which batches of a test set a process predicts: whole ones, so that what a model says of an item never differs."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch.utils.data import DataLoader

from mmpt.utils.distributed import world

__all__ = ["NEW_ROWS", "Share"]

#: Key of a batch: its rows whose video no earlier row of the whole test set shows.
NEW_ROWS = "new_rows"
#: Keys of a batch that say which items are in it.
_NAMING = ("video_id", "idx")
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
    of other iterables every process sees all batches and leaves out those of others. :attr:`order` tells whether all
    mean the same: of a plain loader by its indices and the list of its data set's ``meta_processor``, of others by
    ``video_id`` and ``idx`` of all batches.

    Args:
        dataloader: gives the same batches in the same order in every process.
        mark_new: add to each batch :data:`NEW_ROWS`, by ``video_id``.
    """

    def __init__(self, dataloader: Iterable[Batch], mark_new: bool = False) -> None:
        self.dataloader = dataloader
        self.mark_new = mark_new
        #: Number of batches of all processes together, and a hash of what is in them; known after iteration, and the
        #: same in processes that see the same test set in the same order.
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
        items = _listed_items(self.dataloader, rows) if rows is not None else None
        new = _new_rows(items) if items is not None and self.mark_new else None
        if rows is None or (self.mark_new and new is None):
            yield from self._passing(rank, size)
            return
        self.total = len(rows)
        self.order = hashlib.sha256(_content([rows, items])).hexdigest()
        own = range(rank, len(rows), size)
        for number, batch in zip(own, _reading(self.dataloader, [rows[number] for number in own]), strict=True):
            yield number, batch if new is None else {**batch, NEW_ROWS: new[number]}

    def _passing(self, rank: int, size: int) -> Iterator[tuple[int, Batch]]:
        seen: set[str] = set()
        order = hashlib.sha256()
        for number, batch in enumerate(self.dataloader):
            self.total = number + 1
            if size > 1:
                order.update(_content({key: batch[key] for key in _NAMING if key in batch}))
                self.order = order.hexdigest()
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


def _listed_items(dataloader: Any, batches: Sequence[Sequence[Any]]) -> list[list[Any]] | None:
    """Return what the list of the test set has of each batch's items; None where the data set has no such list."""
    dataset: Any = dataloader.dataset
    meta: Any = getattr(dataset, "meta_processor", None)
    if not (hasattr(meta, "__getitem__") and hasattr(meta, "__len__") and len(meta) == len(dataset)):
        return None
    return [[meta[row] for row in rows] for rows in batches]


def _new_rows(batches: Sequence[Sequence[Any]]) -> list[list[int]] | None:
    """Return :data:`NEW_ROWS` of each batch from the list of the test set; None where that names no videos."""
    seen: set[str] = set()
    new = []
    for items in batches:
        if not all(isinstance(item, tuple) and len(item) == 2 for item in items):
            return None
        new.append(_unseen((str(item[0]) for item in items), seen))
    return new


def _content(value: Any) -> bytes:
    """Return bytes that are the same in all processes for the same ids, texts and numbers."""

    def plain(other: Any) -> Any:
        return other.tolist() if hasattr(other, "tolist") else type(other).__name__

    return json.dumps(value, default=plain, skipkeys=True).encode()


def _reading(dataloader: Any, batches: list[list[Any]]) -> Iterable[Batch]:
    """Return a loader of some batches, with all else as the given one has it."""
    return DataLoader(dataloader.dataset, batch_sampler=batches, **{name: getattr(dataloader, name) for name in _KEPT})
