"""TFRecord files of ``tf.train.Example``, read as a stream, without TensorFlow.

A file is a sequence of records: length (uint64), masked CRC-32C of it, the bytes, masked CRC-32C of them. A record is
a message of features by name, each a list of byte strings, of float32 or of int64.
"""

import gzip
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from mmpt.store.images import image_format
from mmpt.utils.crc32c import crc32c, mask_crc
from mmpt.utils.errors import DataError, nearest
from mmpt.utils.files import atomic_open
from mmpt.utils.protobuf import FIXED32, LENGTH, field_bytes, fields, varint, varints

__all__ = ["Example", "encode_example", "parse_example", "read_examples", "read_records", "write_records"]

#: Larger than any record there is: a length beyond is damage that its checksum did not show (checks switched off).
_MOST_BYTES = 1 << 31
_BYTES, _FLOATS, _INTS = 1, 2, 3

#: What a feature holds: byte strings, float32 (n,) or int64 (n,).
Feature = list[bytes] | np.ndarray


class Example(dict[str, Feature]):
    """The features of one record by name, and the ``place`` it came from, for errors."""

    def __init__(self, features: Mapping[str, Feature], place: str) -> None:
        super().__init__(features)
        self.place = place

    def bytes_of(self, name: str) -> bytes:
        """Return the one byte string of a feature; DataError names the record if it is anything else."""
        feature = self.needed(name)
        if not isinstance(feature, list) or len(feature) != 1:
            raise DataError(f"{self.place}: {name!r}: expected one byte string")
        return feature[0]

    def text(self, name: str) -> str:
        """Return one byte string as text; DataError if it is not UTF-8."""
        try:
            return self.bytes_of(name).decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{self.place}: {name!r}: not UTF-8 text") from error

    def image(self, name: str) -> bytes:
        """Return the bytes of a JPEG or PNG, by its first bytes; DataError if it is neither."""
        content = self.bytes_of(name)
        if image_format(content) is None:
            raise DataError(f"{self.place}: {name!r}: neither JPEG nor PNG")
        return content

    def number(self, name: str, default: float | None = None) -> float:
        """Return the one number of a feature; ``default``, where given, if there is none of this name."""
        if name not in self and default is not None:
            return default
        numbers = self.numbers(name)
        if len(numbers) != 1:
            raise DataError(f"{self.place}: {name!r}: {len(numbers)} numbers, expected one")
        return numbers[0].item()

    def numbers(self, name: str) -> np.ndarray:
        """Return the numbers of a feature, float32 or int64 (n,); an empty list may have lost its kind."""
        feature = self.needed(name)
        if isinstance(feature, list) and feature:
            raise DataError(f"{self.place}: {name!r}: expected numbers, found byte strings")
        return np.zeros(0, np.int64) if isinstance(feature, list) else feature

    def needed(self, name: str) -> Feature:
        """Return a feature; DataError names the record and the nearest name if there is none."""
        if name not in self:
            raise DataError(f"{self.place}: no feature {name!r} among {len(self)}.{nearest(name, self)}")
        return self[name]


def read_records(path: str | os.PathLike[str], check: bool = True) -> Iterator[bytes]:
    """Yield the bytes of each record of a file, which may be gzipped; one record is in memory at a time.

    Args:
        path: the file.
        check: verify the checksum of each record; lengths are always verified.

    Raises:
        DataError: if the file is missing, cut short or damaged; names file and record (from 0).
    """
    try:
        with _opened(path) as file:
            number = 0
            while head := _read(file, 12):
                place = f"{path}: record {number}"
                if len(head) < 12:
                    raise DataError(f"{place}: cut short in its length; copy the file again")
                length, crc = struct.unpack("<QI", head)
                if mask_crc(crc32c(head[:8])) != crc or length > _MOST_BYTES:
                    raise DataError(f"{place}: damaged length, or no TFRecord file; copy the file again")
                body = _read(file, length + 4)
                if len(body) < length + 4:
                    raise DataError(f"{place}: cut short, {len(body)} of {length + 4} bytes; copy the file again")
                content = memoryview(body)[:length]
                if check and mask_crc(crc32c(content)) != struct.unpack("<I", body[length:])[0]:
                    raise DataError(f"{place}: its bytes do not fit their checksum; copy the file again")
                yield bytes(content)
                number += 1
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def read_examples(paths: Iterable[str | os.PathLike[str]], check: bool = True) -> Iterator[Example]:
    """Yield the examples of files, one file after another; DataError as :func:`read_records`, or as in parsing."""
    for path in paths:
        for number, record in enumerate(read_records(path, check)):
            place = f"{path}: record {number}"
            try:
                yield Example(parse_example(record), place)
            except ValueError as error:
                raise DataError(f"{place}: holds no tf.train.Example ({error})") from error


