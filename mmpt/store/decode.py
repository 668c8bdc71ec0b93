"""Decoding videos to frames of a constant rate and size, in one pass and constant memory.

``stream_frames`` takes anything FFmpeg reads: odd sizes, rotation metadata, variable frame rates,
clocks that do not start at zero, damaged or truncated files.

Time: zero is where the file starts (its earliest stream, as in players; the first picture where that is
less than 0.2 s later). Frame ``k`` of the output
is the picture that is on screen in the middle of [k / fps, (k + 1) / fps), which is what FFmpeg's
``fps`` filter selects and does not depend on the rounding of time stamps.
"""

import itertools
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from mmpt.store.video_info import (
    VideoInfo,
    decoder_version,
    display_transform,
    open_video,
    orient,
    probe,
    stated_duration,
)
from mmpt.utils.errors import DataError
from mmpt.utils.extras import require

__all__ = ["DecodeReport", "VideoInfo", "decoded_frames", "decoder_version", "probe", "stream_frames"]

logger = logging.getLogger(__name__)

# An output interval at the end counts if the video covers this much of it, at any rate:
# then every encoder yields the same number of seconds for a video.
_SLACK = Fraction(1, 60)
_LONGEST_GAP = 3600  # seconds without a frame; more is a broken clock
_LEAD = Fraction(1, 5)  # seconds; encoder delays make the first picture later than the file by up to this
_DEMUX_RETRIES = 16


@dataclass
class DecodeReport:
    """What happened while a video was decoded; filled in when the stream of frames has ended.

    ``truncated``: the file ends well before the length it states. ``errors`` counts packets that
    could not be decoded. ``seconds`` is where the last frame shown ends, in seconds.
    """

    decoded: int = 0
    written: int = 0
    errors: int = 0
    packets: int = 0
    seconds: float = 0.0
    truncated: bool = False
    warnings: list[str] = field(default_factory=list)


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
    block: int | None = None,
    threads: int = 1,
    report: DecodeReport | None = None,
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
        block: frames per yielded array, default one second (``round(fps)``); the last array may have fewer.
        threads: decoding threads; 1 is deterministic for damaged files too.
        report: filled with counts and warnings.

    Yields:
        (n, height, width, 3) uint8 arrays, each its own memory, at least one of them and none empty.

    Raises:
        DataError: if the file is no video, no frame can be decoded, or ``start`` is past its end; names the file.
        MissingExtraError: if PyAV is not installed.
    """
    if fps <= 0 or (end is not None and end <= start) or start < 0:
        raise DataError(f"{path}: cannot take {fps} frames/s from second {start} to {end}")
    if center_crop and not (crop_size or size):
        raise ValueError("center_crop needs size or crop_size")
    if crop_size and size and crop_size > size:
        raise ValueError(f"crop_size {crop_size} is larger than size {size}")
    picture = _Picture(size, (crop_size or size) if center_crop else None, hflip)
    rate = Fraction(fps).limit_denominator(1001)
    frames = _resample(path, rate, Fraction(start), end, threads, report or DecodeReport())
    try:
        yield from _blocks(frames, picture, block or max(1, round(fps)))
    except require("av", "video").FFmpegError as error:
        raise DataError(f"{path}: decoding failed ({error})") from error


def _blocks(frames: Iterator[Any], picture: "_Picture", length: int) -> Iterator[np.ndarray]:
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


def decoded_frames(container: Any, stream: Any, report: DecodeReport | None = None) -> Iterator[Any]:
    """Yield a stream's decodable frames in presentation order; what cannot be decoded is counted in ``report``."""
    av = require("av", "video")
    report = report or DecodeReport()
    for packet in _packets(container, stream, report):
        try:
            report.packets += packet.size > 0
            frames = packet.decode()
        except (av.FFmpegError, ValueError):
            report.errors += 1
            continue
        for frame in frames:
            report.decoded += 1
            yield frame


class _Picture:
    """Scale, crop and turn one decoded frame to (height, width, 3) uint8."""

    def __init__(self, size: int | None, crop: int | None, hflip: bool) -> None:
        self.size, self.crop, self.hflip = size, crop, hflip
        self.fixed: tuple[int, int] | None = None  # width, height where nothing is cropped

    def __call__(self, frame: Any) -> np.ndarray:
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
        scale = Fraction(shorter, min(width, height))
        return max(shorter, round(width * scale)), max(shorter, round(height * scale))


def _resample(
    path: str | os.PathLike[str], rate: Fraction, start: Fraction, end: float | None, threads: int, report: DecodeReport
) -> Iterator[Any]:
    """Yield for each output interval the decoded frame that is shown in its middle."""
    limit = None if end is None else Fraction(end)
    shown, shown_until = None, Fraction(0)
    with open_video(path, threads) as (container, stream):
        for frame, begins, lasts in _timed(container, stream, start, report):
            while shown is not None and start + (report.written + Fraction(1, 2)) / rate <= begins:
                if limit is not None and start + report.written / rate >= limit:
                    break
                report.written += 1
                yield shown
            shown, shown_until = frame, begins + lasts
            if limit is not None and begins >= limit:
                break
        else:
            _judge_end(container, stream, shown_until, start, report)
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


