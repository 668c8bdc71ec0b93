"""Decoding videos to frames of a constant rate and size, in one pass and constant memory.

``stream_frames`` takes anything FFmpeg reads: odd sizes, rotation metadata, variable frame rates,
clocks that do not start at zero, damaged or truncated files.

Time: zero is where the file starts (its earliest stream, as in players; the first picture where that is
less than 0.2 s later). Frame ``k`` of the output
is the picture that is on screen in the middle of [k / fps, (k + 1) / fps), which is what FFmpeg's
``fps`` filter selects and does not depend on the rounding of time stamps.
"""

import math
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from mmpt.store.video_frames import DecodeReport, decoded_frames, judge_end, timed_frames
from mmpt.store.video_info import (
    VideoInfo,
    decoder_version,
    display_transform,
    open_video,
    orient,
    stated_duration,
)
from mmpt.utils.errors import DataError
from mmpt.utils.extras import require

__all__ = ["DecodeReport", "Picture", "VideoInfo", "decoder_version", "probe", "stream_frames"]

# An output interval at the end counts if the video covers this much of it, at any rate:
# then every encoder yields the same number of seconds for a video.
_SLACK = Fraction(1, 60)


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Read the properties of a video; decodes one frame, so that what probes also starts to decode.

    Raises:
        DataError: if it is not a video or no frame can be decoded; names the file.
        MissingExtraError: if PyAV is not installed.
    """
    with open_video(path) as (container, stream):
        frame = next(decoded_frames(container, stream), None)
        if frame is None:
            raise DataError(f"{path}: no frame can be decoded")
        transposed = display_transform(frame)[0]
        duration = stated_duration(container, stream)
        rate = stream.guessed_rate or stream.average_rate
        return VideoInfo(
            width=frame.height if transposed else frame.width,
            height=frame.width if transposed else frame.height,
            fps=float(rate) if rate else None,
            duration=None if duration is None else float(duration),
            rotation=frame.rotation,
            frames=stream.frames or None,
            codec=stream.codec_context.name,
        )


def stream_frames(
    path: str | os.PathLike[str],
    fps: float,
    size: int | None,
    center_crop: bool = True,
    *,
    crop_size: int | None = None,
    start: float = 0.0,
    end: float | None = None,
    hflip: bool = False,
    enlarge: bool = True,
    block: int | None = None,
    threads: int = 1,
    report: DecodeReport | None = None,
    on_picture: Callable[[Any, float], None] | None = None,
) -> Iterator[np.ndarray]:
    """Decode a video to upright RGB frames at a constant rate, block by block.

    Args:
        path: video file.
        fps: frames per second of the output.
        size: shorter side in pixels after scaling (bicubic, pixels taken as square); None keeps the stored size.
        center_crop: whether to cut the central square, of ``crop_size`` (default: ``size``).
        crop_size: side of the square where it is smaller than ``size``.
        start: second to start from.
        end: second to stop at; None: the end.
        hflip: mirror left to right.
        enlarge: whether videos smaller than ``size`` are scaled too.
        block: frames per yielded array, default one second (``round(fps)``); the last array may have fewer.
        threads: decoding threads; 1 is deterministic for damaged files too.
        report: filled with counts and warnings.
        on_picture: is called with each decoded frame that is taken and the second from which it is shown.

    Yields:
        (n, height, width, 3) uint8 arrays, each its own memory, at least one of them and none empty.

    Raises:
        DataError: if the file is no video, no frame can be decoded, ``start`` is past its end, or ``fps``, ``start``
            and ``end`` are not finite, positive and in order; names the file.
        MissingExtraError: if PyAV is not installed.
    """
    if not (0 < fps < math.inf and 0 <= start < math.inf and (end is None or start < end < math.inf)):
        raise DataError(f"{path}: cannot take {fps} frames/s from second {start} to {end}")
    if center_crop and not (crop_size or size):
        raise ValueError("center_crop needs size or crop_size")
    if crop_size and size and crop_size > size:
        raise ValueError(f"crop_size {crop_size} is larger than size {size}")
    picture = Picture(size, (crop_size or size) if center_crop else None, hflip, enlarge)
    rate = _exact_rate(fps)
    frames = _resample(path, rate, Fraction(start), end, threads, report or DecodeReport())
    if on_picture is not None:
        frames = _told(frames, start, rate, on_picture)
    try:
        yield from _blocks(frames, picture, block or max(1, round(fps)))
    except require("av", "video").FFmpegError as error:
        raise DataError(f"{path}: decoding failed ({error})") from error


def _exact_rate(fps: float) -> Fraction:
    """Return the fraction that is meant: 30000/1001 for 29.97002997, or else the number itself."""
    exact = Fraction(fps)
    usual = exact.limit_denominator(1001)
    return usual if abs(usual - exact) <= exact / 10**7 else exact


def _told(
    frames: Iterator[Any], start: float, rate: Fraction, on_picture: Callable[[Any, float], None]
) -> Iterator[Any]:
    shown = None
    for number, frame in enumerate(frames):
        if frame is not shown:
            shown = frame
            on_picture(frame, start + float(number / rate))
        yield frame


def _blocks(frames: Iterator[Any], picture: "Picture", length: int) -> Iterator[np.ndarray]:
    """Convert frames and gather ``length`` of them per array; a frame shown for long is converted once."""
    shown, array, buffer, filled = None, None, None, 0
    for frame in frames:
        if frame is not shown or array is None:
            shown, array = frame, picture(frame)
        if buffer is None:
            buffer = np.empty((length, *array.shape), np.uint8)
        buffer[filled] = array
        filled += 1
        if filled == length:
            yield buffer
            buffer, filled = None, 0
    if buffer is not None:
        yield buffer[:filled].copy()


class Picture:
    """Scale, crop, turn upright and mirror one decoded frame: ``picture(frame)`` is (height, width, 3) uint8, RGB.

    The first frame decides the size of all. Arguments as those of :func:`stream_frames`; ``crop`` None: no crop.
    """

    def __init__(self, size: int | None, crop: int | None = None, hflip: bool = False, enlarge: bool = True) -> None:
        self.size, self.crop, self.hflip, self.enlarge = size, crop, hflip, enlarge
        self.fixed: tuple[int, int] | None = None  # width, height where nothing is cropped

    def __call__(self, frame: Any) -> np.ndarray:
        """Return the picture of a decoded frame."""
        width, height = self.fixed or self._scaled(frame.width, frame.height)
        if self.crop is None:
            self.fixed = (width, height)  # a change of size within the file must not change the output's
        scaled = frame.reformat(width, height, "rgb24", interpolation="BICUBIC", threads=1)
        image = scaled.to_ndarray()
        if self.crop is not None:
            top, left = (height - self.crop) // 2, (width - self.crop) // 2
            image = image[top : top + self.crop, left : left + self.crop]
        image = orient(image, display_transform(frame))
        return image[:, ::-1] if self.hflip else image

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        shorter = self.size or max(min(width, height), self.crop or 1)
        if not self.enlarge:
            shorter = min(shorter, max(min(width, height), self.crop or 1))
        scale = Fraction(shorter, min(width, height))
        return max(shorter, round(width * scale)), max(shorter, round(height * scale))


def _resample(
    path: str | os.PathLike[str], rate: Fraction, start: Fraction, end: float | None, threads: int, report: DecodeReport
) -> Iterator[Any]:
    """Yield for each output interval the decoded frame that is shown in its middle."""
    limit = None if end is None else Fraction(end)
    shown, shown_until = None, Fraction(0)
    with open_video(path, threads) as (container, stream):
        for frame, begins, lasts in timed_frames(container, stream, start, report):
            while shown is not None and start + (report.written + Fraction(1, 2)) / rate <= begins:
                if limit is not None and start + report.written / rate >= limit:
                    break
                report.written += 1
                yield shown
            shown, shown_until = frame, begins + lasts
            if limit is not None and begins >= limit:
                break
        else:
            judge_end(container, stream, shown_until, start, report)
            if limit is not None and limit > shown_until + _SLACK and start < shown_until:
                report.warnings.append(f"ends at {float(limit):.2f} s, but the video at {float(shown_until):.2f} s")
        if shown is None:
            raise DataError(f"{path}: no frame can be decoded")
        if start > 0 and start >= shown_until:
            raise DataError(f"{path}: starts at second {float(start)}, but the video ends at {float(shown_until):.2f}")
        stop = shown_until if limit is None else min(limit, shown_until)
        slack = min(_SLACK, 1 / (2 * rate))
        while report.written == 0 or start + report.written / rate + slack < stop:
            report.written += 1
            yield shown
        report.seconds = float(stop)
