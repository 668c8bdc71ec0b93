"""Video frames on disk: a few JPEGs per video, in shards of thousands of videos.

A store is a folder. Each shard ``<name>`` is two :class:`~mmpt.utils.shardedtensor.ShardedTensor`:

==================== ==============================================================================
``<name>.frames``    one item per frame: the bytes of its JPEG (or PNG), uint8 (bytes,)
``<name>.videos``    one item per video, under its id: the seconds of its frames, float64 (frames,);
                     so its starts are the numbers of each video's first frame in the other
``frames.json``      which shards there are, in order; written when a shard is complete
==================== ==============================================================================

``frames.json`` is the commit: a shard that it does not name is not read, and one that it names must be there. Where two
shards hold an id, the later one counts; ids that were removed count again only from a later shard on. The writer is
:mod:`mmpt.store.frame_writer`.
"""

import functools
import itertools
import math
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np

from mmpt.store.opened import OpenedOnce, not_among
from mmpt.utils.errors import DataError, shown
from mmpt.utils.files import read_json
from mmpt.utils.shardedtensor import ShardedTensor

__all__ = [
    "STORE_FILE",
    "STORE_VERSION",
    "FrameStore",
    "ShardEntry",
    "StoredFrames",
    "frames_prefix",
    "open_frames",
    "read_store_file",
    "videos_prefix",
]

STORE_FILE = "frames.json"
STORE_VERSION = 1

_NAME = re.compile(r"shard_\d{5,}")


@dataclass
class ShardEntry:
    """One shard as ``frames.json`` names it; ``removed`` are ids that were taken out when it was the last shard."""

    name: str
    videos: int
    removed: list[str] = field(default_factory=list)


def frames_prefix(folder: str | os.PathLike[str], name: str) -> Path:
    """Return the ShardedTensor prefix of a shard's frames."""
    return Path(folder) / f"{name}.frames"


def videos_prefix(folder: str | os.PathLike[str], name: str) -> Path:
    """Return the ShardedTensor prefix of a shard's videos."""
    return Path(folder) / f"{name}.videos"


def read_store_file(folder: str | os.PathLike[str]) -> list[ShardEntry]:
    """Read which shards a store has, in order; none where there is no store yet.

    Raises:
        DataError: if ``frames.json`` is damaged; names it.
    """
    path = Path(folder) / STORE_FILE
    if not path.exists():
        return []
    stored = read_json(path)
    shards = stored.get("shards") if isinstance(stored, dict) else None
    if not isinstance(stored, dict) or stored.get("version") != STORE_VERSION or not isinstance(shards, list):
        raise DataError(f"{path}: not the list of shards of a frame store, version {STORE_VERSION}")
    return [_entry(shard, path) for shard in shards]


def _entry(shard: Any, path: Path) -> ShardEntry:
    held = shard if isinstance(shard, dict) else {}
    name, videos, removed = held.get("name"), held.get("videos"), held.get("removed", [])
    are_ids = isinstance(removed, list) and all(isinstance(id, str) for id in removed)
    if not (isinstance(name, str) and _NAME.fullmatch(name) and isinstance(videos, int) and are_ids):
        raise DataError(f"{path}: {shown(shard)} is not a shard with its name and number of videos")
    return ShardEntry(name, videos, removed)


class StoredFrames(Sequence[np.ndarray]):
    """The compressed frames of one video in the order of time: ``frames[k]`` is uint8 (bytes,), read when asked for.

    Attributes:
        seconds: float64 (frames,), when each is shown, from the start of the video or clip; NaN where unknown.
        numbers: which of the video's frames these are: all, if it was not sliced.

    Args:
        images: holds the images of this video, and maybe of others.
        positions: where this video's are in it.
        seconds: as the attribute.
        numbers: as the attribute; None for all frames of a video.
        video_id: whose frames they are, for errors; None where nobody knows.
    """

    def __init__(
        self,
        images: Sequence[np.ndarray] | ShardedTensor,
        positions: range,
        seconds: np.ndarray,
        numbers: range | None = None,
        video_id: str | None = None,
    ) -> None:
        self._images, self._positions = images, positions
        self._video_id = video_id
        self.seconds = seconds
        self.numbers = range(len(positions)) if numbers is None else numbers

    @classmethod
    def of(cls, images: Sequence[bytes], seconds: Sequence[float] | np.ndarray | None = None) -> "StoredFrames":
        """Return frames that are in memory, from the bytes of each."""
        times = np.full(len(images), math.nan) if seconds is None else np.asarray(seconds, np.float64)
        return cls([np.frombuffer(image, np.uint8) for image in images], range(len(images)), times)

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, k: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, k: slice) -> "StoredFrames": ...

    def __getitem__(self, k: int | slice) -> "np.ndarray | StoredFrames":
        if isinstance(k, slice):
            return StoredFrames(self._images, self._positions[k], self.seconds[k], self.numbers[k], self._video_id)
        try:
            return self.read(k)
        except DataError as error:
            if self._video_id is None:
                raise
            raise DataError(f"video {self._video_id!r}: frame {self.numbers[k]}: {error}") from error

    def read(self, k: int) -> np.ndarray:
        """Return frame ``k`` as ``frames[k]`` does, for callers whose own errors name the video."""
        return self._images[self._positions[k]]

    def between(self, start: float, end: float) -> "StoredFrames":
        """Return the frames shown from second ``start`` up to ``end``; frames whose time is unknown are left out."""
        inside = np.flatnonzero((self.seconds >= start) & (self.seconds < end))
        return self[inside[0] : inside[-1] + 1] if len(inside) else self[:0]


