"""Weights out of a TensorFlow checkpoint (a tensor bundle), read without TensorFlow and without running anything.

A checkpoint ``model.ckpt`` is a file ``model.ckpt.index`` and data files ``model.ckpt.data-00000-of-00001``. The index
is a sorted table of LevelDB's format: blocks of entries whose keys share their beginnings, an index of the blocks, and
a footer. The entry of key ``""`` says how many data files there are; every other one says of a variable its type,
shape and place, and the CRC-32C of its bytes.
"""

import fnmatch
import logging
import math
import os
import re
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmpt.utils.crc32c import crc32c, mask_crc
from mmpt.utils.errors import CheckpointError
from mmpt.utils.protobuf import LENGTH, fields, read_varint

__all__ = ["OPTIMIZER_STATE", "read_tf_checkpoint", "tf_prefix"]

logger = logging.getLogger(__name__)

#: Patterns of the variables that trainings keep beside the weights.
OPTIMIZER_STATE = ("global_step", "*/adam_m", "*/adam_v")

_MAGIC = 0xDB4775248B80FB57
_FOOTER, _TRAILER = 48, 5  # bytes: behind the last block, and behind each block (compression, CRC-32C)
_DATA = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")
#: TensorFlow's number of a type -> ours.
_TYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    4: torch.uint8,
    6: torch.int8,
    9: torch.int64,
    10: torch.bool,
    14: torch.bfloat16,
    19: torch.float16,
}


@dataclass
class _Entry:
    """Where a variable is: ``shard`` number, ``offset`` and ``size`` in bytes."""

    dtype: int = 0
    shape: list[int] = field(default_factory=list)
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc: int | None = None
    sliced: bool = False


def tf_prefix(path: str | os.PathLike[str]) -> Path | None:
    """Return the prefix of the TensorFlow checkpoint that a path names, itself or by one of its files; None if none."""
    given = Path(path)
    match = _DATA.fullmatch(given.name)
    if match:
        given = given.with_name(match[1])
    elif given.suffix == ".index":
        given = given.with_suffix("")
    return given if given.with_name(given.name + ".index").is_file() else None


def read_tf_checkpoint(
    prefix: str | os.PathLike[str], without: Collection[str] = (), check: bool = True
) -> dict[str, Tensor]:
    """Read the variables of a TensorFlow checkpoint: name -> tensor of its own type, on the CPU.

    Args:
        prefix: ``FOLDER/model.ckpt``, of ``FOLDER/model.ckpt.index`` and its data files.
        without: shell-style patterns of variables that are not read.
        check: whether the checksum of each variable is compared; takes about as long as reading it from a slow disk.

    Raises:
        CheckpointError: if a file is missing, damaged or truncated, or has what this reader does not know; names it.
    """
    index = Path(f"{prefix}.index")
    entries, shards = _read_index(index)
    left = [name for name in entries if any(fnmatch.fnmatchcase(name, pattern) for pattern in without)]
    files: dict[int, np.ndarray] = {}
    state = {}
    for name in sorted(entries.keys() - set(left)):
        entry = entries[name]
        if not 0 <= entry.shard < shards:
            raise CheckpointError(f"{index}: {name} is in data file {entry.shard} of {shards}: the index is damaged")
        data = Path(f"{prefix}.data-{entry.shard:05d}-of-{shards:05d}")
        if entry.shard not in files:
            files[entry.shard] = _map(data)
        state[name] = _tensor(name, entry, files[entry.shard], index, data, check)
    if left:
        logger.info("%s: %d variables read, %d left aside, such as %s", prefix, len(state), len(left), left[0])
    return state


def _map(path: Path) -> np.ndarray:
    try:
        if not path.stat().st_size:
            return np.zeros(0, np.uint8)
        return np.memmap(path, np.uint8, mode="r")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); a checkpoint needs all its files") from error


