"""A few frames of a video, chosen by number, in one pass of decoding.

The published way (VIOLET's and LAVENDER's tools) decodes all L frames of a video and keeps those in the middle of N + 1
even steps: number ``int(L / (N + 1) * (i + 1))`` for i from 0 to N - 1. L is known only at the end, and to keep all
frames until then is to fill the memory. Here the packets are counted first, which reads the file but decodes nothing;
decoding then keeps the frames that this count asks for, and their neighbours, since a few packets may turn out to be
damaged. What was decoded decides: if so much is damaged that a frame was not kept, the file is decoded once more.
"""

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from mmpt.store.video_frames import DecodeReport, count_frames, judge_end, timed_frames
from mmpt.store.video_info import open_video
from mmpt.utils.errors import DataError

__all__ = ["ChosenFrames", "middle_frames", "middle_numbers"]

_NEIGHBOURS = 2
_MOST_HELD_BYTES = 96 << 20  # of decoded pictures; more are encoded at once
_TELL_SECONDS = 5
_SLACK = Fraction(1, 60)  # seconds; so much a clip may end later than its video without a word


def middle_numbers(total: int, wanted: int) -> list[int]:
    """Return the numbers of ``wanted`` frames out of ``total``: where there are fewer, some come twice.

    In floating point, as published, so that every number is the published one.
    """
    return [int(total / (wanted + 1) * (number + 1)) for number in range(wanted)]


@dataclass
class ChosenFrames:
    """The frames of one video: ``images`` as ``encode`` made them, ``seconds`` from the start of the video or clip."""

    images: list[Any] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def middle_frames(
    path: str | os.PathLike[str],
    wanted: int,
    encode: Callable[[Any], bytes],
    report: DecodeReport,
    start: float = 0.0,
    end: float | None = None,
) -> Iterator[tuple[ChosenFrames | None, float]]:
    """Decode a video, or the seconds from ``start`` to ``end``, and choose frames evenly (:func:`middle_numbers`).

    Args:
        path: video file.
        wanted: number of frames.
        encode: turns a decoded frame into what is kept of it; called for chosen frames, and for few others.
        report: filled with counts and warnings.
        start: second to start from; a frame belongs to the clip if most of the time that it is shown does.
        end: second to stop at; None: the end.

    Yields:
        (None, seconds decoded) every few seconds, and last (the frames, seconds decoded).

    Raises:
        DataError: if the file is no video, no frame can be decoded, or ``start`` is past its end; names the file.
    """
    expected = count_frames(path, start, end)
    kept = _Kept(encode)
    total, told = 0, 0.0
    for frame, seconds in _inside(path, start, end, report):
        if total in _near(expected - report.errors, wanted):
            kept.add(total, frame, seconds)
        total += 1
        if seconds - told >= _TELL_SECONDS:
            yield None, seconds - told
            told = seconds
    numbers = middle_numbers(total, wanted)
    missed = set(numbers) - kept.frames.keys()
    if missed:
        report.warnings.append(f"decoded twice, since only {total} frames came of {expected} packets")
        yield None, told
        for number, (frame, seconds) in enumerate(_inside(path, start, end, DecodeReport())):
            if number in missed:
                kept.add(number, frame, seconds)
    report.written = wanted
    yield kept.chosen(numbers), max(0.0, report.seconds - start - told)


@functools.lru_cache(maxsize=64)
def _near(total: int, wanted: int) -> frozenset[int]:
    """Return the numbers that may be wanted if about ``total`` frames come."""
    spread = range(-_NEIGHBOURS, _NEIGHBOURS + 1)
    return frozenset(number + shift for number in middle_numbers(max(1, total), wanted) for shift in spread)


class _Kept:
    """Frames by number: as they were decoded, or encoded where that takes too much memory."""

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        self.encode = encode
        self.frames: dict[int, tuple[Any, float]] = {}
        self.held_bytes = 0

    def add(self, number: int, frame: Any, seconds: float) -> None:
        size = sum(plane.buffer_size for plane in frame.planes)
        if self.held_bytes + size > _MOST_HELD_BYTES:
            frame, size = self.encode(frame), 0
        self.held_bytes += size
        self.frames[number] = (frame, seconds)

    def chosen(self, numbers: list[int]) -> ChosenFrames:
        images: dict[int, bytes] = {}
        for number in numbers:
            frame = self.frames[number][0]
            if number not in images:
                images[number] = frame if isinstance(frame, bytes) else self.encode(frame)
        return ChosenFrames([images[number] for number in numbers], [self.frames[number][1] for number in numbers])


def _inside(
    path: str | os.PathLike[str], start: float, end: float | None, report: DecodeReport
) -> Iterator[tuple[Any, float]]:
    """Yield the frames of a clip, each with its second from the clip's start; at least one."""
    begin, limit = Fraction(start), None if end is None else Fraction(end)
    none_yet, before, shown_until = True, None, Fraction(0)
    with open_video(path) as (container, stream):
        for frame, begins, lasts in timed_frames(container, stream, begin, report, every=True):
            if limit is not None and begins >= limit:
                shown_until = begins  # the frame before this one fills the rest of the clip
                break
            middle, shown_until = begins + lasts / 2, begins + lasts
            if start == 0 or middle >= begin:
                if limit is None or middle < limit or none_yet:
                    none_yet = False
                    yield frame, max(0.0, float(begins - begin))
            else:
                before = frame
        else:
            judge_end(container, stream, shown_until, begin, report)
            if limit is not None and limit > shown_until + _SLACK and start < shown_until:
                report.warnings.append(f"ends at {float(limit):.2f} s, but the video at {float(shown_until):.2f} s")
    report.seconds = float(shown_until if limit is None else min(limit, shown_until))
    if none_yet and before is not None and start < shown_until:  # one frame that is shown for long
        none_yet = False
        yield before, 0.0
    if none_yet and before is not None:
        raise DataError(f"{path}: starts at second {start}, but the video ends at {float(shown_until):.2f}")
    if none_yet:
        raise DataError(f"{path}: no frame can be decoded")
