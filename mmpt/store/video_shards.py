"""What the stores of many videos share: shards of thousands of videos, each a few ragged arrays, and a commit file.

A store is a folder. Each shard ``<name>`` is a ``<name>.videos``, a :class:`~mmpt.utils.shardedtensor.ShardedTensor`
with one item per video, under its id, and one ShardedTensor ``<name>.<part>`` for each of its parts. The rows of all
videos are counted through: a part has one item for each row (a frame, a segment), or else one for each video, and so
the starts of the videos are the numbers of each video's first item in the parts.

The commit file (``frames.json``, ``segments.json``) names the shards in order and is written when one is complete: a
shard that it does not name is not read, and one that it names must be there. Where two shards hold an id, the later one
counts; ids that were removed count again only from a later shard on. :mod:`mmpt.store.video_shards_writer` writes.
"""

import functools
import itertools
import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from mmpt.store.opened import OpenedOnce, file_state, not_among
from mmpt.utils.errors import DataError, shown
from mmpt.utils.files import allow_open_files, read_json
from mmpt.utils.name_index import NameIndex
from mmpt.utils.shardedtensor import ShardedTensor

__all__ = [
    "STORE_VERSION",
    "Layout",
    "Part",
    "Place",
    "ShardEntry",
    "VideoShards",
    "opener_of",
    "part_prefix",
    "read_shard_list",
    "read_store_file",
]

STORE_VERSION = 1
VIDEOS = "videos"

_NAME = re.compile(r"shard_\d{5,}")


@dataclass(frozen=True)
class Part:
    """One array of a shard: its ``dtype``, the shape of a row of an item, and whether it has an item per video."""

    dtype: type[np.generic]
    row_shape: tuple[int, ...] = ()
    per_video: bool = False

    def fits(self, data: np.ndarray) -> bool:
        """Tell whether stored rows are of this dtype and shape."""
        return bool(data.dtype == self.dtype and data.shape[1:] == self.row_shape)


@dataclass(frozen=True)
class Layout:
    """How a kind of store lies on disk.

    ``file``: the commit file. ``kind``: what the store is called. ``option``: the configuration key of its path.
    ``how_to_make``: a sentence for who has none. ``videos``: of ``<name>.videos``. ``parts``: all that there can be.
    """

    file: str
    kind: str
    option: str
    how_to_make: str
    videos: Part
    parts: Mapping[str, Part]


@dataclass
class ShardEntry:
    """One shard as the commit file names it; ``removed`` are ids that were taken out when it was the last shard."""

    name: str
    videos: int
    removed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """Where a video is: the number of its shard, its own number in it, and the numbers of its rows there."""

    shard: int
    number: int
    rows: range


def part_prefix(folder: str | os.PathLike[str], name: str, part: str = VIDEOS) -> Path:
    """Return the ShardedTensor prefix of a part of a shard."""
    return Path(folder) / f"{name}.{part}"


def read_store_file(folder: str | os.PathLike[str], layout: Layout) -> dict[str, Any]:
    """Read the commit file, or return {} where there is none yet.

    Raises:
        DataError: if it is damaged; names it.
    """
    path = Path(folder) / layout.file
    if not path.exists():
        return {}
    stored = read_json(path)
    shards = stored.get("shards") if isinstance(stored, dict) else None
    if not isinstance(stored, dict) or stored.get("version") != STORE_VERSION or not isinstance(shards, list):
        raise DataError(f"{path}: not the list of shards of a {layout.kind}, version {STORE_VERSION}")
    return stored


def read_shard_list(folder: str | os.PathLike[str], layout: Layout) -> list[ShardEntry]:
    """Read which shards a store has, in order; none where there is no store yet.

    Raises:
        DataError: if the commit file is damaged; names it.
    """
    shards = read_store_file(folder, layout).get("shards", [])
    return [_entry(shard, Path(folder) / layout.file) for shard in shards]


def _entry(shard: Any, path: Path) -> ShardEntry:
    held = shard if isinstance(shard, dict) else {}
    name, videos, removed = held.get("name"), held.get("videos"), held.get("removed", [])
    are_ids = isinstance(removed, list) and all(isinstance(id, str) for id in removed)
    if not (isinstance(name, str) and _NAME.fullmatch(name) and isinstance(videos, int) and are_ids):
        raise DataError(f"{path}: {shown(shard)} is not a shard with its name and number of videos")
    return ShardEntry(name, videos, removed)


