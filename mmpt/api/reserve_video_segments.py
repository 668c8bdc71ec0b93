"""A video file cut into MERLOT Reserve's segments: a frame and a spectrogram of each.

As the published demo cuts it; see :mod:`mmpt.api.reserve_preprocess` for what is made of segments.
"""

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mmpt.store.audio import SAMPLE_RATE, audio_windows
from mmpt.store.black_bars import trim_black_bars
from mmpt.store.decode import probe
from mmpt.store.frames_at_times import frames_at_times
from mmpt.store.spectrogram import make_spectrogram
from mmpt.utils.errors import DataError

__all__ = [
    "extract_frames_from_video",
    "segments_without_gaps",
    "video_to_segments",
    "video_to_segments_for_action_segmentation",
    "video_to_segments_zero_shot",
]

#: Seconds of sound that the spectrogram of a segment is made of.
_SOUND = 5.0
#: The same where the three blocks of a spectrogram follow each other without a gap.
_SOUND_WITHOUT_GAPS = 4.79
#: Seconds at the end of a video that no segment reaches into.
_END = 1.0

Segment = dict[str, Any]


class _Window(NamedTuple):
    """A segment from ``start`` to ``end``, and the part of it, ``sound``, that is heard; seconds."""

    start: float
    end: float
    sound: tuple[float, float]

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2


def extract_frames_from_video(
    video_file: str | os.PathLike[str],
    times: Sequence[float],
    use_multithreading: bool = False,
    blackbar_threshold: int | None = 32,
    max_perc_to_trim: float = 0.2,
) -> list[np.ndarray]:
    """Return the picture that a video shows at each time (seconds), black bars cut off, the same off all.

    Args:
        video_file: a local file.
        times: seconds from the start of the video.
        use_multithreading: decode with as many threads as FFmpeg likes.
        blackbar_threshold: brightness below which a row or column is black; None: nothing is cut off.
        max_perc_to_trim: largest share of height or width that is cut off a side.

    Returns:
        uint8 (height, width, 3) RGB each.

    Raises:
        DataError: if the file is no video or shows nothing at a time.
    """
    frames: list[np.ndarray] = frames_at_times(video_file, times, threads=0 if use_multithreading else 1)
    if blackbar_threshold is None or not frames:
        return frames
    return list(trim_black_bars(np.stack(frames), blackbar_threshold, max_perc_to_trim))


def video_to_segments(
    video_fn: str | os.PathLike[str],
    time_interval: float = 5.0,
    segment_start_time: float = 0.0,
    num_segments_max: int | None = None,
) -> list[Segment]:
    """Cut a video into segments that follow each other.

    Args:
        video_fn: a local file.
        time_interval: seconds of a segment. Sound of less than 5 is padded with silence on both sides; of more, the
            middle 5 are heard.
        segment_start_time: where the first one begins.
        num_segments_max: at most so many; None: to the end, of which the last second is left out.

    Returns:
        For each segment ``start_time``, ``end_time``, ``mid_time`` (seconds), ``frame`` (uint8 (height, width, 3), what
        is shown in the middle, without black bars), ``spectrogram`` (float32 (3, 60, 65), None without an audio
        stream) and ``idx``.

    Raises:
        DataError: if the video is too short for one segment, or is none.
    """
    last = _duration(video_fn) - _END
    count = math.floor((last - segment_start_time) / time_interval + 1e-6)
    if count < 1:
        raise DataError(f"{video_fn}: too short for a segment of {time_interval} s that ends 1 s before the video does")
    count = count if num_segments_max is None else min(count, num_segments_max)
    starts = [segment_start_time + number * time_interval for number in range(count)]
    return _segments(video_fn, [_heard(start, start + time_interval) for start in starts])


def video_to_segments_zero_shot(
    video_fn: str | os.PathLike[str],
    time_interval: float = 1.0,
    times: Sequence[Any] | None = None,
) -> list[Segment]:
    """Cut given stretches out of a video.

    Args:
        video_fn: a local file.
        time_interval: seconds of each where ``times`` are not given: the whole video in such stretches.
        times: (start, end) in seconds, or mappings with ``start_time`` and ``end_time``. Sound of less than 5 seconds
            is padded with silence on both sides; of longer stretches the 5 around the middle are heard.

    Returns:
        As :func:`video_to_segments`.

    Raises:
        DataError: if the file is no video, or a stretch has no length or lies behind the end.
    """
    if times is None:
        count = max(1, math.floor(_duration(video_fn) / time_interval + 1e-6))
        pairs = [(number * time_interval, (number + 1) * time_interval) for number in range(count)]
    else:
        pairs = [(one["start_time"], one["end_time"]) if isinstance(one, dict) else tuple(one) for one in times]
    return _segments(video_fn, [_heard(float(start), float(end)) for start, end in pairs])


