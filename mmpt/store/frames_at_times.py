"""The pictures that are on screen at given seconds of a video, decoded from the key frame before each.

Time as in :mod:`mmpt.store.decode`: zero is where the file starts. A file whose packets do not tell enough, or in which
seeking lands elsewhere, is decoded in one pass.
"""

import bisect
import itertools
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np

from mmpt.store.decode import Picture
from mmpt.store.frame_seeking import CannotSeekError, FrameTimes, frame_times, sought_pictures
from mmpt.store.video_frames import DecodeReport, judge_end, timed_frames
from mmpt.store.video_info import open_video
from mmpt.utils.errors import DataError
from mmpt.utils.extras import require

__all__ = ["VideoClock", "frames_at_times", "pictures_at", "read_clock"]

T = TypeVar("T")

#: Seconds behind the end of a video at which its last picture is still given.
_BEHIND = 1


@dataclass(frozen=True)
class VideoClock:
    """How long a video lasts, in seconds, and when each frame is shown if its packets tell."""

    duration: float
    times: FrameTimes | None

    def cheap(self, second: float) -> float:
        """Return a second near this one, or before it, whose picture takes the least decoding: a key frame's."""
        if self.times is None:
            return second
        keys = self.times.keys
        return self.times.second(keys[max(0, bisect.bisect_right(keys, self.times.shown_at(second)) - 1)])


def read_clock(path: str | os.PathLike[str]) -> VideoClock:
    """Read how long the pictures of a video go on: what is there, not what its header says.

    Reads the file without decoding it, where that tells.

    Raises:
        DataError: if the file is no video or no frame can be decoded; names it.
        MissingExtraError: if PyAV is not installed.
    """
    av = require("av", "video")
    try:
        with open_video(path) as (container, stream):
            times = frame_times(container, stream)
            return VideoClock(times.duration, times)
    except (CannotSeekError, av.FFmpegError):
        pass
    report = DecodeReport()
    for _ in _one_pass(path, [], report):
        pass
    return VideoClock(report.seconds, None)


def pictures_at(
    path: str | os.PathLike[str],
    seconds: Sequence[float],
    clock: VideoClock,
    report: DecodeReport,
    threads: int = 1,
) -> Iterator[Any]:
    """Yield for each second the decoded frame that is on screen then; one that is for several comes again.

    Args:
        path: video file.
        seconds: in order; the first frame counts before it is shown, the last one after.
        clock: of this file.
        report: filled with counts and warnings.
        threads: decoding threads; 1 is deterministic for damaged files too.

    Raises:
        DataError: if no frame can be decoded; names the file.
    """
    av = require("av", "video")
    done = 0
    if clock.times is not None and seconds:
        attempt = DecodeReport()
        asked = Counter(clock.times.shown_at(second) for second in seconds)
        try:
            with open_video(path, threads) as (container, stream):
                for target, frame in sought_pictures(container, stream, clock.times, asked, attempt):
                    for _ in range(asked[target]):
                        done += 1
                        yield frame
        except (CannotSeekError, av.FFmpegError):
            pass
        else:
            vars(report).update(vars(attempt))
            return
    yield from _one_pass(path, seconds[done:], report, threads)


def _one_pass(
    path: str | os.PathLike[str], seconds: Sequence[float], report: DecodeReport, threads: int = 1
) -> Iterator[Any]:
    """Decode a video from the first of the seconds on, or as a whole if there is none."""
    start = Fraction(seconds[0]) if seconds else Fraction(0)
    waiting = iter(seconds)
    second = next(waiting, None)
    shown, shown_until = None, Fraction(0)
    with open_video(path, threads) as (container, stream):
        for frame, begins, lasts in timed_frames(container, stream, start, report):
            while shown is not None and second is not None and second < begins:
                yield shown
                second = next(waiting, None)
            shown, shown_until = frame, begins + lasts
            if seconds and second is None:
                break
        else:
            judge_end(container, stream, shown_until, start, report)
    if shown is None:
        raise DataError(f"{path}: no frame can be decoded")
    report.seconds = float(shown_until)
    for _ in itertools.chain([] if second is None else [second], waiting):
        yield shown


def frames_at_times(
    path: str | os.PathLike[str],
    times: Sequence[float],
    picture: Callable[[Any], T] | None = None,
    threads: int = 1,
    report: DecodeReport | None = None,
) -> list[T] | list[np.ndarray]:
    """Return the picture that is on screen at each time.

    Args:
        path: a local file.
        times: seconds, in any order; up to a second behind the end the last picture is given.
        picture: makes of a decoded frame what is returned; by default uint8 RGB (height, width, 3), upright, in the
            stored size.
        threads: decoding threads; 1 is deterministic for damaged files too.
        report: filled with counts and warnings.

    Raises:
        DataError: if the file is no video, or shows nothing at a time; names the file and the time.
        MissingExtraError: if PyAV is not installed.
    """
    if not all(0 <= time < math.inf for time in times):
        raise DataError(f"{path}: there is no picture at the seconds {list(times)}: they must be 0 or more")
    if not times:
        return []
    clock = read_clock(path)
    if max(times) >= clock.duration + _BEHIND:
        raise DataError(f"{path}: shows nothing at second {max(times):.2f}, it ends at {clock.duration:.2f}")
    make: Callable[[Any], Any] = picture or Picture(None, enlarge=False)
    order = sorted(range(len(times)), key=times.__getitem__)
    frames = pictures_at(path, [times[number] for number in order], clock, report or DecodeReport(), threads)
    found: dict[int, Any] = {}
    last: tuple[Any, Any] = (None, None)
    try:
        for number, frame in zip(order, frames, strict=True):
            if last[0] is not frame:  # one that is asked for twice is made once
                last = (frame, make(frame))
            found[number] = last[1]
    except require("av", "video").FFmpegError as error:
        raise DataError(f"{path}: decoding failed ({error})") from error
    return [found[number] for number in range(len(times))]
