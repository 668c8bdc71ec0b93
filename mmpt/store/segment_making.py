"""One video and its transcript become a record of segments: what to cut where, then pictures and sound."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mmpt.store.audio import SAMPLE_RATE, audio_windows
from mmpt.store.black_bars import BlackBars
from mmpt.store.decode import Picture
from mmpt.store.frames_at_times import VideoClock, pictures_at, read_clock
from mmpt.store.images import encode_jpeg
from mmpt.store.merlot_chunks import SENTENCE_SHARE, merlot_chunks, speechless_chunks
from mmpt.store.reserve_segments import SpeedUp, plan_windows, reserve_segments
from mmpt.store.segment_store import MELS, SPECTROGRAM_FRAMES
from mmpt.store.segment_writer import SegmentRecord
from mmpt.store.spectrogram import log_mel
from mmpt.store.video_frames import DecodeReport
from mmpt.store.video_list import VideoItem
from mmpt.store.word_times import SpokenText, Word
from mmpt.utils.errors import DataError
from mmpt.utils.subwords import Subwords

__all__ = ["PictureSize", "SegmentRules", "fitted", "make_record"]

#: Frames that are looked at for black bars before the first is cut.
_FRAMES_FOR_BARS = 8
#: Share of the words that may lie beyond the end of a video before its transcript is taken for another's.
_MOST_BEYOND = 0.1
_WINDOWS_AT_ONCE = 16


class PictureSize(NamedTuple):
    """How large a frame may be: pixels of its shorter and longer side, and the quality of its JPEG."""

    short: int
    long: int
    quality: int


@dataclass(frozen=True)
class SegmentRules:
    """How videos are cut: ``kind`` is merlot or reserve; see :class:`mmpt.store.segment_extraction` for the rest."""

    kind: str
    size: PictureSize
    spectrograms: bool
    most_tokens: int
    seconds: float
    end_margin: float
    speed_up: SpeedUp | None


@dataclass
class _Plan:
    """The segments of a video, before its frames and sound are known."""

    times: list[tuple[float, float]]
    mid: list[float]
    speed: list[float]
    tokens: list[list[int]]
    raw_tokens: list[list[int]]
    token_times: list[list[tuple[float, float]]] | None


def make_record(
    item: VideoItem, spoken: SpokenText | None, rules: SegmentRules, subwords: Subwords, report: DecodeReport
) -> Iterator[tuple[SegmentRecord | None, float]]:
    """Decode a video, or the seconds of a clip, into its record.

    Args:
        item: the video; times of the record count from its ``start``.
        spoken: what is said in the file; None: nothing.
        rules: how it is cut.
        subwords: the tokenizer.
        report: filled with counts and warnings.

    Yields:
        (None, seconds decoded) every few segments, and last (the record, 0).

    Raises:
        DataError: if the video cannot be decoded, is too short, or the transcript is another's; names the file.
    """
    clock = read_clock(item.path)
    end = clock.duration if item.end is None else min(item.end, clock.duration)
    duration = end - item.start
    if duration <= 0:
        raise DataError(f"{item.path}: starts at second {item.start}, but the video ends at {clock.duration:.2f}")
    words = [] if spoken is None else _words_inside(item, spoken, clock.duration, end)
    whole = item.start == 0 and item.end is None  # what is denoised cannot be cut: it has no times of its own
    denoised = None if spoken is None or not whole else spoken.denoised
    plan = _plan(item, words, denoised, rules, subwords, duration)
    if not plan.mid:
        raise DataError(f"{item.path}: {duration:.2f} s long, too short for a segment")
    images: list[bytes] = []
    told = 0.0
    for image, second in _images(item, plan.mid, clock, rules.size, report):
        images.append(image)
        yield None, max(0.0, second - told)
        told = max(told, second)
    spectrograms: list[np.ndarray] | None = None
    if rules.spectrograms:
        spectrograms = []
        for part in _spectrograms(item, plan, report):
            spectrograms += part
            yield None, sum(end - start for start, end in plan.times[: len(part)])
    report.warnings += _unused_text(spoken, whole, bool(words), rules.kind)
    report.written = len(images)
    report.seconds = end
    meta: dict[str, Any] = {"duration": round(duration, 3), **({} if spoken is None else spoken.meta)}
    yield (
        SegmentRecord(
            images=images,
            times=plan.times,
            mid=plan.mid,
            speed=plan.speed,
            tokens=[np.array(tokens, np.int32) for tokens in plan.tokens],
            token_times=plan.token_times,
            raw_tokens=[np.array(tokens, np.int32) for tokens in plan.raw_tokens],
            spectrograms=spectrograms,
            meta=meta,
        ),
        0.0,
    )


def _unused_text(spoken: SpokenText | None, whole: bool, heard: bool, kind: str) -> list[str]:
    """Return what to say of the parts of a transcript that are not used."""
    if spoken is None:
        return []
    told = list(spoken.notes)
    if kind == "merlot" and spoken.denoised and not (whole and heard):
        why = "no word is heard that it could go with" if whole else "it has no times, and this is a part of the video"
        told.append(f"its denoised transcript is left out: {why}")
    return told


def _words_inside(item: VideoItem, spoken: SpokenText, duration: float, end: float) -> list[Word]:
    """Return the words said between the start and the end of a clip, timed from its start.

    Raises:
        DataError: if the transcript says that it is of another video, or goes on after the end of the file.
    """
    if spoken.video_id is not None and spoken.video_id != item.video_id:
        raise DataError(f"{item.path}: its transcript is of video {spoken.video_id!r}, not {item.video_id!r}")
    beyond = sum(word.start > duration for word in spoken.words)
    if beyond > _MOST_BEYOND * len(spoken.words):
        raise DataError(
            f"{item.path}: {beyond} of the {len(spoken.words)} words of its transcript are said after the video ends"
            f" at {duration:.2f} s, the last at {spoken.words[-1].start:.2f} s: is it of another video?"
        )
    return [
        Word(word.text, word.start - item.start, max(word.start, word.end) - item.start)
        for word in spoken.words
        if item.start <= word.start < end
    ]


def _plan(
    item: VideoItem,
    words: list[Word],
    denoised: list[str] | None,
    rules: SegmentRules,
    subwords: Subwords,
    duration: float,
) -> _Plan:
    if rules.kind == "merlot":
        chunks = merlot_chunks(
            words,
            subwords.encode_words,
            duration,
            denoised,
            rules.most_tokens,
            SENTENCE_SHARE * rules.most_tokens,
            rules.end_margin,
        )
        chunks = chunks or speechless_chunks(duration, rules.seconds, rules.end_margin)
        return _Plan(
            times=[(chunk.start, chunk.end) for chunk in chunks],
            mid=[chunk.mid for chunk in chunks],
            speed=[1.0] * len(chunks),
            tokens=[chunk.tokens for chunk in chunks],
            raw_tokens=[chunk.raw_tokens for chunk in chunks],
            token_times=None,
        )
    # the same windows in every run, whichever worker makes them
    rng = np.random.default_rng(zlib.crc32(item.video_id.encode()))
    windows = plan_windows(words, duration, rules.speed_up, rng, rules.seconds, rules.end_margin)
    segments = reserve_segments(words, subwords.encode_words, windows)
    return _Plan(
        times=[(segment.start, segment.end) for segment in segments],
        mid=[segment.mid for segment in segments],
        speed=[segment.speed for segment in segments],
        tokens=[segment.tokens for segment in segments],
        raw_tokens=[segment.tokens for segment in segments],
        token_times=[segment.token_times for segment in segments],
    )


def _images(
    item: VideoItem, seconds: Sequence[float], clock: VideoClock, size: PictureSize, report: DecodeReport
) -> Iterator[tuple[bytes, float]]:
    """Yield the JPEG of the frame at each second of a clip, without black bars, and the second."""
    picture, bars = Picture(None, enlarge=False), BlackBars()
    shown = [second + item.start for second in seconds]
    spread = {shown[k * (len(shown) - 1) // (_FRAMES_FOR_BARS - 1)] for k in range(_FRAMES_FOR_BARS)}
    if len(shown) > 1:
        for frame in pictures_at(item.path, sorted(map(clock.cheap, spread)), clock, DecodeReport()):
            bars.look(picture(frame))
    last: tuple[Any, bytes] | None = None
    for second, frame in zip(seconds, pictures_at(item.path, shown, clock, report), strict=True):
        if last is None or last[0] is not frame:
            last = frame, encode_jpeg(fitted(bars.trim(picture(frame)), size), size.quality)
        yield last[1], second


def fitted(image: np.ndarray, size: PictureSize) -> np.ndarray:
    """Scale a picture uint8 (height, width, 3) down until its sides are within their limits (bicubic); never up."""
    from PIL import Image

    height, width = image.shape[:2]
    scale = min(1.0, size.short / min(height, width), size.long / max(height, width))
    if scale == 1.0:
        return image
    target = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(target, Image.Resampling.BICUBIC))


def _spectrograms(item: VideoItem, plan: _Plan, report: DecodeReport) -> Iterator[list[np.ndarray]]:
    """Yield the spectrograms of the segments, some at a time; silence where there is no sound."""
    sound = DecodeReport()
    windows = [(start + item.start, end + item.start) for start, end in plan.times]
    waves = audio_windows(item.path, windows, SAMPLE_RATE, sound)
    done = 0
    while part := _some(waves, plan.speed[done : done + _WINDOWS_AT_ONCE]):
        yield list(log_mel(np.stack(part), plan.speed[done]).astype(np.float16))
        done += len(part)
    if not done:
        report.warnings.append("has no sound: its spectrograms are silent")
        yield [np.zeros((SPECTROGRAM_FRAMES, MELS), np.float16)] * len(windows)
    if sound.errors:
        report.warnings.append(f"{sound.errors} damaged packets of sound")


def _some(waves: Iterator[np.ndarray], speeds: Sequence[float]) -> list[np.ndarray]:
    """Return the next waves that are played at one speed."""
    same = next((k for k, speed in enumerate(speeds) if speed != speeds[0]), len(speeds))
    return [wave for _, wave in zip(range(same), waves, strict=False)]