def video_to_segments_for_action_segmentation(
    video_fn: str | os.PathLike[str], time_interval: float = 1.0, segment_start_time: float = 0.5
) -> list[Segment]:
    """Look at a video every ``time_interval`` seconds, from ``segment_start_time`` on, with the sound around.

    The three blocks of a spectrogram follow each other without a gap: 4.79 seconds around the middle.

    Returns:
        As :func:`video_to_segments`; a segment reaches half an interval to both sides of what is looked at.

    Raises:
        DataError: if the file is no video, or ends before the first look.
    """
    duration, half = _duration(video_fn), time_interval / 2
    count = math.ceil((duration - segment_start_time) / time_interval - 1e-6)
    if count < 1:
        raise DataError(f"{video_fn}: ends before second {segment_start_time}")
    middles = [segment_start_time + number * time_interval for number in range(count)]
    return segments_without_gaps(video_fn, middles, half)


def segments_without_gaps(
    video_fn: str | os.PathLike[str], middles: Sequence[float], half: float = _SOUND_WITHOUT_GAPS / 2
) -> list[Segment]:
    """Look at a video at some times, with the 4.79 seconds of sound around each, its three blocks without a gap.

    Args:
        video_fn: a local file.
        middles: seconds from its start.
        half: seconds that a segment is said to reach to both sides.

    Returns:
        As :func:`video_to_segments`.

    Raises:
        DataError: if the file is no video.
    """
    windows = [
        _Window(middle - half, middle + half, (middle - _SOUND_WITHOUT_GAPS / 2, middle + _SOUND_WITHOUT_GAPS / 2))
        for middle in middles
    ]
    return _segments(video_fn, windows, _SOUND_WITHOUT_GAPS, pad_size=0)


def _duration(path: str | os.PathLike[str]) -> float:
    duration = probe(path).duration
    if duration is None:
        raise DataError(f"{path}: does not say how long it is; write it anew (for example with ffmpeg -c copy)")
    return duration


def _heard(start: float, end: float) -> _Window:
    middle = (start + end) / 2
    sound = (start, end) if end - start <= _SOUND else (middle - _SOUND / 2, middle + _SOUND / 2)
    return _Window(start, end, sound)


def _segments(
    path: str | os.PathLike[str], windows: Sequence[_Window], seconds: float = _SOUND, pad_size: int = 2
) -> list[Segment]:
    for window in windows:
        if not window.start < window.end:
            raise DataError(f"{path}: there is nothing from second {window.start} to {window.end}")
    frames = extract_frames_from_video(path, [window.middle for window in windows])
    sounds = _sounds(path, windows, seconds)
    return [
        {
            "start_time": window.start,
            "end_time": window.end,
            "mid_time": window.middle,
            "frame": frame,
            "spectrogram": None if sounds is None else make_spectrogram(sounds[number], pad_size=pad_size),
            "idx": number,
        }
        for number, (window, frame) in enumerate(zip(windows, frames, strict=True))
    ]


def _sounds(path: str | os.PathLike[str], windows: Sequence[_Window], seconds: float) -> list[np.ndarray] | None:
    """Return the sound of each window, ``seconds`` of it with what is heard in the middle; None: no audio stream."""
    order = sorted(range(len(windows)), key=lambda number: windows[number].sound)
    heard = [(max(0.0, windows[number].sound[0]), windows[number].sound[1]) for number in order]
    found: dict[int, np.ndarray] = {}
    length = int(seconds * SAMPLE_RATE)
    for number, wave in zip(order, audio_windows(path, heard), strict=False):
        start, end = windows[number].sound
        whole = np.zeros(length, np.float32)
        # Centred, and shifted by what of the window lies before the video.
        before = round((seconds - (end - start)) / 2 * SAMPLE_RATE) + round(max(0.0, -start) * SAMPLE_RATE)
        wave = wave[: length - before]
        whole[before : before + len(wave)] = wave
        found[number] = whole
    return [found[number] for number in range(len(windows))] if found else None
