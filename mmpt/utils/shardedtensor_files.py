"""Files of a shard: names, the index and its block checksums.

A shard ``<name>`` is four files:

===================== =====================================================================
``<name>_data.npy``   all items one after the other, ``(rows, *item_shape)``, C order
``<name>_starts.npy`` int64 ``(items + 1,)``: item i is ``data[starts[i]:starts[i + 1]]``
``<name>_ids.json``   a list of strings, one per item (absent for shards without ids)
``<name>_index.json`` version, generation, dtype, shape, counts, checksums, producer
===================== =====================================================================

The index is the commit: it is written last. While a shard is being put in place the index
is a marker (``"state": "writing"``), so that what a crash leaves is never taken for a shard,
nor for one of the published layout, which has no index.
"""

import json
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.utils.errors import DataError
from mmpt.utils.files import atomic_open, read_json

__all__ = [
    "BLOCK_BYTES",
    "INDEX_VERSION",
    "BlockChecks",
    "ShardPaths",
    "UnfinishedShardError",
    "check_against_index",
    "check_structure",
    "encode_ids",
    "encode_index",
    "identity",
    "read_index",
    "shard_paths",
    "write_index",
]

INDEX_VERSION = 1
BLOCK_BYTES = 1 << 20

_WRITING = "writing"
_INDEX_KEYS = {"dtype", "item_shape", "count", "rows", "block_bytes", "data_crc32", "starts_crc32", "ids_crc32"}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_count, value))


#: What the values of an index are: its checksum finds damage, not a writer's mistake.
_HELD: dict[str, Callable[[Any], bool]] = {
    "dtype": lambda value: isinstance(value, str),
    "item_shape": _are_counts,
    "count": _is_count,
    "rows": _is_count,
    "block_bytes": lambda value: _is_count(value) and value > 0,
    "data_crc32": _are_counts,
    "starts_crc32": _is_count,
    "ids_crc32": lambda value: value is None or _is_count(value),
    "producer": lambda value: value is None or isinstance(value, dict),
}


class UnfinishedShardError(DataError):
    """Report a shard whose writer has not finished, or was killed."""


@dataclass(frozen=True)
class ShardPaths:
    """The files of one shard."""

    data: Path
    starts: Path
    ids: Path
    index: Path


def shard_paths(path: str | os.PathLike[str]) -> ShardPaths:
    """Return the four file names that belong to the prefix ``path``."""
    prefix = os.fspath(path)
    return ShardPaths(
        Path(f"{prefix}_data.npy"),
        Path(f"{prefix}_starts.npy"),
        Path(f"{prefix}_ids.json"),
        Path(f"{prefix}_index.json"),
    )


