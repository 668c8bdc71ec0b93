"""A few frames of a long video without decoding all of it: from the key frame before each.

Chooses the frames that :func:`mmpt.store.frame_selection.middle_frames` does, if no packet is damaged: the times of all
packets, which are read but not decoded, say when each frame is shown. What is damaged between the chosen frames stays
unseen; a file whose packets do not tell enough (AVI), or in which seeking lands elsewhere (often MPEG-TS), is decoded
as a whole.
"""

import bisect
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mmpt.store.frame_selection import ChosenFrames, middle_frames, middle_numbers
from mmpt.store.video_frames import DecodeReport, clock_zero, judge_end
from mmpt.store.video_info import open_video
from mmpt.utils.errors import DataError
from mmpt.utils.extras import require

__all__ = ["sought_frames"]


class _CannotSeekError(Exception):
    """Report a file in which seeking is not to be relied on."""


@dataclass
class _Times:
    """When the frames of a file are shown, in ticks of its clock and in order; those of key frames among them."""

    frames: list[int]
    keys: list[int]
    end: int


def sought_frames(
    path: str | os.PathLike[str], wanted: int, encode: Callable[[Any], bytes], report: DecodeReport
) -> Iterator[tuple[ChosenFrames | None, float]]:
    """As :func:`mmpt.store.frame_selection.middle_frames` of a whole video, decoding from key frame to chosen frame.

    Raises:
        DataError: if the file is no video or no frame can be decoded; names the file.
    """
    av = require("av", "video")
    attempt = DecodeReport()
    try:
        chosen = _seek(path, wanted, encode, attempt)
    except (_CannotSeekError, av.FFmpegError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        yield from middle_frames(path, wanted, encode, report)
        return
    vars(report).update(vars(attempt))
    yield chosen, report.seconds


def _seek(
    path: str | os.PathLike[str], wanted: int, encode: Callable[[Any], bytes], report: DecodeReport
) -> ChosenFrames:
    with open_video(path) as (container, stream):
        times = _times(container, stream)
        tick = stream.time_base
        origin = clock_zero(container, times.frames[0] * tick)
        targets = [times.frames[number] for number in middle_numbers(len(times.frames), wanted)]
        images: dict[int, bytes] = {}
        shown: int | None = None
        frames: Iterator[Any] = iter(())
        for target in dict.fromkeys(targets):
            key = times.keys[bisect.bisect_right(times.keys, target) - 1]
            if shown is None or key > shown:
                container.seek(key, stream=stream)
                frames = _frames(container, stream, report)
            for frame in frames:
                shown = frame.pts
                if shown is None or shown >= target:
                    break
            if shown != target:
                raise _CannotSeekError
            images[target] = encode(frame)
        report.packets, report.written = len(times.frames), wanted
        end = Fraction(times.end) * tick - origin
        judge_end(container, stream, end, Fraction(0), report)
        report.seconds = float(end)
        return ChosenFrames([images[t] for t in targets], [max(0.0, float(t * tick - origin)) for t in targets])


def _times(container: Any, stream: Any) -> _Times:
    """Read the times of all packets."""
    frames, keys, end = [], [], 0
    if container.format.name == "avi":  # it knows in which order frames are decoded, not when they are shown
        raise _CannotSeekError
    for packet in container.demux(stream):
        if not packet.size or packet.is_discard:
            continue
        if packet.pts is None or packet.time_base != stream.time_base:
            raise _CannotSeekError
        frames.append(packet.pts)
        end = max(end, packet.pts + (packet.duration or 0))
        if packet.is_keyframe:
            keys.append(packet.pts)
    frames.sort()
    keys.sort()
    if not keys or keys[0] > frames[0] or any(a == b for a, b in itertools.pairwise(frames)):
        raise _CannotSeekError
    return _Times(frames, keys, end)


def _frames(container: Any, stream: Any, report: DecodeReport) -> Iterator[Any]:
    """Decode from a key frame on; damage ends it."""
    first = True
    for packet in container.demux(stream):
        if first and not packet.is_keyframe:
            raise _CannotSeekError
        first = False
        for frame in packet.decode():
            if frame.is_corrupt:
                raise _CannotSeekError
            report.decoded += 1
            yield frame