class FrameStore:
    """The frames of many videos: ``store[video_id]`` gives its :class:`StoredFrames`.

    Opening reads ids and seconds, no frames; a shard of frames is mapped when one of its videos is first asked for.
    A pickled store is its path: spawned workers open it themselves, once per process.

    Raises:
        DataError: if there is no store, or a shard that it names is missing, damaged or of another write; names it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.shards = read_store_file(path)
        if not self.shards:
            raise DataError(f"{self.path}: no frame store: {self._absence()} (dataset.frame_path). {_HOW_TO_MAKE}")
        self._videos = [self._open_videos(shard) for shard in self.shards]
        self._frames: list[ShardedTensor | None] = [None] * len(self.shards)
        self._firsts = [0]
        self._places: dict[str, int] = {}  # the number of the video, all shards counted through
        for shard, videos in zip(self.shards, self._videos, strict=True):
            assert videos.ids is not None
            self._places.update(zip(videos.ids, itertools.count(self._firsts[-1])))
            for video_id in shard.removed:
                self._places.pop(video_id, None)
            self._firsts.append(self._firsts[-1] + len(videos))

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    @functools.cached_property
    def ids(self) -> list[str]:
        """The ids of all videos, shard by shard in the order in which they were written."""
        return list(self._places)

    def __getitem__(self, video_id: str) -> StoredFrames:
        """Return the frames of a video.

        Raises:
            DataError: if there are none; names the folder, and the nearest id or how many there are. Reading a frame
                raises it if its bytes were changed since they were written; names video and frame.
        """
        place = self._places.get(video_id)
        if place is None:
            told = not_among(video_id, self._places, f"frame store {self.path}")
            raise DataError(f"{told} Extract or import its frames, or take it off the list.")
        shard_number = bisect_right(self._firsts, place) - 1
        videos, frames = self._videos[shard_number], self._frames[shard_number]
        if frames is None:
            frames = self._frames[shard_number] = self._open_frames(shard_number)
        number = place - self._firsts[shard_number]
        first = videos.starts.item(number)
        seconds = videos[number]
        return StoredFrames(frames, range(first, first + len(seconds)), seconds, video_id=video_id)

    def verify(self) -> int:
        """Check every block of every shard against its checksum; return the number of blocks checked.

        Raises:
            DataError: if a block was changed; names the file.
        """
        checked = sum(videos.verify() for videos in self._videos)
        for number in range(len(self.shards)):
            if self._frames[number] is None:
                self._frames[number] = self._open_frames(number)
        return checked + sum(frames.verify() for frames in self._frames if frames is not None)

    def producer(self) -> dict[str, Any]:
        """Return what made the frames of the last shard."""
        return dict((self._videos[-1].index or {}).get("producer") or {})

    def _open_videos(self, shard: ShardEntry) -> ShardedTensor:
        prefix = videos_prefix(self.path, shard.name)
        videos = ShardedTensor.load(prefix, mmap_mode=None)  # small, and a mapping each would use up the file handles
        if videos.index is None or videos.ids is None or videos.data.dtype != np.float64 or videos.data.ndim != 1:
            raise DataError(f"{prefix}: holds no videos of a frame store. {_HOW_TO_MAKE}")
        if len(videos) != shard.videos:
            raise DataError(
                f"{prefix}: {len(videos)} videos, {STORE_FILE} says {shard.videos}. Restore the folder from one copy,"
                " or make the store again"
            )
        return videos

    def _open_frames(self, number: int) -> ShardedTensor:
        videos, prefix = self._videos[number], frames_prefix(self.path, self.shards[number].name)
        frames = ShardedTensor.load(prefix)
        generation = None if frames.index is None else frames.index["generation"]
        written_with = ((videos.index or {}).get("producer") or {}).get("frames_generation")
        fits = len(frames) == len(videos.data) and frames.data.dtype == np.uint8 and frames.data.ndim == 1
        if not fits or generation != written_with:
            raise DataError(
                f"{prefix}: these frames were not written with the videos beside them. Restore the shard's files from"
                " one copy, or make the store again"
            )
        return frames

    def _absence(self) -> str:
        if not self.path.is_dir():
            return "no such folder"
        return f"its {STORE_FILE} names no shard" if (self.path / STORE_FILE).exists() else f"it has no {STORE_FILE}"

    def __reduce__(self) -> tuple[Any, ...]:
        return open_frames, (os.path.abspath(self.path),)


_HOW_TO_MAKE = "scripts/frame_extractor makes one from videos or from published frame files."


def _state(folder: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(Path(folder) / STORE_FILE)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


_opened = OpenedOnce(FrameStore, _state)


def open_frames(path: str | os.PathLike[str]) -> FrameStore:
    """Return the store, opened once per process; one that has got other shards since is opened anew.

    Raises:
        DataError: as :class:`FrameStore`.
    """
    return _opened(path)
