"""Demuxing and decoding one stream, with a clock that can be relied on.

Files lie about time: stamps are absent, run backwards, jump, or start anywhere. What comes out of
:func:`timed_frames` begins near zero and only goes forward.
"""

import itertools
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from mmpt.store.video_info import open_video, stated_duration
from mmpt.utils.extras import require

__all__ = ["DecodeReport", "clock_zero", "count_frames", "decoded_frames", "first_picture", "judge_end", "timed_frames"]

logger = logging.getLogger(__name__)

_LONGEST_GAP = 3600  # seconds without a frame; more is a broken clock
_LEAD = Fraction(1, 5)  # seconds; encoder delays make the first picture later than the file by up to this
_DEMUX_RETRIES = 16
_REORDERED = 2  # seconds by which a frame may be decoded later than one that is shown after it


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


def timed_frames(
    container: Any, stream: Any, start: Fraction, report: DecodeReport, every: bool = False
) -> Iterator[tuple[Any, Fraction, Fraction]]:
    """Yield (frame, begin, length) from about ``start`` on, with times in seconds that never run backwards.

    Frames that would be shown for no time at all, because the next begins no later, come only with ``every``.
    """
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
            gap = begins - (max(Fraction(0), start) if last is None else last)
            beyond = duration is not None and begins > duration + 10 and gap > 10
            if gap > _LONGEST_GAP or beyond or (last is not None and gap < -1):
                _warn(report, f"the clock jumps by {float(gap):.1f} s")
                origin += begins - expected
                begins = expected
        if last is not None and begins <= last:
            if not every:
                continue
            begins = last
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
    origin = clock_zero(container, stamp)
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


def clock_zero(container: Any, first: Fraction) -> Fraction:
    """Return where the clock of a file begins, in seconds on its own clock, given the time of the first picture."""
    origin = first if container.start_time is None else Fraction(container.start_time, 1_000_000)
    return first if first - origin < _LEAD else origin


def first_picture(container: Any, stream: Any) -> Fraction | None:
    """Return when a video's first picture is shown, in seconds on the file's own clock; None if none can be decoded."""
    frame = next(decoded_frames(container, stream), None)
    return None if frame is None else _Stamps(container)(frame)


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


def count_frames(path: str | os.PathLike[str], start: float = 0.0, end: float | None = None) -> int:
    """Count the frames of a video, or of the seconds from ``start`` to ``end``, without decoding: its packets.

    Of an intact file that is the number of frames that decoding yields; damaged packets may yield none.

    Raises:
        DataError: if there is no such file or it is not a video; names it.
    """
    report, count = DecodeReport(), 0
    with open_video(path) as (container, stream):
        origin = Fraction(container.start_time or 0, 1_000_000)
        if start >= 2:
            with suppress(require("av", "video").FFmpegError):
                container.seek(int((Fraction(start) + origin) * 1_000_000))
        for packet in _packets(container, stream, report):
            if not packet.size or packet.is_discard:
                continue
            shown, decoded = (
                None if stamp is None or stream.time_base is None else stamp * stream.time_base - origin
                for stamp in (packet.pts, packet.dts)
            )
            if end is not None and decoded is not None and decoded > end + _REORDERED:
                break
            count += shown is None or ((start == 0 or start <= shown) and (end is None or shown < end))
    return count


def judge_end(container: Any, stream: Any, seconds: Fraction, start: Fraction, report: DecodeReport) -> None:
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