class VideoShards:
    """The videos of all shards; what one holds is the subclass's, which sets ``layout``.

    Opening reads the ids and the rows of ``<name>.videos``; a part is mapped when it is first asked for.

    Raises:
        DataError: if there is no store, or a shard that it names is missing, damaged or of another write; names it.
    """

    layout: ClassVar[Layout]

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.shards = read_shard_list(path, self.layout)
        if not self.shards:
            layout = self.layout
            raise DataError(f"{self.path}: no {layout.kind}: {self._absence()} ({layout.option}). {layout.how_to_make}")
        self._videos = [self._open_videos(shard) for shard in self.shards]
        self._parts: list[dict[str, ShardedTensor]] = [{} for _ in self.shards]
        allow_open_files(len(self.shards) * len(self.layout.parts))  # each mapping holds one
        self._firsts = list(itertools.accumulate(map(len, self._videos), initial=0))
        self._places = self._number()

    def _number(self) -> Mapping[str, int]:
        """Return the number of each video, all shards counted through."""
        index = NameIndex(list(itertools.chain.from_iterable(videos.ids or [] for videos in self._videos)))
        if len(index) == len(index.names) and not any(shard.removed for shard in self.shards):
            return index
        places: dict[str, int] = {}
        for shard, videos, first in zip(self.shards, self._videos, self._firsts, strict=False):
            places.update(zip(videos.ids or [], itertools.count(first)))
            for video_id in shard.removed:
                places.pop(video_id, None)
        return places

    def _find(self, video_ids: Sequence[str]) -> np.ndarray:
        """Return the numbers of videos, -1 for those that there are not; int64 (videos,)."""
        if isinstance(self._places, NameIndex):
            return self._places.find(video_ids)
        return np.fromiter(map(self._places.get, video_ids, itertools.repeat(-1)), np.int64, len(video_ids))

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._places

    def holds(self, video_ids: Sequence[str]) -> np.ndarray:
        """Tell of each id whether there is such a video, bool (ids,)."""
        return self._find(video_ids) >= 0

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    @functools.cached_property
    def ids(self) -> list[str]:
        """The ids of all videos, shard by shard in the order in which they were written."""
        return list(self._places)

    def lengths(self) -> np.ndarray:
        """Return how many rows (frames, segments) each video has, int64 (videos,), in the order of ``ids``."""
        every = np.concatenate([videos.lengths() for videos in self._videos])
        return np.asarray(every[self._find(self.ids)], np.int64)

    def parts(self) -> frozenset[str]:
        """Return the names of the parts that each shard of this store has."""
        return frozenset(self.layout.parts)

    def place(self, video_id: str, remedy: str) -> Place:
        """Return where a video is.

        Args:
            video_id: of the video.
            remedy: what to do if there is no such video, a sentence.

        Raises:
            DataError: if there is none; names the folder, and the nearest id or how many there are.
        """
        place = self._places.get(video_id)
        if place is None:
            raise DataError(f"{not_among(video_id, self._places, f'{self.layout.kind} {self.path}')} {remedy}")
        shard = bisect_right(self._firsts, place) - 1
        number = place - self._firsts[shard]
        starts = self._videos[shard].starts
        return Place(shard, number, range(starts.item(number), starts.item(number + 1)))

    def rows(self, place: Place) -> np.ndarray:
        """Return what ``<name>.videos`` holds of a video, (rows, ...)."""
        return self._videos[place.shard][place.number]

    def part(self, shard: int, name: str) -> ShardedTensor:
        """Return a part of a shard, opened when first asked for.

        Raises:
            DataError: if it is missing, damaged, or of another write than the videos; names the file.
        """
        opened = self._parts[shard].get(name)
        if opened is None:
            opened = self._parts[shard][name] = self._open_part(shard, name)
        return opened

    def verify(self) -> int:
        """Check every block of every shard against its checksum; return the number of blocks checked.

        Raises:
            DataError: if a block was changed; names the file.
        """
        checked = sum(videos.verify() for videos in self._videos)
        for shard in range(len(self.shards)):
            checked += sum(self.part(shard, name).verify() for name in sorted(self.parts()))
        return checked

    def producer(self) -> dict[str, Any]:
        """Return what made the last shard."""
        return dict((self._videos[-1].index or {}).get("producer") or {})

    def _open_videos(self, shard: ShardEntry) -> ShardedTensor:
        prefix, layout = part_prefix(self.path, shard.name), self.layout
        videos = ShardedTensor.load(prefix, mmap_mode=None)  # small, and a mapping each would use up the file handles
        if videos.index is None or videos.ids is None or not layout.videos.fits(videos.data):
            raise DataError(f"{prefix}: holds no videos of a {layout.kind}. {layout.how_to_make}")
        if len(videos) != shard.videos:
            raise DataError(
                f"{prefix}: {len(videos)} videos, {layout.file} says {shard.videos}. Restore the folder from one copy,"
                " or make the store again"
            )
        return videos

    def _open_part(self, shard: int, name: str) -> ShardedTensor:
        videos, prefix = self._videos[shard], part_prefix(self.path, self.shards[shard].name, name)
        kind = self.layout.parts[name]
        opened = ShardedTensor.load(prefix)
        generation = None if opened.index is None else opened.index["generation"]
        written_with = ((videos.index or {}).get("producer") or {}).get(f"{name}_generation")
        items = len(videos) if kind.per_video else len(videos.data)
        if len(opened) != items or not kind.fits(opened.data) or generation != written_with:
            raise DataError(
                f"{prefix}: these {name.replace('_', ' ')} were not written with the videos beside them. Restore the"
                " shard's files from one copy, or make the store again"
            )
        return opened

    def _absence(self) -> str:
        if not self.path.is_dir():
            return "no such folder"
        file = self.layout.file
        return f"its {file} names no shard" if (self.path / file).exists() else f"it has no {file}"


Store = TypeVar("Store", bound=VideoShards)


def opener_of(store: type[Store]) -> Callable[[str | os.PathLike[str]], Store]:
    """Return what opens stores of a kind once per process, and anew where one has got other shards since."""

    return OpenedOnce(store, lambda folder: file_state(Path(folder) / store.layout.file))
