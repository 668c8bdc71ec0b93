"""Videos as a model reads them: features of seconds in windows, or a few frames.

Shapes: W windows of one video, M = ``dataset.max_video_len``, D feature width, N frames, (H, W) pixels.
"""

import abc
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mmpt.api.raw_frames import FrameInput
from mmpt.api.video_sources import FeatureSource, PictureSource, Source, source_of
from mmpt.modules.feature_encoders import FeatureEncoder
from mmpt.store.extraction import whole_seconds
from mmpt.utils.errors import ConfigError, DataError, VideoError

__all__ = ["FeatureReader", "FrameReader", "Rows", "VideoReader", "each_source", "spans_of"]

#: Seconds that an encoder takes at a time.
_SECONDS_AT_A_TIME = 8
#: Seconds by which a frame's time is later than that at which it begins, where the two would be equal but for rounding.
_SLACK = 1e-6
Span = tuple[float, float]


class Rows(NamedTuple):
    """What the model reads of one video: ``vfeats`` (W, M, D) or (1, N, 3, H, W), ``vmasks`` bool, as their heads."""

    vfeats: Tensor
    vmasks: Tensor


def each_source(videos: Sequence[Any], fps: float | None = None, progress: bool = False) -> Iterator[Source]:
    """Yield what the videos of a user are, with a bar of how many, or of a single one of how much, is read."""
    several = progress and len(videos) > 1
    for number, video in enumerate(tqdm(videos, desc="videos", unit="video", disable=not several)):
        source = source_of(video, fps, number)
        source.progress = source.progress or (progress and not several)
        yield source


class VideoReader(abc.ABC):
    """Makes rows of videos.

    Attributes:
        grain: times of parts are multiples of so many seconds; 0: of any.
    """

    grain: float

    def opened(self, source: Source) -> tuple[Source, float]:
        """Return what parts of a video are to be read from, and how many seconds of it there are."""
        return source, source.duration

    def each(self, videos: Sequence[Any], fps: float | None = None, progress: bool = False) -> Iterator[Rows]:
        """Read videos one after another; ``fps`` is the rate of what comes as frames.

        ``progress`` shows how many are read, or of a single one how much.
        """
        for source in each_source(videos, fps, progress):
            yield self.whole(source)

    @abc.abstractmethod
    def whole(self, source: Source) -> Rows:
        """Read a whole video."""

    @abc.abstractmethod
    def parts(self, source: Source, spans: Sequence[Span]) -> Iterator[Rows]:
        """Read parts of a video, which is decoded once: seconds from its start."""


