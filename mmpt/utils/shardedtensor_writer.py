"""Write a shard item by item, in constant memory, with a commit that a crash cannot fake.

Order of a commit, also over an older shard of the same name:

1. data, starts, ids and index are complete under temporary names and flushed to disk;
2. the index is replaced by a marker that says "being written";
3. the temporary files of data, starts and ids are renamed over the old ones;
4. that of the index is, too.

A crash before 2 leaves the older shard (or none) as it was; between 2 and 4 the shard reads
as unfinished; after 4 it is the new one. Readers that had the older files open keep them.
After 2 nothing is written that needs room: a full disk leaves the older shard as it was.
"""

import io
import json
import math
import os
import uuid
import zlib
from array import array
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from mmpt.utils.errors import DataError
from mmpt.utils.files import lock_file, sync_folder, writing
from mmpt.utils.shardedtensor_files import BLOCK_BYTES, encode_ids, encode_index, shard_paths, write_index

__all__ = ["ShardedTensorWriter", "temporary_of"]

_COPY_BYTES = 16 << 20


def temporary_of(file: Path) -> Path:
    """Return the name under which ``file`` is written before its commit."""
    return file.with_name(f".{file.name}.tmp")


class ShardedTensorWriter:
    """Stream items into a shard; the shard appears when the ``with`` block ends without an error.

    Args:
        path: prefix of the shard's files.
        dtype: of every item; anything but Python objects and structures.
        item_shape: shape of one row of an item, ``()`` for items that are plain sequences.
        producer: JSON-ready facts about the origin (decoder, encoder, fps), kept in the index;
            ``writer.producer`` may be added to until the commit.
        block_bytes: size of a checksummed block.

    Raises:
        DataError: if another process is writing the same shard.
        StorageError: if the disk is full or the folder may not be written, here or in any later step.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        dtype: npt.DTypeLike,
        item_shape: Iterable[int] = (),
        producer: dict[str, Any] | None = None,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self.path = os.fspath(path)
        self.dtype = np.dtype(dtype)
        self.item_shape = tuple(int(size) for size in item_shape)
        if self.dtype.hasobject or self.dtype.names or self.dtype.subdtype:
            raise DataError(f"{self.path}: a shard holds plain numbers or bytes, not {self.dtype}")
        try:
            self.producer = json.loads(json.dumps(producer or {}))
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.path}: the producer facts are not JSON ({error})") from error
        self.generation = uuid.uuid4().hex
        self._paths = shard_paths(self.path)
        self._ends = array("q", [0])
        self._ids: list[str] = []
        self._known: set[str] = set()
        self._block_bytes = block_bytes
        self._crc32s: list[int] = []
        self._in_block = 0
        self._pending: list[Path] = []
        with writing(self._paths.data):
            self._paths.data.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = _open_locked(temporary_of(self._paths.data))
            self._pending.append(self._paths.data)
            for file in (self._paths.starts, self._paths.ids, self._paths.index):  # of a killed writer
                temporary_of(file).unlink(missing_ok=True)
            self._write_header()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with writing(self._paths.data):
                    self._commit()
        finally:
            self._discard()

    def append(self, item: npt.ArrayLike, id: str | None = None) -> None:
        """Add one item ``(rows, *item_shape)``, zero rows included; its dtype must be the shard's.

        Raises:
            DataError: if shape or dtype differ, if an id comes twice, or if only some items have one.
        """
        rows = np.asarray(item)
        if rows.ndim == 0 or rows.shape[1:] != self.item_shape or (rows.dtype != self.dtype and rows.size):
            raise DataError(
                f"{self.path}: item {len(self) if id is None else id!r} is {rows.dtype} of shape {rows.shape}, the"
                f" shard holds {self.dtype} of shape (rows, {', '.join(map(str, self.item_shape))})"
            )
        self._add_ids([] if id is None else [id], 1)
        self._write(rows)
        self._ends.append(self._ends[-1] + len(rows))

    def append_all(self, data: np.ndarray, starts: np.ndarray, ids: list[str] | None = None) -> None:
        """Add the items of a ragged array at once: item i is ``data[starts[i]:starts[i + 1]]``."""
        if data.shape[1:] != self.item_shape or data.dtype != self.dtype:
            raise DataError(f"{self.path}: {data.dtype} {data.shape} does not fit {self.dtype} {self.item_shape}")
        self._add_ids(ids or [], len(starts) - 1)
        step = max(1, _COPY_BYTES // max(1, data[:1].nbytes))
        for begin in range(0, len(data), step):
            self._write(data[begin : begin + step])
        self._ends.frombytes((starts[1:].astype(np.int64) + self._ends[-1]).tobytes())

    def _add_ids(self, ids: list[str], items: int) -> None:
        if len(ids) not in (0, items) or (len(self) and bool(ids) != bool(self._ids) and items):
            raise DataError(f"{self.path}: every item needs an id, or none")
        for id in ids:
            if not isinstance(id, str):
                raise DataError(f"{self.path}: an id is a string, not {id!r}")
            if id in self._known:
                raise DataError(f"{self.path}: the id {id!r} comes twice. Remove the duplicate from the list.")
            self._known.add(id)
            self._ids.append(id)

    def _write(self, rows: np.ndarray) -> None:
        if not rows.nbytes:
            return
        content = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
        with writing(self._paths.data):
            self._file.write(content)
        begin = 0
        while begin < len(content):
            if not self._in_block:
                self._crc32s.append(0)
            piece = content[begin : begin + self._block_bytes - self._in_block]
            self._crc32s[-1] = zlib.crc32(piece, self._crc32s[-1])
            self._in_block = (self._in_block + len(piece)) % self._block_bytes
            begin += len(piece)

    def _write_header(self) -> int:
        # numpy pads the header so that the first axis can grow in place.
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self._ends[-1], *self.item_shape),
        }
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()

    def _commit(self) -> None:
        rows_bytes = self._ends[-1] * math.prod(self.item_shape) * self.dtype.itemsize
        room = self._file.tell() - rows_bytes
        assert self._write_header() == room, "the header of the data file changed its length"
        _flush(self._file)
        starts = np.frombuffer(self._ends, np.int64)
        content = io.BytesIO()
        np.lib.format.write_array(content, starts, version=(1, 0), allow_pickle=False)
        self._write_temporary(self._paths.starts, content.getvalue())
        ids = encode_ids(self._ids) if self._ids else None
        if ids is not None:
            self._write_temporary(self._paths.ids, ids)
        self._write_temporary(self._paths.index, encode_index(self._index(starts, ids)).encode())
        write_index(self.path, {"generation": self.generation}, writing=True)
        sync_folder(self._paths.index.parent)
        self._put_in_place()

    def _write_temporary(self, file: Path, content: bytes) -> None:
        self._pending.insert(0, file)  # the last written, the index, is put in place last
        with writing(file), open(temporary_of(file), "xb") as temporary:
            temporary.write(content)
            _flush(temporary)

    def _put_in_place(self) -> None:
        if not self._ids:
            self._paths.ids.unlink(missing_ok=True)
        while self._pending:
            if len(self._pending) == 1:  # the index: what it commits must be on disk before it
                sync_folder(self._paths.index.parent)
            os.replace(temporary_of(self._pending[-1]), self._pending[-1])
            self._pending.pop()
        sync_folder(self._paths.index.parent)

    def _index(self, starts: np.ndarray, ids: bytes | None) -> dict[str, Any]:
        return {
            "generation": self.generation,
            "dtype": self.dtype.str,
            "item_shape": list(self.item_shape),
            "count": len(self),
            "rows": self._ends[-1],
            "block_bytes": self._block_bytes,
            "data_crc32": self._crc32s,
            "starts_crc32": zlib.crc32(starts.tobytes()),
            "ids_crc32": None if ids is None else zlib.crc32(ids),
            "producer": self.producer,
        }

    def _discard(self) -> None:
        """Remove what was not put in place, and let go of the lock."""
        for file in self._pending:
            temporary_of(file).unlink(missing_ok=True)
        with suppress(OSError):  # a full disk refuses what is still buffered; the file is gone anyway
            self._file.close()


def _open_locked(file: Path) -> IO[bytes]:
    """Open ``file`` for writing from its beginning; two processes cannot hold it at once.

    The name is fixed, so what a killed writer left is overwritten and does not pile up.
    """
    handle = lock_file(file, f"{file}: another process is writing this shard. Wait for it, or stop it.")
    os.ftruncate(handle, 0)
    return os.fdopen(handle, "wb")


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
