"""Cutting a video into MERLOT Reserve's segments (arXiv:2201.02639, appendix): windows of 5 seconds, the words in each.

Pure functions of words and a tokenizer; :mod:`mmpt.store.segment_extraction` applies them to files.
"""

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mmpt.store.spectrogram import SEGMENT_SECONDS
from mmpt.store.word_times import Word

__all__ = ["END_MARGIN", "Segment", "SpeedUp", "plan_windows", "reserve_segments"]

#: Seconds before the end of a video that no window reaches into: many files end earlier than they say.
END_MARGIN = 1.0

EncodeWords = Callable[[Sequence[str]], list[list[int]]]


@dataclass(frozen=True)
class SpeedUp:
    """When windows with few words are made longer and played faster, so that a segment holds more speech.

    A window of ``few_words`` or more stays as it is. Else it grows by 5 seconds, up to ``fastest`` times its length,
    as long as it holds fewer than ``few_words`` and the longer one fewer than ``most_words``; each time that is left
    undone with a chance of ``stop_chance``. The published values.
    """

    few_words: int = 8
    most_words: int = 16
    fastest: int = 3
    stop_chance: float = 0.1


@dataclass
class Segment:
    """A window of a video, in seconds, and the ids of what is said in it.

    ``token_times``: start and end of each token from the start of the window, divided by ``speed``, in seconds.
    """

    start: float
    end: float
    speed: float
    tokens: list[int] = field(default_factory=list)
    token_times: list[tuple[float, float]] = field(default_factory=list)

    @property
    def mid(self) -> float:
        """When its frame is shown."""
        return (self.start + self.end) / 2


def plan_windows(
    words: Sequence[Word],
    duration: float,
    speed_up: SpeedUp | None = None,
    rng: np.random.Generator | None = None,
    seconds: float = SEGMENT_SECONDS,
    end_margin: float = END_MARGIN,
) -> list[tuple[float, float, int]]:
    """Return start, end and speed of consecutive windows that end ``end_margin`` before the video does, or earlier.

    Args:
        words: in the order of their beginnings.
        duration: of the video, in seconds.
        speed_up: None: every window is ``seconds`` long.
        rng: for the chance of ``speed_up``; one seed for a video gives the same windows whatever the workers.
        seconds: of a window at speed 1.
        end_margin: see above, in seconds.
    """
    starts = [word.start for word in words]
    rng = rng or np.random.default_rng(0)
    windows, begin, last = [], 0.0, duration - end_margin + 1e-6
    while begin + seconds <= last:
        speed = 1 if speed_up is None else _speed(starts, begin, seconds, last, speed_up, rng)
        windows.append((begin, begin + speed * seconds, speed))
        begin += speed * seconds
    return windows


def _speed(
    starts: list[float], begin: float, seconds: float, last: float, rule: SpeedUp, rng: np.random.Generator
) -> int:
    def said(speed: int) -> int:
        return bisect.bisect_left(starts, begin + speed * seconds) - bisect.bisect_left(starts, begin)

    speed = 1
    while speed < rule.fastest and begin + (speed + 1) * seconds <= last:
        if said(speed) >= rule.few_words or said(speed + 1) >= rule.most_words or rng.random() < rule.stop_chance:
            break
        speed += 1
    return speed


def reserve_segments(
    words: Sequence[Word], encode_words: EncodeWords, windows: Sequence[tuple[float, float, float]]
) -> list[Segment]:
    """Return a segment for each window, with the words that begin in it; many have none.

    Args:
        words: in the order of their beginnings.
        encode_words: ids of each word in running text (:meth:`mmpt.utils.subwords.Subwords.encode_words`).
        windows: start, end and speed of each, in the order of time.
    """
    starts = [word.start for word in words]
    encoded = encode_words([word.text for word in words])
    segments = []
    for begin, end, speed in windows:
        segment = Segment(begin, end, speed)
        for number in range(bisect.bisect_left(starts, begin), bisect.bisect_left(starts, end)):
            word, tokens = words[number], encoded[number]
            times = ((word.start - begin) / speed, (min(max(word.start, word.end), end) - begin) / speed)
            segment.tokens += tokens
            segment.token_times += [times] * len(tokens)
        segments.append(segment)
    return segments
