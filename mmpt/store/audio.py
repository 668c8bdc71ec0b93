"""The sound of videos as one channel at a given rate, in one pass, on the clock that their frames are timed with.

Zero is where the pictures begin, as :mod:`mmpt.store.decode` says: sound that starts later begins with silence, and
what lies before it is left out. Damaged packets become silence of their length where the file still tells the time.
"""

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any

import numpy as np

from mmpt.store.video_frames import DecodeReport, clock_zero, decoded_frames, first_picture
from mmpt.store.video_info import open_container, video_stream
from mmpt.utils.errors import DataError
from mmpt.utils.extras import require

__all__ = ["SAMPLE_RATE", "audio_windows", "decode_audio"]

#: Samples per second that the published spectrograms are made of.
SAMPLE_RATE = 22050

_CLOSE = 0.1  # seconds; stamps that are off by less are rounding, not a gap
_LONGEST_GAP = 3600  # seconds without sound; more is a broken clock
_SEEK_FROM = 10  # seconds; nearer starts are decoded up to
_LEAD_IN = 2  # seconds decoded before a start that was sought: codecs need a few packets to settle

#: A stretch of sound: the number of its first sample, counted from second 0 of the video, and float32 (samples,).
_Stretch = tuple[int, np.ndarray]


def decode_audio(
    path: str | os.PathLike[str],
    rate: int = SAMPLE_RATE,
    start: float = 0.0,
    end: float | None = None,
    report: DecodeReport | None = None,
) -> np.ndarray:
    """Decode the sound of a video or sound file, or the seconds from ``start`` to ``end``, to one channel.

    Args:
        path: a local file.
        rate: samples per second.
        start: second to start from.
        end: second to stop at; None: where the sound ends.
        report: filled with the number of damaged packets.

    Returns:
        float32 (samples,), the mean of the channels. With ``end`` exactly as many as fit, silent where there is no
        sound; without samples if the file has no audio stream.

    Raises:
        DataError: if there is no such file, nothing of its sound can be decoded, or start and end are not in order;
            names the file.
        MissingExtraError: if PyAV is not installed.
    """
    window = next(audio_windows(path, [(start, end)], rate, report), None)
    return np.empty(0, np.float32) if window is None else window


def audio_windows(
    path: str | os.PathLike[str],
    windows: Sequence[tuple[float, float | None]],
    rate: int = SAMPLE_RATE,
    report: DecodeReport | None = None,
) -> Iterator[np.ndarray]:
    """Yield the sound of each window, decoding the file once and holding no more than the windows need.

    Args:
        path: a local file.
        windows: start and end of each in seconds, in the order of their starts; an end None is where the sound ends.
        rate: samples per second.
        report: filled with the number of damaged packets.

    Yields:
        float32 (samples,) per window as :func:`decode_audio` returns; nothing if the file has no audio stream.

    Raises:
        DataError: as :func:`decode_audio`.
        MissingExtraError: if PyAV is not installed.
    """
    for start, end in windows:
        if not (0 <= start < math.inf and (end is None or start < end < math.inf)):
            raise DataError(f"{path}: there is no sound from second {start} to {end}")
    if rate < 1:
        raise DataError(f"{path}: cannot resample to {rate} samples per second")
    report = report or DecodeReport()
    with open_container(path, "sound") as container:
        stream = next(iter(container.streams.audio), None)
        if stream is None or not windows:
            return
        if stream.codec_context is None:
            raise DataError(f"{path}: FFmpeg has no decoder for its audio stream")
        stretches = _stretches(path, container, stream, rate, windows[0][0], report)
        try:
            first = next(stretches, None)
            if first is None and report.errors:
                raise DataError(f"{path}: nothing of its sound can be decoded, {report.errors} packets are damaged")
            yield from _cut(itertools.chain([] if first is None else [first], stretches), windows, rate)
        except require("av", "video").FFmpegError as error:
            raise DataError(f"{path}: decoding the sound failed ({error})") from error


def _cut(
    stretches: Iterator[_Stretch], windows: Sequence[tuple[float, float | None]], rate: int
) -> Iterator[np.ndarray]:
    """Yield the samples of each window out of stretches in the order of time, silence between them."""
    held: list[_Stretch] = []
    heard = 0  # the number of the sample after the last one held
    for start, end in windows:
        first = round(start * rate)
        last = math.inf if end is None else first + round((end - start) * rate)
        held = [(begin, samples) for begin, samples in held if begin + len(samples) > first]
        while heard < last and (stretch := next(stretches, None)) is not None:
            heard = stretch[0] + len(stretch[1])
            if heard > first:
                held.append(stretch)
        yield _joined(held, first, max(first, heard) if end is None else int(last))


