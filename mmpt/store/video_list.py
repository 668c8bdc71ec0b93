"""Which videos to work on: a folder tree, a CSV, or a list of files; each with a unique id."""

import csv
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmpt.utils.errors import DataError

__all__ = ["VIDEO_SUFFIXES", "VideoItem", "find_videos", "split_duplicates"]

logger = logging.getLogger(__name__)

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


def find_videos(sources: Sequence[str | os.PathLike[str]]) -> list[VideoItem]:
    """List the videos of folders (all levels below), CSV files, list files and single videos, in a stable order.

    In a folder the id is the file name without its suffix, and only files with a video suffix count.
    A CSV has the columns ``video_id`` and ``path``, and optionally ``start`` and ``end`` in seconds. A list
    file (``.txt``, ``.lst``) has one path per line. Relative paths start at the list's own folder, or else
    at the working directory.

    Raises:
        DataError: if a source or column is missing, an id cannot be a file name, or nothing is found; names it.
    """
    items: list[VideoItem] = []
    for source in map(Path, sources):
        if source.is_dir():
            items += _in_folder(source)
        elif not source.exists():
            raise DataError(f"{source}: no such folder, CSV or list of videos")
        elif source.suffix.lower() == ".csv":
            items += _in_csv(source)
        elif source.suffix.lower() in (".txt", ".lst"):
            lines = (line.strip() for line in source.read_text(encoding="utf-8").splitlines())
            items += [_item(Path(line).stem, line, source) for line in lines if line]
        else:
            items.append(_item(source.stem, source.name, source))
    if not items:
        raise DataError(f"no videos in {', '.join(map(str, sources))}")
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


def _in_folder(folder: Path) -> list[VideoItem]:
    files = [path for path in folder.rglob("*") if not path.name.startswith(".") and path.is_file()]
    videos = sorted(path for path in files if path.suffix.lower() in VIDEO_SUFFIXES)
    if len(files) > len(videos):
        logger.info("%s: %d files without a video suffix left out", folder, len(files) - len(videos))
    return [VideoItem(path.stem, str(path)) for path in videos]


def _in_csv(table: Path) -> list[VideoItem]:
    with open(table, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = {"video_id", "path"} - set(reader.fieldnames or ())
        if missing:
            raise DataError(f"{table}: the CSV has no column {' and '.join(sorted(missing))}")
        items = []
        for row in reader:
            place = f"{table}, line {reader.line_num}"
            start, end = (_seconds(row.get(key), f"{place}: {key}") for key in ("start", "end"))
            items.append(_item(row["video_id"] or "", row["path"] or "", table, place, start or 0.0, end))
        return items


def _seconds(text: str | None, place: str) -> float | None:
    try:
        return float(text) if text and text.strip() else None
    except ValueError as error:
        raise DataError(f"{place} is {text!r}, not a number of seconds") from error


def _item(
    video_id: str, path: str, listing: Path, place: str | None = None, start: float = 0.0, end: float | None = None
) -> VideoItem:
    if not path:
        raise DataError(f"{place or listing}: a row without a path")
    if video_id in ("", ".", "..") or "/" in video_id or os.sep in video_id or "\0" in video_id:
        raise DataError(f"{place or listing}: video id {video_id!r} cannot be a file name")
    beside = listing.parent / path
    return VideoItem(video_id, str(beside if beside.exists() or not Path(path).exists() else Path(path)), start, end)
