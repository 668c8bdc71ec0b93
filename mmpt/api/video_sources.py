"""What a user calls a video, brought to one kind of thing: a file, frames or features, each with its length.

Time is in seconds from the start of the video or clip. Shapes: T frames or seconds, D feature width.
"""

import abc
import bisect
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from mmpt.api.checks import as_array, is_number
from mmpt.api.outputs import VideoClip
from mmpt.store.decode import Picture, stream_frames
from mmpt.store.frames_at_times import VideoClock, pictures_at, read_clock
from mmpt.store.video_frames import DecodeReport
from mmpt.utils.errors import DataError, VideoError
from mmpt.utils.extras import require

__all__ = [
    "FeatureSource",
    "FileSource",
    "FrameSource",
    "PictureSource",
    "Source",
    "Video",
    "as_list",
    "errors_of_video",
    "source_of",
]

#: Seconds that a clip may end behind its video: ends are annotated no more exactly.
_BEHIND = 1.0


@contextmanager
def errors_of_video() -> Iterator[None]:
    """Make what goes wrong while a video is read an error about that video alone.

    Raises:
        VideoError: for data and files that cannot be read.
    """
    try:
        yield
    except VideoError:
        raise
    except (DataError, OSError) as error:
        raise VideoError(str(error)) from error


class Source(abc.ABC):
    """A video: its ``name`` for errors, and how long it lasts; ``progress``: show how far reading it is."""

    name: str
    progress = False

    @property
    @abc.abstractmethod
    def duration(self) -> float:
        """Seconds."""


#: A video: the path of a file, a part of one, frames (T, height, width, 3) uint8 at the rate that the call is told, or
#: features (seconds, D) float; or a :class:`Source` of them.
Video = str | os.PathLike[str] | VideoClip | np.ndarray | Tensor | Source


class PictureSource(Source):
    """A video that has pictures."""

    @abc.abstractmethod
    def pictures(self, times: Sequence[float]) -> Iterator[np.ndarray]:
        """Yield what is shown at each time, ascending: uint8 (height, width, 3); an object for one picture."""

    @abc.abstractmethod
    def stream(self, fps: float, resize: int, crop: int, hflip: bool, block: int) -> Iterator[np.ndarray]:
        """Yield all of it at a constant rate: uint8 (up to ``block``, crop, crop, 3)."""

    @abc.abstractmethod
    def frames_within(self, start: float, end: float) -> int | None:
        """Return how many pictures begin within some seconds; None where that is not known without decoding."""


class FileSource(PictureSource):
    """A file, or the seconds of one from ``start`` to ``end``.

    Raises:
        VideoError: if the file is no video, or the clip lies beyond its end; names it.
    """

    def __init__(self, path: str | os.PathLike[str], start: float = 0.0, end: float | None = None) -> None:
        self.name = self.path = _checked_path(path)
        if not is_number(start) or not (end is None or is_number(end)):
            raise VideoError(f"{self.path}: a clip from {start!r} to {end!r}: give seconds as numbers, end may be None")
        self.start = float(start)
        if not (0 <= self.start < math.inf and (end is None or self.start < end < math.inf)):
            raise VideoError(f"{self.path}: there is no clip from second {start} to {end}")
        self._end = None if end is None else float(end)
        #: Is called with each decoded frame that is taken and its second in the file.
        self.on_picture: Callable[[Any, float], None] | None = None

    @cached_property
    def clock(self) -> VideoClock:
        """When the pictures of the file are shown."""
        with errors_of_video():
            clock = read_clock(self.path)
        if not clock.duration > 0:
            raise VideoError(f"{self.path}: shows nothing")
        if self.start >= clock.duration:
            raise VideoError(f"{self.path}: a clip starts at second {self.start}, but it ends at {clock.duration:.2f}")
        if self._end is not None and self._end > clock.duration + _BEHIND:
            raise VideoError(f"{self.path}: a clip ends at second {self._end}, but it ends at {clock.duration:.2f}")
        return clock

    @property
    def end(self) -> float:
        """Second of the file at which the clip ends."""
        return self.clock.duration if self._end is None else min(self._end, self.clock.duration)

    @property
    def duration(self) -> float:
        """Seconds of the clip."""
        return self.end - self.start

    def pictures(self, times: Sequence[float]) -> Iterator[np.ndarray]:
        """Decode from the key frame before each time."""
        clock, make = self.clock, Picture(None, enlarge=False)
        shown, array = None, None
        with errors_of_video():
            try:
                frames = pictures_at(self.path, [self.start + time for time in times], clock, DecodeReport())
                for time, frame in zip(times, frames, strict=True):
                    if frame is not shown or array is None:
                        shown, array = frame, make(frame)
                        if self.on_picture is not None:
                            self.on_picture(frame, self.start + time)
                    yield array
            except require("av", "video").FFmpegError as error:
                raise VideoError(f"{self.path}: decoding failed ({error})") from error

    def stream(self, fps: float, resize: int, crop: int, hflip: bool, block: int) -> Iterator[np.ndarray]:
        """Decode in one pass, as extraction does."""
        end = None if self._end is None else self.end
        with errors_of_video():
            yield from stream_frames(
                self.path,
                fps,
                resize,
                crop_size=crop,
                start=self.start,
                end=end,
                hflip=hflip,
                block=block,
                on_picture=self.on_picture,
            )

    def frames_within(self, start: float, end: float) -> int | None:
        """Count the packets that begin within."""
        times = self.clock.times
        if times is None:
            return None
        ticks = [(Fraction(self.start + second) + times.origin) / times.tick for second in (start, end)]
        return bisect.bisect_left(times.frames, ticks[1]) - bisect.bisect_left(times.frames, ticks[0])