def _timed(
    container: Any, stream: Any, start: Fraction, report: DecodeReport
) -> Iterator[tuple[Any, Fraction, Fraction]]:
    """Yield (frame, begin, length) with times in seconds that never run backwards."""
    duration = stated_duration(container, stream)
    rate = Fraction(stream.guessed_rate or stream.average_rate or 25)
    origin, frames = _from(container, stream, start, report)
    stamp_of = _Stamps(container)
    last: Fraction | None = None  # where the previous frame began
    expected = Fraction(0)
    for frame in frames:
        lasts, stamp = 1 / rate, stamp_of(frame)
        if stamp is None:
            begins = expected
        else:
            lasts = frame.duration * frame.time_base if frame.duration else lasts
            begins = stamp - origin
            gap = begins - (Fraction(0) if last is None else last)
            beyond = duration is not None and begins > duration + 10 and gap > 10
            if gap > _LONGEST_GAP or beyond or (last is not None and gap < -1):
                _warn(report, f"the clock jumps by {float(gap):.1f} s")
                origin += begins - expected
                begins = expected
        if last is not None and begins <= last:
            continue  # shown for no time at all
        last, expected = begins, begins + lasts
        yield frame, begins, lasts


def _from(container: Any, stream: Any, start: Fraction, report: DecodeReport) -> tuple[Fraction, Iterator[Any]]:
    """Return the clock's zero in seconds and the frames from a key frame at or before ``start`` on.

    Where seeking cannot be relied on, all frames are returned.
    """
    av = require("av", "video")
    frames = decoded_frames(container, stream, report)
    first = next(frames, None)
    stamp = None if first is None else _Stamps(container)(first)
    if first is None or stamp is None:
        return Fraction(0), frames if first is None else itertools.chain([first], frames)
    origin = stamp if container.start_time is None else Fraction(container.start_time, 1_000_000)
    if stamp - origin < _LEAD:
        origin = stamp
    if start < 2:
        return origin, itertools.chain([first], frames)
    try:
        container.seek(int((start + origin) * 1_000_000))
        frames = decoded_frames(container, stream, report)
        first = next(frames, None)
        stamp = None if first is None else _Stamps(container)(first)
        if stamp is not None and stamp - origin <= start:
            return origin, itertools.chain([first], frames)
        container.seek(container.start_time or 0)
    except av.FFmpegError as error:
        logger.debug("%s: seeking failed (%s)", container.name, error)
    return origin, decoded_frames(container, stream, report)


class _Stamps:
    """Presentation times in seconds on the file's own clock.

    Where presentation stamps run backwards more often than decoding stamps, the latter count (FFmpeg's
    rule); AVI holds decoding stamps only, whatever the demuxer calls them.
    """

    def __init__(self, container: Any) -> None:
        self.faults = [int(container.format.name == "avi"), 0]
        self.last: list[int | None] = [None, None]

    def __call__(self, frame: Any) -> Fraction | None:
        stamps = (frame.pts, frame.dts)
        for kind, stamp in enumerate(stamps):
            if stamp is not None:
                last = self.last[kind]
                self.faults[kind] += last is not None and stamp <= last
                self.last[kind] = stamp
        stamp = stamps[int(self.faults[0] > self.faults[1])]
        return None if stamp is None or frame.time_base is None else stamp * frame.time_base


def _packets(container: Any, stream: Any, report: DecodeReport) -> Iterator[Any]:
    """Demux to the end; an error in the middle is counted and reading goes on behind it."""
    av = require("av", "video")
    for _ in range(_DEMUX_RETRIES):
        try:
            yield from container.demux(stream)
            return
        except av.EOFError:
            return
        except av.FFmpegError:
            report.errors += 1
    _warn(report, "gave up reading after repeated errors")


def _judge_end(container: Any, stream: Any, seconds: Fraction, start: Fraction, report: DecodeReport) -> None:
    """Set ``truncated`` if clearly less was read than the file states."""
    duration = stated_duration(container, stream)
    short = duration is not None and seconds < duration - max(Fraction(1, 2), duration / 100)
    # AVI's length is recomputed from the bytes present; its header still counts the frames
    fewer = start == 0 and stream.frames > 0 and report.packets < stream.frames - max(2, stream.frames // 100)
    if short or fewer:
        report.truncated = True
        _warn(report, f"ends at {float(seconds):.2f} s, before the length that the file states")
    if report.errors:
        _warn(report, f"{report.errors} damaged packets")


def _warn(report: DecodeReport, message: str) -> None:
    report.warnings.append(message)
