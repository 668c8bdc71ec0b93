"""The pictures that a video shows at given seconds, decoding from the key frame before each.

Time as in :mod:`mmpt.store.decode`: zero is where the file starts.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np

from mmpt.store.decode import Picture
from mmpt.store.video_frames import DecodeReport, timed_frames
from mmpt.store.video_info import open_video
from mmpt.utils.errors import DataError
from mmpt.utils.extras import require

__all__ = ["frames_at_times"]

T = TypeVar("T")

#: Seconds between two pictures up to which decoding all of them is not worse than seeking.
_NEAR = 10
#: Seconds behind the end of a video at which its last picture is still given.
_BEHIND = 1


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
    make: Callable[[Any], Any] = picture or Picture(None, enlarge=False)
    order = sorted(range(len(times)), key=times.__getitem__)
    found: dict[int, Any] = {}
    report = report or DecodeReport()
    with ExitStack() as stack:
        shown: Iterator[tuple[Any, Fraction, Fraction]] = iter(())
        current: tuple[Any, Fraction, Fraction] | None = None
        ahead: tuple[Any, Fraction, Fraction] | None = None
        last: tuple[Any, Any] = (None, None)
        try:
            for number in order:
                time = Fraction(times[number])
                if current is None or time > current[1] + _NEAR:
                    stack.close()
                    container, stream = stack.enter_context(open_video(path, threads))
                    shown = timed_frames(container, stream, time, report)
                    current, ahead = next(shown, None), None
                while current is not None:
                    ahead = ahead or next(shown, None)
                    if ahead is None or ahead[1] > time:
                        break
                    current, ahead = ahead, None
                if current is None or (ahead is None and time >= current[1] + current[2] + _BEHIND):
                    raise DataError(f"{path}: shows nothing at second {float(time):.2f}")
                if last[0] is not current[0]:  # one that is asked for twice is made once
                    last = (current[0], make(current[0]))
                found[number] = last[1]
        except require("av", "video").FFmpegError as error:
            raise DataError(f"{path}: decoding failed ({error})") from error
    return [found[number] for number in range(len(times))]