def _joined(held: list[_Stretch], first: int, last: int) -> np.ndarray:
    window = np.zeros(last - first, np.float32)
    for begin, samples in held:
        inside = samples[max(0, first - begin) : max(0, last - begin)]
        offset = max(0, begin - first)
        window[offset : offset + len(inside)] = inside
    return np.nan_to_num(window, copy=False, nan=0.0, posinf=0.0, neginf=0.0)  # of damaged packets


def _stretches(
    path: str | os.PathLike[str], container: Any, stream: Any, rate: int, start: float, report: DecodeReport
) -> Iterator[_Stretch]:
    """Yield the sound from about ``start`` on, each stretch after the one before; several seconds at most each."""
    zero, frames = _frames_from(path, container, stream, start, report)
    sound, origin = _Resampled(rate), float(zero)
    tick = float(stream.time_base or 0)
    expected: float | None = None  # when the next frame begins if nothing is missing
    for frame in frames:
        stamp = None if frame.pts is None or not tick else frame.pts * tick - origin
        if expected is None:
            expected = stamp if stamp is not None and abs(stamp) < start + _LONGEST_GAP else 0.0
            sound.begin(expected)
        elif stamp is not None and _CLOSE < stamp - expected < _LONGEST_GAP:
            yield from sound.flush()
            sound.begin(stamp)
            expected = stamp
        elif stamp is not None and not -_CLOSE <= stamp - expected <= _CLOSE:
            origin += stamp - expected  # the clock jumped: the sound goes on
        expected += frame.samples / frame.sample_rate
        yield from sound.add(frame)
    yield from sound.flush()


def _frames_from(
    path: str | os.PathLike[str], container: Any, stream: Any, start: float, report: DecodeReport
) -> tuple[Fraction, Iterator[Any]]:
    """Return the second zero of the pictures on the file's clock, and the frames of sound from ``start`` or before."""
    av = require("av", "video")
    zero = _zero(path, container)
    if start >= _SEEK_FROM:
        with suppress(av.FFmpegError):
            container.seek(int((Fraction(start) - _LEAD_IN + zero) * 1_000_000), backward=True)
            frames = decoded_frames(container, stream, report)
            first = next(frames, None)
            if first is not None and first.pts is not None and first.pts * first.time_base - zero <= start:
                return zero, itertools.chain([first], frames)
            container.seek(container.start_time or 0)
    return zero, decoded_frames(container, stream, report)


def _zero(path: str | os.PathLike[str], container: Any) -> Fraction:
    """Return where second 0 is on the file's clock; its pictures are looked at through another handle."""
    with open_container(path, "sound") as other:
        video = video_stream(other)
        first = None
        if video is not None and video.codec_context is not None:
            video.thread_count = 1  # one picture is worth no more
            first = first_picture(other, video)
    if first is None:
        return Fraction(container.start_time or 0, 1_000_000)
    return clock_zero(container, first)


class _Resampled:
    """Frames of sound turned into stretches: ``begin`` says when what follows begins."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._resampler: Any = None
        self._setup: tuple[Any, ...] = ()
        self._next: int | None = None

    def begin(self, second: float) -> None:
        """Count samples from a second on, but never back over what was given out."""
        place = round(second * self.rate)
        self._next = place if self._next is None else max(self._next, place)

    def add(self, frame: Any) -> Iterator[_Stretch]:
        setup = (frame.format.name, frame.layout.name, frame.sample_rate)
        if setup != self._setup:
            yield from self.flush()
            # every channel by itself, since FFmpeg's own mix weighs them and leaves some out; packed, since PyAV 18
            # crashes on eight planes
            self._resampler = require("av", "video").AudioResampler("flt", None, self.rate)
            self._setup = setup
        frame.pts = None  # the resampler would fill or squeeze where stamps are rounded
        yield from self._given(self._resampler.resample(frame))

    def flush(self) -> Iterator[_Stretch]:
        """Give out what the resampler still holds."""
        if self._resampler is not None:
            yield from self._given(self._resampler.resample(None))
            self._resampler, self._setup = None, ()

    def _given(self, frames: Sequence[Any]) -> Iterator[_Stretch]:
        for frame in frames:
            channels = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
            samples = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1, dtype=np.float32)
            begin = self._next or 0
            self._next = begin + len(samples)
            if self._next > 0:  # else it lies before the first picture
                yield max(0, begin), samples[max(0, -begin) :]