class FeatureReader(VideoReader):
    """For VideoCLIP and VLM: features as they are, or made of pictures by the encoder of the training's.

    Args:
        max_video_len: M.
        width: D, None where it is not known.
        encoder: builds the encoder; called when the first pictures come.
        half: whether the features of training were stored as float16.
        hflip: whether they were of mirrored frames.
    """

    grain = 1.0

    def __init__(
        self,
        max_video_len: int,
        width: int | None,
        encoder: Callable[[], FeatureEncoder],
        half: bool = True,
        hflip: bool = False,
    ) -> None:
        self.max_video_len, self.width, self.half, self.hflip = max_video_len, width, half, hflip
        self._build = encoder
        self._encoder: FeatureEncoder | None = None

    def features(self, source: Source) -> np.ndarray:
        """Return the features of a video, float32 (seconds, D).

        Raises:
            VideoError: if they are not of the model's width.
        """
        found = source.features if isinstance(source, FeatureSource) else self._encode(source)
        if self.width is not None and found.shape[1] != self.width:
            raise VideoError(f"{source.name}: {found.shape[1]} wide features, but the model reads {self.width}")
        return found

    def opened(self, source: Source) -> tuple[Source, float]:
        """Return the features of a video, so that each second is encoded once, and its length."""
        features = FeatureSource(self.features(source), source.name)
        return features, min(features.duration, source.duration)

    def whole(self, source: Source) -> Rows:
        """Read a video in as few windows as it takes, of lengths as equal as whole seconds can be."""
        return self._windows(self.features(source))

    def parts(self, source: Source, spans: Sequence[Span]) -> Iterator[Rows]:
        """Read parts; each second is encoded once."""
        features = self.features(source)
        for start, end in spans:
            yield self._windows(features[round(start) : max(math.ceil(end - 1e-6), round(start) + 1)])

    def _windows(self, features: np.ndarray) -> Rows:
        count = -(-len(features) // self.max_video_len)
        edges = np.linspace(0, len(features), count + 1).round().astype(int)
        vfeats = np.zeros((count, self.max_video_len, features.shape[1]), np.float32)
        vmasks = np.zeros(vfeats.shape[:2], bool)
        for row, (first, stop) in enumerate(itertools.pairwise(edges.tolist())):
            vfeats[row, : stop - first] = features[first:stop]
            vmasks[row, : stop - first] = True
        return Rows(torch.from_numpy(vfeats), torch.from_numpy(vmasks))

    def _encode(self, source: Source) -> np.ndarray:
        assert isinstance(source, PictureSource)
        encoder = self.encoder
        blocks = source.stream(encoder.fps, encoder.resize, encoder.size, self.hflip, _SECONDS_AT_A_TIME * encoder.fps)
        found = np.concatenate(
            [encoder(whole_seconds(block, encoder.fps, encoder.pad)) for block in _told(source, blocks)]
        )
        return found.astype(np.float16).astype(np.float32) if self.half else found

    @property
    def encoder(self) -> FeatureEncoder:
        """The encoder, built when it is first needed."""
        if self._encoder is None:
            self._encoder = self._build()
        return self._encoder

    def reset(self) -> None:
        """Forget the encoder: the next one is built where the model is by then."""
        self._encoder = None


class FrameReader(VideoReader):
    """For systems of frames: N of them, evenly spread, by the transform of a test."""

    grain = 0.0

    def __init__(self, wanted: FrameInput) -> None:
        self.wanted = wanted

    def whole(self, source: Source) -> Rows:
        """Read a video; of one that has fewer frames, all."""
        return next(self.parts(source, [(0.0, source.duration)]))

    def parts(self, source: Source, spans: Sequence[Span]) -> Iterator[Rows]:
        """Read parts in their order, holding the frames of the parts that overlap alone.

        Raises:
            ConfigError: of features.
        """
        if not isinstance(source, PictureSource):
            raise ConfigError(f"{source.name}: this model reads frames. Give a file, or frames with fps=")
        asked = sorted((time, part) for part, span in enumerate(spans) for time in self._times(source, span))
        counts = np.bincount([part for _, part in asked], minlength=len(spans))
        pictures = _told(source, source.pictures([time for time, _ in asked]), len(asked), "frame")
        held: dict[int, list[np.ndarray]] = {}
        shown, pixels, part_due = None, None, 0
        for (_, part), picture in zip(asked, pictures, strict=True):
            if picture is not shown or pixels is None:
                shown, pixels = picture, self.wanted.transform([picture])[0]
            held.setdefault(part, []).append(pixels)
            while part_due < len(spans) and len(held.get(part_due, ())) == counts[part_due]:
                yield self._rows(held.pop(part_due))
                part_due += 1

    def _times(self, source: PictureSource, span: Span) -> list[float]:
        start, end = span
        count = self.wanted.frames
        there = source.frames_within(start, end)
        if there is not None:
            count = min(count, max(there, 1))
        return [start + place * (end - start) + _SLACK for place in self.wanted.places(count)]

    def _rows(self, frames: list[np.ndarray]) -> Rows:
        vfeats = np.zeros((1, self.wanted.frames, 3, *self.wanted.size), np.uint8)
        vfeats[0, : len(frames)] = np.stack(frames)
        return Rows(torch.from_numpy(vfeats), torch.arange(self.wanted.frames)[None] < len(frames))


def _told(source: Source, read: Iterable[np.ndarray], total: int | None = None, unit: str = "block") -> Iterator[Any]:
    """Yield what is read of a video, with a bar where its ``progress`` asks for one and it takes 2 seconds."""
    if total is None and source.progress:
        total = math.ceil(source.duration / _SECONDS_AT_A_TIME)
    yield from tqdm(read, desc="reading", total=total, unit=unit, delay=2, disable=not source.progress)


def spans_of(duration: float, length: float, stride: float | None, grain: float) -> list[Span]:
    """Return parts of a video: from its start on, none past its end; the first that reaches the end is the last.

    Args:
        duration: seconds of the video.
        length: seconds of a part.
        stride: seconds between two starts, by default the length: no overlap.
        grain: times are rounded to multiples of it, at least 1.

    Raises:
        DataError: if length or stride is not above 0.
    """
    stride = length if stride is None else stride
    if not (0 < length < math.inf and 0 < stride < math.inf):
        raise DataError(f"parts of {length} s every {stride} s: both must be above 0")
    if grain:
        length, stride = (max(grain, round(value / grain) * grain) for value in (length, stride))
    beyond = max(duration - length, 0.0)
    count = math.ceil(beyond / stride - 1e-6) + 1
    starts = [number * stride for number in range(count)]
    return [(start, min(start + length, duration)) for start in starts if start == 0 or start < duration - 1e-3]