def parse_example(record: bytes) -> dict[str, Feature]:
    """Return the features of a serialised ``tf.train.Example``; ValueError if it is none."""
    found: dict[str, Feature] = {}
    for features in _inside(record, 1):
        for entry in _inside(features, 1):
            name, value = b"", memoryview(b"")
            for number, kind, content in fields(entry):
                if kind != LENGTH:
                    raise ValueError("a feature without name and value")
                if number == 1:
                    name = bytes(content)
                elif number == 2:
                    value = content  # type: ignore[assignment]
            found[name.decode()] = _feature(value)
    return found


def encode_example(features: Mapping[str, Any]) -> bytes:
    """Serialise features: text, bytes or lists of them, floats, whole numbers or sequences of them."""
    entries = b""
    for name, value in features.items():
        entry = field_bytes(1, name.encode()) + field_bytes(2, _encoded(value))
        entries += field_bytes(1, entry)
    return field_bytes(1, entries)


def write_records(path: str | os.PathLike[str], records: Iterable[bytes]) -> None:
    """Write a TFRecord file, atomically; gzipped if its name ends in ``.gz``."""
    with atomic_open(path, "wb") as file:
        target: IO[Any] = file
        if str(path).endswith(".gz"):
            target = cast(IO[Any], gzip.GzipFile(fileobj=file, mode="wb", mtime=0))
        for record in records:
            length = struct.pack("<Q", len(record))
            target.write(length + struct.pack("<I", mask_crc(crc32c(length))))
            target.write(record + struct.pack("<I", mask_crc(crc32c(record))))
        if target is not file:
            target.close()


def _opened(path: str | os.PathLike[str]) -> IO[bytes]:
    with Path(path).open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path, "rb")) if gzipped else Path(path).open("rb")


def _read(file: IO[bytes], size: int) -> bytes:
    """Read so many bytes, fewer only at the end; a gzip stream gives them in parts, and a false size may be huge."""
    parts: list[bytes] = []
    while size:
        part = file.read(min(size, 1 << 24))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts) if len(parts) != 1 else parts[0]


def _inside(message: bytes | memoryview, wanted: int) -> Iterator[memoryview]:
    for number, kind, content in fields(message):
        if kind != LENGTH:
            raise ValueError(f"field {number} is no message")
        if number == wanted:
            yield content  # type: ignore[misc]


def _feature(message: memoryview) -> Feature:
    for kind, wire, content in fields(message):
        if wire != LENGTH:
            raise ValueError("a feature that is no list")
        values = list(fields(content))  # type: ignore[arg-type]
        if kind == _BYTES:
            return [bytes(value) for _, value_kind, value in values if value_kind == LENGTH]
        if kind == _FLOATS:
            if any(value_kind not in (LENGTH, FIXED32) or len(value) % 4 for _, value_kind, value in values):  # type: ignore[arg-type]
                raise ValueError("numbers that are no float32")
            return np.frombuffer(b"".join(value for _, _, value in values), "<f4").astype(np.float32)  # type: ignore[misc]
        if kind == _INTS:
            numbers: list[int] = []
            for _, value_kind, value in values:
                numbers += varints(value) if value_kind == LENGTH else [value]  # type: ignore[arg-type,list-item]
            return np.array(numbers, np.int64)
    return []


def _encoded(value: Any) -> bytes:
    if isinstance(value, str | bytes) or np.ndim(value) == 0:
        value = [value]
    values: Sequence[Any] = list(value)
    if values and isinstance(values[0], str | bytes):
        strings = [one.encode() if isinstance(one, str) else one for one in values]
        return field_bytes(_BYTES, b"".join(field_bytes(1, one) for one in strings))
    array = np.asarray(value)
    if array.dtype.kind == "f" and len(array):
        return field_bytes(_FLOATS, field_bytes(1, array.astype("<f4").tobytes()))
    return field_bytes(_INTS, field_bytes(1, b"".join(varint(int(one)) for one in values)))