def _tensor(name: str, entry: _Entry, content: np.ndarray, index: Path, path: Path, check: bool) -> Tensor:
    """Return one variable, copied out of the data file."""
    if entry.sliced or entry.dtype not in _TYPES:
        what = "is stored in slices" if entry.sliced else f"has TensorFlow's type {entry.dtype}"
        raise CheckpointError(f"{index}: {name} {what}, which is not read here")
    dtype = _TYPES[entry.dtype]
    if any(size < 0 for size in entry.shape) or entry.size != math.prod(entry.shape) * dtype.itemsize:
        raise CheckpointError(f"{index}: {name} of shape {entry.shape} has {entry.size} bytes: the index is damaged")
    if entry.offset < 0 or entry.offset + entry.size > len(content):
        raise CheckpointError(
            f"{path}: truncated: {name} ends at byte {entry.offset + entry.size}, the file at {len(content)}. "
            "Fetch it again"
        )
    stored = np.array(content[entry.offset : entry.offset + entry.size])
    if check and entry.crc is not None and mask_crc(crc32c(stored)) != entry.crc:
        raise CheckpointError(f"{path}: damaged: the checksum of {name} is wrong. Fetch it again")
    # what has no bytes cannot be seen as of another type
    return (
        torch.from_numpy(stored).view(dtype).view(entry.shape) if entry.size else torch.empty(entry.shape, dtype=dtype)
    )


def _read_index(path: Path) -> tuple[dict[str, _Entry], int]:
    """Return the entries of the index by name, and the number of data files."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        found = dict(_table(content))
        header = found.pop(b"")
        numbers = {number: value for number, _, value in fields(header)}
        shards, endianness = numbers.get(1, 1), numbers.get(2, 0)
        if not isinstance(shards, int) or shards < 1 or endianness != 0:
            raise ValueError("its header is not of a checkpoint in little-endian order")
        return {key.decode(): _entry(value) for key, value in found.items()}, shards
    except (ValueError, LookupError, struct.error) as error:
        raise CheckpointError(
            f"{path}: damaged or truncated, or not the index of a TensorFlow checkpoint ({error})"
        ) from error


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of a LevelDB table; ValueError or IndexError where it is damaged."""
    if len(content) < _FOOTER or struct.unpack("<Q", content[-8:])[0] != _MAGIC:
        raise ValueError("it does not end as a table")
    footer, position = content[-_FOOTER:], 0
    handle = []
    for _ in range(4):  # offset and size of the meta index, which is empty, and of the index of blocks
        value, position = read_varint(footer, position)
        handle.append(value)
    for _, place in _block(content, *handle[2:]):
        offset, position = read_varint(place, 0)
        size, _ = read_varint(place, position)
        yield from _block(content, offset, size)


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of one block."""
    end = offset + size
    if end + _TRAILER > len(content) - _FOOTER or size < 4:
        raise ValueError(f"a block of {size} bytes at {offset} is not in it")
    kind, crc = content[end], struct.unpack("<I", content[end + 1 : end + _TRAILER])[0]
    if mask_crc(crc32c(content[offset : end + 1])) != crc:
        raise ValueError(f"the checksum of the block at {offset} is wrong")
    if kind:
        raise ValueError(f"the block at {offset} is compressed")
    restarts = struct.unpack("<I", content[end - 4 : end])[0]
    last = end - 4 * (restarts + 1)
    position, key = offset, b""
    while position < last:
        shared, position = read_varint(content, position)
        own, position = read_varint(content, position)
        length, position = read_varint(content, position)
        if shared > len(key) or position + own + length > last:
            raise ValueError(f"an entry of the block at {offset} ends behind it")
        key = key[:shared] + content[position : position + own]
        position += own + length
        yield key, content[position - length : position]


def _entry(message: bytes) -> _Entry:
    """Return what a BundleEntryProto says."""
    entry = _Entry()
    for number, kind, value in fields(message):
        if number == 2 and kind == LENGTH:
            entry.shape = _shape(value)  # type: ignore[arg-type]
        elif number == 6:
            entry.crc = struct.unpack("<I", value)[0]  # type: ignore[arg-type]
        elif number == 7:
            entry.sliced = True
        elif number in (1, 3, 4, 5) and isinstance(value, int):
            setattr(entry, {1: "dtype", 3: "shard", 4: "offset", 5: "size"}[number], value)
    return entry


def _shape(message: memoryview) -> list[int]:
    sizes = []
    for number, kind, value in fields(message):
        if number == 2 and kind == LENGTH:
            inner = {part: one for part, _, one in fields(value)}  # type: ignore[arg-type]
            size = inner.get(1, 0)
            if not isinstance(size, int):
                raise ValueError("a dimension is not a number")
            sizes.append(size)
    return sizes
