"""Rows of published frame files: one video each, its frames as base64 of JPEG or PNG.

Two layouts of TSV are about: ``id \\t frame \\t frame ..`` (VIOLET, and what LAVENDER pre-trains on) and
``id \\t meta \\t frame \\t frame ..`` (what LAVENDER and SwinBERT fine-tune on). Nothing in a file says which it is,
and read as the wrong one it loses its first frame without a word; so the frames are looked for, and a file that is
both is refused.
"""

import base64
import binascii
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from mmpt.store.images import decode_image, image_format
from mmpt.utils import safe_pickle
from mmpt.utils.errors import DataError, shown

__all__ = ["FrameRow", "find_frame_column", "pickle_rows", "tsv_rows"]

_LOOKED_AT = 16  # rows that the layout is decided by
_LONGEST_ROW = 1 << 30  # bytes; a file without line ends must not fill the memory
_SHOWN = 12
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
_TRAILING = 64  # bytes that some encoders leave after the end of an image


@dataclass
class FrameRow:
    """One video: its ``images`` in the order of time, or the ``error`` for which it has none; ``offset`` in bytes."""

    video_id: str
    place: str
    images: list[bytes] = field(default_factory=list)
    error: str | None = None
    offset: int = 0


def tsv_rows(
    path: str | os.PathLike[str],
    column: int,
    ids: dict[int, str] | None = None,
    left_out: Counter[str] | None = None,
) -> Iterator[FrameRow]:
    """Read a TSV row by row, in constant memory; what cannot be read of a row is its ``error``.

    Args:
        path: file.
        column: of the first frame, from 0 (which is the id).
        ids: byte offset of a row -> its id, where that is not the first column; other rows are left out.
        left_out: counts those, by reason.

    Raises:
        DataError: if the file cannot be read, or a row has frames before ``column``; names file and line.
    """
    number = 0
    for offset, line in _lines(path):
        number += 1
        place = f"{path}, line {number}"
        if ids is not None and offset not in ids:
            if left_out is not None:
                left_out["that its .id2lineidx.pkl does not name"] += 1
            continue
        columns = line.rstrip(b"\r\n").split(b"\t")
        _refuse_early_frames(columns, column, place)
        try:
            video_id = columns[0].decode() if ids is None else ids[offset]
            row = FrameRow(video_id, place, offset=offset)
        except UnicodeDecodeError:
            row = FrameRow(place, place, error=f"the id {shown(columns[0])} is not UTF-8", offset=offset)
        if row.error is None:
            row.images, row.error = _images(columns[column:])
        if not row.video_id:
            row.video_id, row.error = place, "the row has no id"
        yield row


def pickle_rows(path: str | os.PathLike[str]) -> Iterator[FrameRow]:
    """Read a pickled dict of id to list of base64 strings (or bytes), without executing it; all of it is in memory.

    Raises:
        DataError: if it is anything else; names the file.
    """
    found = safe_pickle.load(path)
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds a {type(found).__name__}, expected a dict of video id to frames")
    if found and all(isinstance(value, int) for value in found.values()):
        raise DataError(f"{path}: holds the offsets of rows, no frames; name the TSV that it belongs to")
    for video_id, frames in found.items():
        is_id = isinstance(video_id, str | int) and not isinstance(video_id, bool)
        row = FrameRow(video_id if isinstance(video_id, str) else shown(video_id), f"{path}, video {shown(video_id)}")
        if not is_id or not row.video_id:
            row.error = "its id is no text and no whole number"
        elif isinstance(frames, list | tuple | str | bytes):
            row.images, row.error = _images([frames] if isinstance(frames, str | bytes) else frames)
        else:
            row.error = f"its frames are a {type(frames).__name__}, not a list"
        yield row


