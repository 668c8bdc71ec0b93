"""Which videos to work on: a folder tree, a CSV, or a list of files; each with a unique id."""

import csv
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmpt.store.features import read_id_list
from mmpt.utils.errors import DataError, StorageError, UnsafePathError, shown
from mmpt.utils.safe_paths import is_plain_name, path_below

__all__ = ["VIDEO_SUFFIXES", "VideoItem", "find_videos", "split_duplicates"]

# fmt: off
_SUFFIXES = (
    "3g2", "3gp", "asf", "avi", "divx", "dv", "f4v", "flv", "gif", "h264", "264", "h265", "265", "hevc", "ivf",
    "m2ts", "m2v", "m4v", "mjpeg", "mjpg", "mkv", "mov", "mp4", "mpe", "mpeg", "mpg", "mts", "mxf", "nut",
    "ogm", "ogv", "qt", "rm", "rmvb", "swf", "ts", "vob", "webm", "wmv", "y4m",
)
# fmt: on
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _SUFFIXES)


@dataclass(frozen=True)
class VideoItem:
    """A video file, or the seconds from ``start`` to ``end`` of one, under an id."""

    video_id: str
    path: str
    start: float = 0.0
    end: float | None = None


def find_videos(
    sources: Sequence[str | os.PathLike[str]],
    left_out: list[str] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> list[VideoItem]:
    """List the videos of folders (all levels below), CSV files, list files and single videos, in a stable order.

    In a folder the id is the file name without its suffix, and only files with a video suffix count; what cannot be
    opened although it has one (a broken link, a pipe) is listed too, and fails where it is read.
    A CSV has the columns ``video_id`` and ``path``, and optionally ``start`` and ``end`` in seconds. A list
    file (``.txt``, ``.lst``) has one path per line. Relative paths start at the list's own folder, or else
    at the working directory, and absolute ones are allowed, unless there is a ``root``.

    Args:
        sources: folders, lists and videos.
        left_out: is given the files of folders that do not look like videos.
        root: the folder that the paths of CSVs and lists start at and must not leave.

    Raises:
        UnsafePathError: if a path of a CSV or list leads out of ``root``, or an id cannot be a file name.
        StorageError: if a folder or file may not be read.
        DataError: if a source or column is missing, ``start`` and ``end`` are not seconds in order, or nothing is
            found; names it.
    """
    items: list[VideoItem] = []
    left_out = [] if left_out is None else left_out
    for source in map(Path, sources):
        if os.path.isdir(source):
            items += _in_folder(source, left_out)
        elif not os.path.exists(source):
            raise DataError(f"{source}: no such video, folder, CSV or list of videos")
        elif source.suffix.lower() == ".csv":
            items += _in_csv(source, root)
        elif source.suffix.lower() in (".txt", ".lst"):
            lines = read_id_list(source, "list of videos")
            items += [_item(Path(line).stem, line, source, root=root) for line in lines]
        else:
            items.append(_item(source.stem, source.name, source))
    if not items:
        others = f"; {len(left_out)} files do not look like videos, such as {left_out[0]}" if left_out else ""
        raise DataError(f"no videos in {', '.join(map(str, sources))}{others}")
    return items


def split_duplicates(items: Iterable[VideoItem]) -> tuple[list[VideoItem], list[tuple[VideoItem, VideoItem]]]:
    """Return items with unique ids, and (refused, kept) pairs for other videos that use a taken id.

    The same video listed twice is taken once.
    """
    kept: dict[str, VideoItem] = {}
    clashes = []
    for item in items:
        first = kept.setdefault(item.video_id, item)
        same_file = os.path.realpath(first.path) == os.path.realpath(item.path)
        if not (same_file and (first.start, first.end) == (item.start, item.end)):
            clashes.append((item, first))
    return list(kept.values()), clashes


def _in_folder(folder: Path, left_out: list[str]) -> list[VideoItem]:
    def refuse(error: OSError) -> None:
        raise StorageError(f"{error.filename}: the folder cannot be read ({error.strerror})") from error

    files = sorted(
        Path(place, name)
        for place, _, names in os.walk(folder, onerror=refuse)
        for name in names
        if not name.startswith(".")
    )
    left_out += [str(path) for path in files if path.suffix.lower() not in VIDEO_SUFFIXES]
    return [VideoItem(path.stem, str(path)) for path in files if path.suffix.lower() in VIDEO_SUFFIXES]


def _in_csv(table: Path, root: str | os.PathLike[str] | None) -> list[VideoItem]:
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = {"video_id", "path"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(f"{table}: the CSV has no column {' and '.join(sorted(missing))}")
            return [_in_row(row, table, f"{table}, line {reader.line_num}", root) for row in reader]
    except OSError as error:
        raise StorageError(f"{table}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read as a CSV in UTF-8 ({error})") from error


def _in_row(row: dict[str, str | None], table: Path, place: str, root: str | os.PathLike[str] | None) -> VideoItem:
    video_id = row["video_id"] or ""
    start, end = (_seconds(row.get(key), f"{place}, video {video_id!r}: {key}") for key in ("start", "end"))
    if end is not None and end <= (start or 0.0):
        raise DataError(f"{place}, video {video_id!r}: end {end} is not later than start {start or 0.0}")
    return _item(video_id, row["path"] or "", table, place, start or 0.0, end, root)


def _seconds(text: str | None, place: str) -> float | None:
    if not text or not text.strip():
        return None
    try:
        seconds = float(text)
    except ValueError as error:
        raise DataError(f"{place} is {text!r}, not a number of seconds") from error
    if not 0 <= seconds < math.inf:
        raise DataError(f"{place} is {text!r}, not a number of seconds from 0 on")
    return seconds


def _item(
    video_id: str,
    path: str,
    listing: Path,
    place: str | None = None,
    start: float = 0.0,
    end: float | None = None,
    root: str | os.PathLike[str] | None = None,
) -> VideoItem:
    place = place or str(listing)
    if not path:
        raise DataError(f"{place}: a row without a path")
    if "\0" in path:
        raise UnsafePathError(f"{place}: path {path!r} cannot be that of a file")
    if not is_plain_name(video_id):
        raise UnsafePathError(f"{place}: video id {shown(video_id)} cannot be a file name")
    if root is not None:
        return VideoItem(video_id, str(path_below(root, path, place)), start, end)
    beside = listing.parent / path
    elsewhere = not os.path.exists(beside) and os.path.exists(path)
    return VideoItem(video_id, str(Path(path) if elsewhere else beside), start, end)
