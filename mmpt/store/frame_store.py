"""Video frames on disk: a few JPEGs per video, in shards of thousands of videos.

A store is a folder of shards (:mod:`mmpt.store.video_shards`). Each shard ``<name>`` is two
:class:`~mmpt.utils.shardedtensor.ShardedTensor`:

==================== ==============================================================================
``<name>.frames``    one item per frame: the bytes of its JPEG (or PNG), uint8 (bytes,)
``<name>.videos``    one item per video, under its id: the seconds of its frames, float64 (frames,);
                     so its starts are the numbers of each video's first frame in the other
``frames.json``      which shards there are, in order; written when a shard is complete: the commit
==================== ==============================================================================

The writer is :mod:`mmpt.store.frame_writer`.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from mmpt.store.video_shards import Layout, Part, VideoShards, opener_of, part_prefix
from mmpt.utils.errors import DataError
from mmpt.utils.shardedtensor import ShardedTensor

__all__ = [
    "FRAME_LAYOUT",
    "STORE_FILE",
    "FrameStore",
    "StoredFrames",
    "frames_prefix",
    "open_frames",
    "videos_prefix",
]

STORE_FILE = "frames.json"
FRAME_LAYOUT = Layout(
    file=STORE_FILE,
    kind="frame store",
    option="dataset.frame_path",
    how_to_make="scripts/frame_extractor makes one from videos or from published frame files.",
    videos=Part(np.float64),
    parts={"frames": Part(np.uint8)},
)


def frames_prefix(folder: str | os.PathLike[str], name: str) -> Path:
    """Return the ShardedTensor prefix of a shard's frames."""
    return part_prefix(folder, name, "frames")


def videos_prefix(folder: str | os.PathLike[str], name: str) -> Path:
    """Return the ShardedTensor prefix of a shard's videos."""
    return part_prefix(folder, name)


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


class FrameStore(VideoShards):
    """The frames of many videos: ``store[video_id]`` gives its :class:`StoredFrames`.

    Opening reads ids and seconds, no frames; a shard of frames is mapped when one of its videos is first asked for.
    A pickled store is its path: spawned workers open it themselves, once per process.

    Raises:
        DataError: if there is no store, or a shard that it names is missing, damaged or of another write; names it.
    """

    layout = FRAME_LAYOUT

    def __getitem__(self, video_id: str) -> StoredFrames:
        """Return the frames of a video.

        Raises:
            DataError: if there are none; names the folder, and the nearest id or how many there are. Reading a frame
                raises it if its bytes were changed since they were written; names video and frame.
        """
        place = self.place(video_id, "Extract or import its frames, or take it off the list.")
        return StoredFrames(self.part(place.shard, "frames"), place.rows, self.rows(place), video_id=video_id)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_frames, (os.path.abspath(self.path),)


_opened = opener_of(FrameStore)


def open_frames(path: str | os.PathLike[str]) -> FrameStore:
    """Return the store, opened once per process; one that has got other shards since is opened anew.

    Raises:
        DataError: as :class:`FrameStore`.
    """
    return _opened(path)
