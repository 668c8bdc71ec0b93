"""A few frames of a long video without decoding all of it: from the key frame before each.

Chooses the frames that :func:`mmpt.store.frame_selection.middle_frames` does, if no packet is damaged: the times of all
packets, which are read but not decoded, say when each frame is shown. What is damaged between the chosen frames stays
unseen; a file whose packets do not tell enough (AVI), or in which seeking lands elsewhere (often MPEG-TS), is decoded
as a whole.
"""

import bisect
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mmpt.store.frame_selection import ChosenFrames, middle_frames, middle_numbers
from mmpt.store.video_frames import DecodeReport, clock_zero, judge_end
from mmpt.store.video_info import open_video
from mmpt.utils.errors import DataError
from mmpt.utils.extras import require

__all__ = ["CannotSeekError", "FrameTimes", "frame_times", "sought_frames", "sought_pictures"]


class CannotSeekError(Exception):
    """Report a file in which seeking is not to be relied on."""


@dataclass
class FrameTimes:
    """When the frames of a file are shown, in ticks of its clock and in order; those of key frames among them.

    ``end``: when the last frame ends. ``tick``: seconds of a tick. ``origin``: second 0 on the file's clock.
    """

    frames: list[int]
    keys: list[int]
    end: int
    tick: Fraction
    origin: Fraction

    @property
    def duration(self) -> float:
        """How long the video lasts, in seconds."""
        return float(self.end * self.tick - self.origin)

    def second(self, ticks: int) -> float:
        """Return the second of the video that is so many ticks on its clock."""
        return max(0.0, float(ticks * self.tick - self.origin))

    def shown_at(self, second: float) -> int:
        """Return when the frame begins that is on screen at a second, in ticks; the first or last one if none is."""
        number = bisect.bisect_right(self.frames, (Fraction(second) + self.origin) / self.tick) - 1
        return self.frames[max(0, number)]


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
    except (CannotSeekError, av.FFmpegError, ValueError) as error:
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
        times = frame_times(container, stream)
        targets = [times.frames[number] for number in middle_numbers(len(times.frames), wanted)]
        images = {
            target: encode(frame)
            for target, frame in sought_pictures(container, stream, times, dict.fromkeys(targets), report)
        }
        report.written = wanted
        return ChosenFrames([images[t] for t in targets], [times.second(t) for t in targets])


def sought_pictures(
    container: Any, stream: Any, times: FrameTimes, targets: Iterable[int], report: DecodeReport
) -> Iterator[tuple[int, Any]]:
    """Yield each target and the decoded frame that begins then, decoding from the key frame before it.

    Args:
        container: of the file.
        stream: of its video.
        times: of its frames.
        targets: in ticks and in order, each once.
        report: filled with counts and warnings.

    Raises:
        CannotSeekError: if seeking lands elsewhere, or a frame on the way is damaged.
    """
    shown: int | None = None
    frames: Iterator[Any] = iter(())
    for target in targets:
        key = times.keys[bisect.bisect_right(times.keys, target) - 1]
        if shown is None or key > shown:
            container.seek(key, stream=stream)
            frames = _frames(container, stream, report)
        for frame in frames:
            shown = frame.pts
            if shown is None or shown >= target:
                break
        if shown != target:
            raise CannotSeekError
        yield target, frame
    report.packets = len(times.frames)
    end = Fraction(times.end) * times.tick - times.origin
    judge_end(container, stream, end, Fraction(0), report)
    report.seconds = float(end)


def frame_times(container: Any, stream: Any) -> FrameTimes:
    """Read the times of all packets, decoding nothing.

    Raises:
        CannotSeekError: if the packets do not tell when each frame is shown.
    """
    frames, keys, end = [], [], 0
    if container.format.name == "avi":  # it knows in which order frames are decoded, not when they are shown
        raise CannotSeekError
    for packet in container.demux(stream):
        if not packet.size or packet.is_discard:
            continue
        if packet.pts is None or packet.time_base != stream.time_base:
            raise CannotSeekError
        frames.append(packet.pts)
        end = max(end, packet.pts + (packet.duration or 0))
        if packet.is_keyframe:
            keys.append(packet.pts)
    frames.sort()
    keys.sort()
    if not keys or keys[0] > frames[0] or any(a == b for a, b in itertools.pairwise(frames)):
        raise CannotSeekError
    tick = stream.time_base
    return FrameTimes(frames, keys, end, tick, clock_zero(container, frames[0] * tick))


def _frames(container: Any, stream: Any, report: DecodeReport) -> Iterator[Any]:
    """Decode from a key frame on; damage ends it."""
    first = True
    for packet in container.demux(stream):
        if first and not packet.is_keyframe:
            raise CannotSeekError
        first = False
        for frame in packet.decode():
            if frame.is_corrupt:
                raise CannotSeekError
            report.decoded += 1
            yield frame
