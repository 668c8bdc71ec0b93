"""Videos as aligners of questions read them: stored frames and stored segments, but in memory.

Shapes: N pictures or segments.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmpt.api.raw_frames import inner_points
from mmpt.api.reserve_video_segments import segments_without_gaps, video_to_segments_zero_shot
from mmpt.api.reserve_windows import question_windows, whole_spectrogram
from mmpt.api.video_sources import FileSource, PictureSource, Source, errors_of_video
from mmpt.utils.errors import ConfigError

__all__ = ["Pictures", "Segments", "pictures_of", "segments_around", "segments_of"]


class Pictures:
    """Pictures uint8 (height, width, 3) under the interface of :class:`~mmpt.store.frame_store.StoredFrames`."""

    def __init__(self, images: Sequence[np.ndarray]) -> None:
        self.images = list(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, which: Any) -> Any:
        return Pictures(self.images[which]) if isinstance(which, slice) else self.images[which]

    def read(self, number: int) -> np.ndarray:
        """Return a picture as the bytes of a file that loses nothing, uint8 (bytes,)."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(self.images[number])).save(buffer, "PNG", compress_level=1)
        return np.frombuffer(buffer.getvalue(), np.uint8)


class Segments:
    """Segments under the interface of :class:`~mmpt.processors.segment_base.RecordSegments`; played as they are."""

    def __init__(self, images: Sequence[np.ndarray], spectrograms: Sequence[np.ndarray] | None) -> None:
        self.images, self.spectrograms = list(images), spectrograms
        self.fields = frozenset({"images"} if spectrograms is None else {"images", "spectrograms"})

    def __len__(self) -> int:
        return len(self.images)

    def image(self, n: int) -> np.ndarray:
        """Return the frame of segment ``n``, uint8 (height, width, 3)."""
        return self.images[n]

    def spectrogram(self, n: int) -> np.ndarray:
        """Return the spectrogram of segment ``n``, float16 (frames, 64)."""
        assert self.spectrograms is not None
        return self.spectrograms[n]

    def speed(self, n: int) -> float:
        """Return 1."""
        return 1.0


def pictures_of(source: Source, count: int) -> Pictures:
    """Return ``count`` pictures of a video from where extraction takes them; of one that has fewer, all.

    Raises:
        ConfigError: of features.
        DataError: if the video cannot be decoded.
    """
    shown = _pictured(source)
    there = shown.frames_within(0.0, shown.duration)
    number = count if there is None else min(count, max(there, 1))
    times = [place * shown.duration for place in inner_points(number)]
    return Pictures(list(shown.pictures(times)))


def segments_of(source: Source, seconds: float) -> Segments:
    """Cut a video into stretches of ``seconds`` that fill its middle, each with its sound, as zero-shot tests do.

    Frames that are no file's have no sound.

    Raises:
        ConfigError: of features.
        DataError: if the video cannot be decoded.
    """
    shown = _pictured(source)
    windows = question_windows(shown.duration, seconds)
    if not isinstance(shown, FileSource):
        return Segments(list(shown.pictures([(start + end) / 2 for start, end in windows])), None)
    times = [(shown.start + start, shown.start + end) for start, end in windows]
    with errors_of_video():
        cut = video_to_segments_zero_shot(shown.path, times=times)
    return _segments([one["frame"] for one in cut], [one["spectrogram"] for one in cut], True)


def segments_around(source: Source, count: int, seconds: float) -> Segments:
    """Look at ``count`` places of a video, evenly spread, with the sound around each; fewer where it is short.

    Args:
        seconds: of a place; the video is not looked at more than once in so many.

    Raises:
        ConfigError: of features.
        DataError: if the video cannot be decoded.
    """
    shown = _pictured(source)
    number = max(1, min(count, int(shown.duration / seconds + 1e-6)))
    middles = [(place + 0.5) * shown.duration / number for place in range(number)]
    if not isinstance(shown, FileSource):
        return Segments(list(shown.pictures(middles)), None)
    with errors_of_video():
        cut = segments_without_gaps(shown.path, [shown.start + middle for middle in middles])
    return _segments([one["frame"] for one in cut], [one["spectrogram"] for one in cut], False)


def _segments(images: list[np.ndarray], blocks: list[np.ndarray | None], gaps: bool) -> Segments:
    """Return segments; of the blocks (3, 60, 65) of a sound, the spectrogram that they are cut from."""
    heard = [one for one in blocks if one is not None]
    if len(heard) < len(blocks):
        return Segments(images, None)
    return Segments(
        images, [whole_spectrogram(one) if gaps else one.reshape(-1, one.shape[-1])[:, :-1] for one in heard]
    )


def _pictured(source: Source) -> PictureSource:
    if not isinstance(source, PictureSource):
        raise ConfigError(f"{source.name}: this model reads frames. Give a file, or frames with fps=")
    return source