def _checked_path(path: Any) -> str:
    if not isinstance(path, str | os.PathLike):
        raise VideoError(f"a {type(path).__name__} is no path of a video")
    return str(os.fspath(path))


class FrameSource(PictureSource):
    """Frames uint8 (T, height, width, 3), or floats in [0, 1], at ``fps``; frame i is shown from i / fps on.

    Raises:
        VideoError: if the shape, type or rate cannot be.
    """

    def __init__(self, frames: np.ndarray, fps: float | None, name: str = "frames") -> None:
        from mmpt.api.raw_frames import frame_bytes

        self.name = name
        if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise VideoError(f"{name}: {frames.dtype} of shape {frames.shape}, expected (frames, height, width, 3)")
        if fps is None or not is_number(fps) or not 0 < fps < math.inf:
            raise VideoError(f"{name}: say how many there are in a second: fps=, a number above 0 (it is {fps!r})")
        with errors_of_video():
            self.frames, self.fps = frame_bytes(frames, name), float(fps)

    @property
    def duration(self) -> float:
        """Frames over their rate."""
        return len(self.frames) / self.fps

    def pictures(self, times: Sequence[float]) -> Iterator[np.ndarray]:
        """Pick frames."""
        last = len(self.frames) - 1
        return (self.frames[min(int(time * self.fps + 1e-6), last)] for time in times)

    def stream(self, fps: float, resize: int, crop: int, hflip: bool, block: int) -> Iterator[np.ndarray]:
        """Pick the frame in the middle of each interval and scale it, as decoding does."""
        av = require("av", "video")
        make = Picture(resize, crop, hflip)
        slack = min(1 / 60, 0.5 / fps)
        count = max(1, math.ceil((self.duration - slack) * fps - 1e-9))
        pictures = self.pictures([(number + 0.5) / fps for number in range(count)])
        for first in range(0, count, block):
            found = [next(pictures) for _ in range(min(block, count - first))]
            yield np.stack([make(av.VideoFrame.from_ndarray(np.ascontiguousarray(one), "rgb24")) for one in found])

    def frames_within(self, start: float, end: float) -> int | None:
        """Count frames."""
        first, stop = (math.ceil(second * self.fps - 1e-6) for second in (start, end))
        return min(stop, len(self.frames)) - min(first, len(self.frames))


class FeatureSource(Source):
    """Features (seconds, D).

    Raises:
        VideoError: if the shape cannot be, or a value is not finite.
    """

    def __init__(self, features: np.ndarray, name: str = "features") -> None:
        self.name = name
        if features.ndim != 2 or not len(features) or features.dtype.kind not in "fiu":
            raise VideoError(f"{name}: {features.dtype} of shape {features.shape}, expected numbers (seconds, D)")
        self.features = np.asarray(features, dtype=np.float32)
        if not np.isfinite(self.features).all():
            second = int(np.flatnonzero(~np.isfinite(self.features).all(1))[0])
            raise VideoError(f"{name}: second {second} has values that are not finite. Extract the video again")

    @property
    def duration(self) -> float:
        """A second for each feature."""
        return float(len(self.features))


def as_list(videos: Any) -> tuple[list[Any], bool]:
    """Return videos as a list, and whether a single one was given: a path, clip or array is one.

    What is no video and no list of them counts as one, for :func:`source_of` to say so.
    """
    single = isinstance(videos, str | bytes | os.PathLike | VideoClip | Source | np.ndarray | Tensor)
    if single or _is_bare_clip(videos) or not isinstance(videos, Iterable):
        return [videos], True
    return list(videos), False


def source_of(video: Any, fps: float | None = None, number: int | None = None) -> Source:
    """Return what a user's video is; ``number`` is its place in a list, for errors about arrays.

    Raises:
        VideoError: if it is none.
    """
    if isinstance(video, Source):
        return video
    if isinstance(video, VideoClip):
        return FileSource(*video)
    if isinstance(video, str | os.PathLike):
        return FileSource(video)
    where = "" if number is None else f" of video {number}"
    if isinstance(video, Tensor | np.ndarray):
        return _array_source(as_array(video), fps, where)
    meant = f". Meant VideoClip({', '.join(map(repr, video))})?" if _is_bare_clip(video) else ""
    raise VideoError(
        f"a {type(video).__name__} is no video{where}: give a path, a VideoClip, frames (T, height, width, 3) with "
        f"fps=, or features (seconds, D){meant}"
    )


def _is_bare_clip(video: Any) -> bool:
    """Tell whether it is a tuple of a path and seconds, as of a clip."""
    bare = type(video) is tuple and 1 < len(video) < 4 and isinstance(video[0], str | os.PathLike)
    return bare and any(second is None or is_number(second) for second in video[1:])


def _array_source(array: np.ndarray, fps: float | None, where: str) -> Source:
    if array.ndim == 4:
        return FrameSource(array, fps, f"frames{where}")
    if array.ndim == 2 and array.dtype != np.uint8:
        return FeatureSource(array, f"features{where}")
    hint = ""
    if array.ndim > 4:
        hint = ". Give several videos as a list, each with the frames of all its seconds one after another"
    elif array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3)):
        hint = ". A picture goes to encode_image"
    elif array.ndim == 3:
        hint = ". Give the features of several videos as a list"
    raise VideoError(
        f"array{where}: {array.dtype} of shape {array.shape}, expected frames (T, height, width, 3), or features "
        f"(seconds, D) of floats{hint}"
    )
