"""ShardedTensor: a ragged array on disk, memory-mapped, of any dtype, with checksums.

Items are arrays ``(rows_i, *item_shape)`` of one dtype: fp16 features, int32 token ids,
uint8 JPEG or WAV bytes, uint16 visual codes. The files are described in
:mod:`mmpt.utils.shardedtensor_files`, the writing in :mod:`mmpt.utils.shardedtensor_writer`.
Shards of the published layout (data and starts, no index) load as well, unchecked.
"""

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpt.utils.errors import DataError, nearest
from mmpt.utils.npy import cut_file, mapping_of, read_npy
from mmpt.utils.shardedtensor_files import (
    BlockChecks,
    UnfinishedShardError,
    check_against_index,
    check_structure,
    identity,
    read_index,
    shard_paths,
)
from mmpt.utils.shardedtensor_writer import ShardedTensorWriter, temporary_of

__all__ = ["ShardedTensor", "ShardedTensorWriter", "open_shared"]

_ATTEMPTS = 6
_PAUSE_SECONDS = 0.02
_NAMED_ITEMS = 5


class ShardedTensor:
    """A ragged array: ``shard[i]`` is a view ``(rows_i, *item_shape)``, O(1) and not copied.

    Attributes:
        data: all rows ``(rows, *item_shape)``. Rows taken from here are not checked against
            the checksums; ``shard[i]`` and :meth:`verify` do that. They also find a file that was cut since
            it was opened, which would otherwise kill the process (SIGBUS).
        starts: int64 ``(items + 1,)``, from 0 to ``len(data)``, never falling.
        ids: one string per item, or None.
        index: the content of the index file; None in memory and for the published layout.

    Raises:
        DataError: if starts or ids do not fit the data.
    """

    def __init__(self, data: np.ndarray, starts: npt.ArrayLike, ids: Sequence[str] | None = None) -> None:
        self.data = np.asarray(data)
        self.starts = np.asarray(starts).astype(np.int64, casting="same_kind", copy=False)
        self.ids = None if ids is None else list(ids)
        self.index: dict[str, Any] | None = None
        self._path: str | None = None
        self._mmap_mode: str | None = None
        self._verify = "off"
        self._checks: BlockChecks | None = None
        self._positions: dict[str, int] | None = None
        self._mapping = mapping_of(self.data)
        check_structure(self.data, self.starts, self.ids)
        self._row_bytes = self.data.dtype.itemsize * int(np.prod(self.data.shape[1:], dtype=np.int64))
        # One flag per item keeps the common read O(1); bytearray is the fastest to ask.
        self._checked = bytearray(b"\1") * (len(self.starts) - 1)

    @classmethod
    def from_list(
        cls,
        arrays: Sequence[npt.ArrayLike],
        ids: Sequence[str] | None = None,
        dtype: npt.DTypeLike | None = None,
        item_shape: Sequence[int] | None = None,
    ) -> "ShardedTensor":
        """Build a shard in memory from arrays ``(rows_i, *item_shape)`` of one dtype.

        ``dtype`` and ``item_shape`` default to those of the first array; a shard of no items needs both.

        Raises:
            DataError: if the arrays disagree in dtype or shape; names the item.
        """
        items = [np.asarray(array) for array in arrays]
        if not items and (dtype is None or item_shape is None):
            raise DataError("a shard of no items needs dtype and item_shape")
        dtype = np.dtype(items[0].dtype if dtype is None else dtype)
        shape = tuple(items[0].shape[1:] if item_shape is None else item_shape)
        for position, item in enumerate(items):
            if item.size == 0 and item.dtype != dtype:
                item = items[position] = item.astype(dtype)  # an empty list has no dtype of its own
            if item.ndim == 0 or item.dtype != dtype or item.shape[1:] != shape:
                name = position if ids is None else repr(ids[position])
                raise DataError(f"item {name} is {item.dtype} {item.shape}, expected {dtype} (rows, *{shape})")
        starts = np.zeros(len(items) + 1, np.int64)
        np.cumsum([len(item) for item in items], out=starts[1:])
        data = np.concatenate(items) if items else np.empty((0, *shape), dtype)
        return cls(data.astype(dtype, copy=False), starts, ids)  # concatenating loses the byte order

    def save(self, path: str | os.PathLike[str], producer: dict[str, Any] | None = None) -> None:
        """Write the shard; ``producer`` defaults to that of a loaded shard.

        Raises:
            DataError: if the loaded bytes do not match their checksums (a copy would hide that).
        """
        if self.index is not None:
            self.verify()
            producer = self.index["producer"] if producer is None else producer
        with ShardedTensorWriter(path, self.data.dtype, self.data.shape[1:], producer) as writer:
            writer.append_all(self.data, self.starts, self.ids)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        mmap_mode: str | None = "r",
        verify: str = "lazy",
        expected_ids: Sequence[str] | None = None,
    ) -> "ShardedTensor":
        """Open a shard.

        Args:
            path: prefix of the files.
            mmap_mode: ``"r"``, ``"c"`` (copy-on-write) or None (read into memory).
            verify: ``"lazy"`` checks a block of data when an item in it is first read,
                ``"off"`` never. Sizes, starts and ids are always checked here.
            expected_ids: where the shard's ids are these, it keeps them instead of strings of its own, which
                takes neither the time of making them nor their memory. It opens with others as well.

        Raises:
            DataError: if files are missing, cut, changed or half-written; names the file.
        """
        if verify not in ("lazy", "off"):
            raise ValueError(f"verify must be 'lazy' or 'off', not {verify!r}")
        for attempt in range(_ATTEMPTS):
            # A writer may replace the files between two of our reads: then what we saw has changed.
            before = identity(path)
            try:
                shard = cls._open(path, mmap_mode, verify, expected_ids)
                if identity(path) == before:
                    return shard
            except UnfinishedShardError:
                if attempt == _ATTEMPTS - 1:
                    raise
            except DataError:
                if identity(path) == before:
                    raise
            time.sleep(_PAUSE_SECONDS * attempt)
        raise DataError(f"{path}: the shard keeps being rewritten. Wait for its writer to end.")

    @classmethod
    def _open(
        cls, path: str | os.PathLike[str], mmap_mode: str | None, verify: str, expected_ids: Sequence[str] | None
    ) -> "ShardedTensor":
        paths = shard_paths(path)
        index = read_index(path)
        if not paths.data.exists() and temporary_of(paths.data).exists():
            raise DataError(f"{paths.data}: no such file; an unfinished write lies beside it. Write the shard again.")
        data = read_npy(paths.data, mmap_mode, exact=index is not None)
        starts = read_npy(paths.starts, None)
        ids = None
        if index is not None:
            ids = check_against_index(paths, index, data, starts, expected_ids)
        try:
            shard = cls(data, starts, ids)
        except (DataError, TypeError) as error:
            raise DataError(
                f"{paths.starts}: does not fit {paths.data.name} ({error}). Restore both files from one copy, or"
                " write the shard again."
            ) from error
        shard.index, shard._path = index, os.path.abspath(path)
        shard._mmap_mode, shard._verify = mmap_mode, verify
        if index is not None:
            shard._checks = BlockChecks(data, index["data_crc32"], index["block_bytes"])
            if verify == "lazy":
                shard._checked = bytearray(len(shard))
        return shard

    def __len__(self) -> int:
        return len(self._checked)

    def __getitem__(self, i: int) -> np.ndarray:
        if i < 0:
            i += len(self._checked)
            if i < 0:
                raise IndexError("item index out of range")
        # One system call: reading beyond the end of a file that was cut would kill the process.
        if self._mapping is not None and self._mapping[0].size() < self._mapping[1]:
            raise cut_file(self._name(), self._mapping)
        if not self._checked[i]:
            self._check_item(i)
        return self.data[self.starts.item(i) : self.starts.item(i + 1)]

    def lengths(self) -> np.ndarray:
        """Return the rows of each item, int64 ``(items,)``."""
        return np.diff(self.starts)

    def position(self, id: str) -> int:
        """Return the position of the item with this id.

        Raises:
            DataError: if there is none, or the shard has no ids.
        """
        if self._positions is None:
            if self.ids is None:
                raise DataError(f"{self._name()}: the shard has no ids; address its items by position")
            self._positions = {id: position for position, id in enumerate(self.ids)}
        try:
            return self._positions[id]
        except KeyError:
            raise DataError(f"{self._name()}: no item {id!r}.{nearest(str(id), self._positions)}") from None

    def verify(self) -> int:
        """Check every block against its checksum; return the number of blocks checked.

        Shards without an index have no checksums: 0.

        Raises:
            DataError: if a block was changed; names the file, the blocks and the items in them.
        """
        if self._checks is None:
            return 0
        if self._mapping is not None and self._mapping[0].size() < self._mapping[1]:
            raise cut_file(self._name(), self._mapping)
        if bad := self._checks.damaged(0, self.data.nbytes, again=True):
            raise DataError(self._damage(bad))
        if self._verify == "lazy":
            self._checked = bytearray(b"\1") * len(self)
        return len(self._checks)

    def _check_item(self, i: int) -> None:
        if self._checks is not None:
            begin, end = self.starts.item(i) * self._row_bytes, self.starts.item(i + 1) * self._row_bytes
            if end > begin and (bad := self._checks.damaged(begin, end)):
                raise DataError(self._damage(bad))
        self._checked[i] = 1

    def _damage(self, blocks: list[int]) -> str:
        assert self._checks is not None and self._path is not None
        size = self._checks.block_bytes
        touched: list[int] = []
        for block in blocks:
            first = int(np.searchsorted(self.starts, block * size // self._row_bytes, side="right")) - 1
            last = int(np.searchsorted(self.starts, -(-(block + 1) * size // self._row_bytes), side="left"))
            touched += [i for i in range(first, min(last, len(self))) if self.starts[i] < self.starts[i + 1]]
        items = sorted(set(touched))
        names = [str(i) if self.ids is None else f"{i} ({self.ids[i]})" for i in items[:_NAMED_ITEMS]]
        more = f" and {len(items) - _NAMED_ITEMS} more" if len(items) > _NAMED_ITEMS else ""
        listed = ", ".join(map(str, blocks[:_NAMED_ITEMS])) + (", ..." if len(blocks) > _NAMED_ITEMS else "")
        return (
            f"{shard_paths(self._path).data}: the bytes of block {listed} (of {len(self._checks)}, {size} bytes each)"
            f" were changed since the shard was written; items {', '.join(names)}{more} are affected. Restore the"
            " file from a copy or write the shard again."
        )

    def _name(self) -> str:
        return "shard in memory" if self._path is None else str(shard_paths(self._path).data)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._path is None:
            return type(self), (self.data, self.starts, self.ids)
        generation = None if self.index is None else self.index["generation"]
        return _reopen, (type(self), self._path, self._mmap_mode, self._verify, generation)


def _reopen(
    cls: type[ShardedTensor], path: str, mmap_mode: str | None, verify: str, generation: str | None
) -> ShardedTensor:
    shard = cls.load(path, mmap_mode, verify)
    if (None if shard.index is None else shard.index["generation"]) != generation:
        raise DataError(f"{path}: the shard was rewritten while it was in use. Start the program again.")
    return shard


_OPENED: dict[tuple[str, str], tuple[tuple[Any, ...], ShardedTensor]] = {}


def open_shared(
    path: str | os.PathLike[str], verify: str = "lazy", expected_ids: Sequence[str] | None = None
) -> ShardedTensor:
    """Return the shard, opened once per process; one whose files were replaced is opened anew.

    Each call costs a few file-status calls: code that reads many items keeps the result.

    Raises:
        DataError: as :meth:`ShardedTensor.load`.
    """
    key = (os.path.abspath(path), verify)
    current = identity(path)
    known = _OPENED.get(key)
    if known is None or known[0] != current:
        # If the files change during load, the older one only makes the next call open again.
        known = (current, ShardedTensor.load(path, verify=verify, expected_ids=expected_ids))
        _OPENED[key] = known
    return known[1]