def read_index(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read and check the index of the shard ``path``; None if there is none (published layout).

    Raises:
        UnfinishedShardError: if the index is the marker of an unfinished write.
        DataError: if the index is damaged or of another version.
    """
    file = shard_paths(path).index
    try:
        index = read_json(file)
    except DataError:
        if not file.exists():
            return None
        raise
    if not isinstance(index, dict) or index.pop("checksum", None) != _index_crc32(index):
        raise DataError(f"{file}: the index was changed or damaged. Restore it from a copy or write the shard again.")
    if index.get("version") != INDEX_VERSION:
        raise DataError(
            f"{file}: index version {index.get('version')}, this MMPT reads {INDEX_VERSION}. Update MMPT,"
            " or write the shard again."
        )
    if index.get("state") == _WRITING:
        raise UnfinishedShardError(
            f"{file}: the shard is being written, or its writer was killed. Wait for it, or write the shard again."
        )
    if missing := sorted(_INDEX_KEYS - index.keys()):
        raise DataError(f"{file}: the index lacks {', '.join(missing)}. Write the shard again.")
    if wrong := [key for key, holds in _HELD.items() if not holds(index.get(key))]:
        raise DataError(f"{file}: the index holds a wrong value of {', '.join(wrong)}. Write the shard again.")
    return index


def write_index(path: str | os.PathLike[str], index: dict[str, Any], writing: bool = False) -> None:
    """Write the index of the shard ``path``, atomically; ``writing`` writes the marker instead."""
    with atomic_open(shard_paths(path).index) as file:
        file.write(encode_index({**index, "state": _WRITING} if writing else index))


def encode_index(index: dict[str, Any]) -> str:
    """Return the text of an index file, with version and checksum."""
    index = {"version": INDEX_VERSION, **index}
    return json.dumps({**index, "checksum": _index_crc32(index)}) + "\n"


def encode_ids(ids: Sequence[str]) -> bytes:
    """Return the bytes of an ids file."""
    return json.dumps(ids).encode()


def _index_crc32(index: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(index, sort_keys=True).encode())


def check_structure(data: np.ndarray, starts: np.ndarray, ids: Sequence[str] | None) -> None:
    """Refuse starts or ids that do not fit the data.

    Raises:
        DataError: says what does not fit.
    """
    if data.ndim == 0 or starts.ndim != 1 or not len(starts):
        raise DataError(f"data of shape {data.shape} and starts of shape {starts.shape} are not a ragged array")
    if starts[0] != 0 or starts[-1] != len(data) or (np.diff(starts) < 0).any():
        raise DataError(
            f"starts must rise from 0 to the {len(data)} rows of the data; they run from {starts[0]} to {starts[-1]}"
        )
    if ids is not None and (len(ids) != len(starts) - 1 or len(set(ids)) != len(ids)):
        raise DataError(f"{len(ids)} ids ({len(set(ids))} different) for {len(starts) - 1} items")


def check_against_index(
    paths: ShardPaths,
    index: dict[str, Any],
    data: np.ndarray,
    starts: np.ndarray,
    expected_ids: Sequence[str] | None = None,
) -> Sequence[str] | None:
    """Check everything but the bytes of the data; return the ids, or ``expected_ids`` itself where they are these.

    Raises:
        DataError: if a file does not fit the index; names the file.
    """
    again = "Restore the shard's files from one copy, or write the shard again."
    expected = (index["dtype"], [index["rows"], *index["item_shape"]])
    if (data.dtype.str, list(data.shape)) != expected or not data.flags.c_contiguous:
        raise DataError(
            f"{paths.data}: holds {data.dtype.str} {list(data.shape)}, the index says {expected[0]} {expected[1]}."
            f" {again}"
        )
    size = index["block_bytes"]
    if len(index["data_crc32"]) != -(-data.nbytes // size):
        raise DataError(f"{paths.index}: the number of checksums does not fit the data. {again}")
    if starts.dtype != np.int64 or zlib.crc32(starts.tobytes()) != index["starts_crc32"]:
        raise DataError(f"{paths.starts}: was changed since the shard was written. {again}")
    if index["ids_crc32"] is None:
        return None
    try:
        content = paths.ids.read_bytes()
    except OSError as error:
        raise DataError(f"{paths.ids}: cannot be read ({error}). {again}") from error
    if zlib.crc32(content) != index["ids_crc32"]:
        raise DataError(f"{paths.ids}: was changed since the shard was written. {again}")
    if expected_ids is not None and content == encode_ids(expected_ids):
        return expected_ids
    try:
        ids = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{paths.ids}: not a JSON file ({error}). {again}") from error
    if not isinstance(ids, list) or not set(map(type, ids)) <= {str}:
        raise DataError(f"{paths.ids}: not a list of names. {again}")
    return ids


def identity(path: str | os.PathLike[str]) -> tuple[Any, ...]:
    """Return what changes when the shard's files are replaced."""
    paths = shard_paths(path)
    found: list[tuple[int, ...] | None] = []
    for file in (paths.index, paths.data, paths.starts):
        try:
            status = os.stat(file)
            found.append((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
        except OSError:
            found.append(None)
    return tuple(found)


class BlockChecks:
    """Checksums of an array, block by block; remembers which blocks were found good.

    Args:
        rows: C-contiguous array.
        crc32s: one CRC-32 per ``block_bytes`` bytes of it, the last block being shorter.
    """

    def __init__(self, rows: np.ndarray, crc32s: list[int], block_bytes: int) -> None:
        self._bytes = rows.reshape(-1).view(np.uint8) if rows.nbytes else np.empty(0, np.uint8)
        self._crc32s = crc32s
        self._good = bytearray(len(crc32s))
        self.block_bytes = block_bytes

    def __len__(self) -> int:
        return len(self._crc32s)

    def damaged(self, begin: int, end: int, again: bool = False) -> list[int]:
        """Check the blocks that bytes ``begin`` to ``end`` lie in; return those that do not match.

        Args:
            again: also check blocks already found good.
        """
        bad = []
        for block in range(begin // self.block_bytes, -(-end // self.block_bytes)):
            if self._good[block] and not again:
                continue
            content = self._bytes[block * self.block_bytes : (block + 1) * self.block_bytes]
            self._good[block] = zlib.crc32(content.data) == self._crc32s[block]
            if not self._good[block]:
                bad.append(block)
        return bad