def find_frame_column(path: str | os.PathLike[str], column: int | None = None) -> int:
    """Return the column of the first frame, 1 or 2, as the first rows of a TSV show it; ``column`` says it beforehand.

    Raises:
        DataError: if no column holds frames, rows disagree, or a column before the given one holds frames too.
    """
    rows = []
    for number, (_, line) in enumerate(_lines(path), 1):
        rows.append((f"{path}, line {number}", line.rstrip(b"\r\n").split(b"\t")))
        if number == _LOOKED_AT:
            break
    if not rows:
        raise DataError(f"{path}: the file is empty")
    if column is not None:
        for place, columns in rows:
            _refuse_early_frames(columns, column, place)
        if any(len(columns) > column and _looks_like_image(columns[column]) for _, columns in rows):
            return column
        raise DataError(f"{path}: column {column} holds no JPEG or PNG in base64 in the first {len(rows)} rows")
    found: dict[int, str] = {}
    for place, columns in rows:
        for candidate in (1, 2):
            if len(columns) > candidate and _looks_like_image(columns[candidate]):
                if _decodes(columns[candidate]):
                    found.setdefault(candidate, place)
                break
    if len(found) == 1:
        return next(iter(found))
    if found:
        raise DataError(f"{found[1]} has its first frame in column 1, {found[2]} in column 2: one file, two layouts")
    raise DataError(
        f"{path}: neither column 1 nor column 2 holds a JPEG or PNG in base64 in the first {len(rows)} rows. Is it a"
        " file of frames? --frames-from-column names another column"
    )


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its offset; empty lines are passed over."""
    try:
        with open(path, "rb") as file:
            yield from _lines_of(file, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _lines_of(file: BinaryIO, path: Any) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while line := file.readline(_LONGEST_ROW):
        if len(line) == _LONGEST_ROW:
            raise DataError(
                f"{path}: the row at byte {offset} is longer than {_LONGEST_ROW} bytes: not a TSV of frames"
            )
        if line.strip():
            yield offset, line
        offset += len(line)


def _refuse_early_frames(columns: list[bytes], column: int, place: str) -> None:
    """Refuse a row that has frames before the column of the first one: they would be lost."""
    early = next((number for number in range(1, min(column, len(columns))) if _looks_like_image(columns[number])), None)
    if early is not None:
        raise DataError(
            f"{place}: column {early} holds a frame, which would be lost with frames from column {column} on. Import"
            f" files of one layout only, with --frames-from-column {early} for those like this row"
        )


def _looks_like_image(column: bytes) -> bool:
    """Tell by its beginning whether a column is meant to be an image, however damaged the rest is."""
    try:
        return image_format(base64.b64decode(column[:_SHOWN])) is not None
    except binascii.Error:
        return False


def _decodes(column: bytes) -> bool:
    try:
        decode_image(base64.b64decode(column, validate=True))
    except (binascii.Error, DataError):
        return False
    return True


def _images(columns: Sequence[Any]) -> tuple[list[bytes], str | None]:
    """Return the images in columns, or none and the reason: one that is damaged makes the whole video so."""
    if not columns:
        return [], "it has no frame"
    images = []
    for number, column in enumerate(columns):
        image, fault = _image(column)
        if fault is not None:
            return [], f"frame {number}: {fault}"
        images.append(image)
    return images, None


def _image(column: Any) -> tuple[bytes, str | None]:
    if isinstance(column, bytes) and image_format(column) is not None:
        image = column  # not base64 at all
    elif isinstance(column, bytes | str):
        try:
            image = base64.b64decode(column, validate=True)
        except ValueError as error:  # also letters beyond ASCII
            return b"", f"not base64 ({error})"
    else:
        return b"", f"a {type(column).__name__}, no text"
    kind = image_format(image)
    if kind is None:
        return b"", f"neither JPEG nor PNG ({len(image)} bytes)"
    if _ENDS[kind] not in image[-_TRAILING:]:
        return b"", f"a {kind} that is cut ({len(image)} bytes)"
    return image, None
