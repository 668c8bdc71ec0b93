"""Sampling of text runs and video clips, over many clips at once (VideoCLIP, EMNLP 2021, section 4.3).

Pure numpy functions of an explicit generator. Shape suffixes: C = captions of all videos of an item
laid end to end, N = samples drawn from them. Captions are numbered 0..C-1; a sample sees those of its
own video, ``low <= caption < high``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

__all__ = [
    "MAX_SPAN_SECONDS",
    "TextClips",
    "center_seconds",
    "grow_text_runs",
    "grow_video_clips",
    "kept_words",
    "pass_over",
    "span_clips",
    "usable_clips",
]

MAX_SPAN_SECONDS = 256.0


@dataclass(eq=False)
class TextClips(Mapping[str, list[Any]]):
    """The captions of one video as flat arrays; reads as ``{"start": [..], "end": [..], "cap": [[ids], ..]}`` too.

    ``start`` and ``end`` are seconds, float32 ``(clips,)``; ``tokens`` int32 ``(words,)`` of which caption i
    holds ``tokens[offsets[i]:offsets[i + 1]]``; ``offsets`` int64 ``(clips + 1,)``.
    """

    start: np.ndarray
    end: np.ndarray
    tokens: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, feature: Any) -> "TextClips":
        """Return ``feature`` as TextClips, from a plain dict of lists if it is one.

        Raises:
            ValueError: if starts, ends and captions are not equally many.
        """
        if isinstance(feature, cls):
            return feature
        caps: Sequence[Any] = feature["cap"]
        if not len(caps) == len(feature["start"]) == len(feature["end"]):
            raise ValueError(f"{len(feature['start'])} starts, {len(feature['end'])} ends and {len(caps)} captions")
        offsets = np.zeros(len(caps) + 1, dtype=np.int64)
        np.cumsum([len(cap) for cap in caps], out=offsets[1:])
        tokens = np.concatenate([np.asarray(cap, dtype=np.int32) for cap in caps] or [np.zeros(0, dtype=np.int32)])
        start, end = (np.asarray(feature[key], dtype=np.float32) for key in ("start", "end"))
        return cls(start, end, tokens, offsets)

    @classmethod
    def from_padded(cls, startends: np.ndarray, caps: np.ndarray) -> "TextClips":
        """Build from ``(clips, 2)`` seconds and ``(clips, width)`` ids padded with -1."""
        caps = np.asarray(caps)
        word = caps >= 0
        offsets = np.zeros(len(caps) + 1, dtype=np.int64)
        np.cumsum(np.count_nonzero(word, axis=1), out=offsets[1:])
        return cls(startends[:, 0], startends[:, 1], caps[word], offsets)

    @property
    def count(self) -> int:
        """Number of captions."""
        return len(self.start)

    def __getitem__(self, key: str) -> list[Any]:
        if key == "cap":
            bounds = self.offsets.tolist()
            return [self.tokens[a:b].tolist() for a, b in pairwise(bounds)]
        if key in ("start", "end"):
            return getattr(self, key).tolist()
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(("start", "end", "cap"))

    def __len__(self) -> int:
        return 3


def usable_clips(start: np.ndarray, end: np.ndarray, video_len: np.ndarray) -> np.ndarray:
    """Return which captions can be aligned: they end no earlier than they begin, and begin inside the video.

    Args:
        start, end: seconds ``(C,)``; anything not a number is unusable.
        video_len: seconds of features of each caption's video ``(C,)``.
    """
    return (end >= start) & (start < video_len) & (end >= 0)


def pass_over(
    rng: np.random.Generator, center: np.ndarray, low: np.ndarray, high: np.ndarray, keep_prob: float
) -> np.ndarray:
    """Draw which captions each run leaves out where it meets them: each with probability ``1 - keep_prob``.

    Args:
        center, low, high: int ``(N,)`` as of :func:`grow_text_runs`; the centre is never left out.

    Returns:
        bool ``(N, longest video)``; column i is caption ``low + i``.
    """
    passed = rng.random((len(center), int(np.max(high - low)))) >= keep_prob
    passed[np.arange(len(center)), center - low] = False
    return passed


def grow_text_runs(
    rng: np.random.Generator,
    center: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    words: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    limit: np.ndarray,
    passed: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Grow a run of neighbouring captions around each centre caption.

    While a run has fewer than ``limit`` words, spans less than 256 s and has a neighbour inside its video, it
    takes the next caption on the right or the left with probability 1/2 each (the only one where there is one).
    The last caption taken may exceed the limit.

    Args:
        center, low, high, limit: int ``(N,)``; centre caption, bounds of its video, word limit.
        words, start, end: ``(C,)``; words and seconds of every caption.
        passed: captions that a run steps over without taking them, of :func:`pass_over`; None for none.

    Returns:
        First and last caption taken by each run, int64 ``(N,)``, both inclusive.
    """
    first, last = center.copy(), center.copy()
    total = words[center]
    span = np.maximum(end[center] - start[center], 0.0)
    active = np.flatnonzero((total < limit) & (span < MAX_SPAN_SECONDS) & ((center > low) | (center + 1 < high)))
    total, limit, left_end, right_end = total[active], limit[active], low[active], high[active]
    run_first, run_last = first[active], last[active]
    while active.size:
        can_left, can_right = run_first > left_end, run_last + 1 < right_end
        right = can_right & ((rng.random(active.size) < 0.5) | ~can_left)
        run_last += right
        run_first -= ~right
        met = np.where(right, run_last, run_first)
        if passed is None:
            total += words[met]
            first[active], last[active] = run_first, run_last
        else:
            taken = ~passed[active, met - left_end]
            total += words[met] * taken
            first[active] = np.where(taken & ~right, run_first, first[active])
            last[active] = np.where(taken & right, run_last, last[active])
        going = (total < limit) & (end[last[active]] - start[first[active]] < MAX_SPAN_SECONDS)
        going &= (run_first > left_end) | (run_last + 1 < right_end)
        if not going.all():
            active, total, limit = active[going], total[going], limit[going]
            left_end, right_end = left_end[going], right_end[going]
            run_first, run_last = run_first[going], run_last[going]
    return first, last


def kept_words(
    tokens: np.ndarray, offsets: np.ndarray, first: np.ndarray, last: np.ndarray, low: np.ndarray, passed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Lay the words of the captions that runs have taken end to end, run after run.

    Args:
        tokens, offsets: of all captions, as of :class:`TextClips`.
        first, last, low, passed: of N runs, as of :func:`grow_text_runs` and :func:`pass_over`.

    Returns:
        Their tokens ``(words,)``, and int64 ``(N + 1,)`` offsets of the runs into them.
    """
    captions = last - first + 1
    run = np.repeat(np.arange(len(first)), captions)
    caption = np.arange(len(run)) + np.repeat(last + 1 - np.cumsum(captions), captions)
    taken = ~passed[run, caption - low[run]]
    run, caption = run[taken], caption[taken]
    words = offsets[caption + 1] - offsets[caption]
    source = np.arange(int(words.sum())) + np.repeat(offsets[caption + 1] - np.cumsum(words), words)
    bounds = np.zeros(len(first) + 1, dtype=np.int64)
    np.cumsum(np.bincount(run, weights=words, minlength=len(first)).astype(np.int64), out=bounds[1:])
    return tokens[source], bounds


def span_clips(first_start: np.ndarray, last_end: np.ndarray, video_len: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``[floor(first start), ceil(last end))`` clipped to the video, at least one second long.

    Args:
        first_start, last_end: seconds ``(N,)`` with first start < video_len.
        video_len: seconds of features, int ``(N,)``, at least 1.
    """
    start = np.clip(np.floor(first_start), 0, video_len - 1).astype(np.int64)
    end = np.clip(np.ceil(last_end), start + 1, video_len).astype(np.int64)
    return start, end


def center_seconds(
    rng: np.random.Generator, first_start: np.ndarray, last_end: np.ndarray, video_len: np.ndarray
) -> np.ndarray:
    """Draw a whole second inside each text run, clamped to the video.

    Uniform over the integers of ``[floor(first start), ceil(last end)]``, both included; their midpoint where the
    last caption ends before the first begins. Returns int64 ``(N,)`` in ``[0, video_len - 1]``.
    """
    # Bounded before the cast: an end of 1e30 s must not wrap around. The draw is clamped to the video below, so only
    # the share of draws past its end depends on the bound, and no caption lasts a million seconds.
    low = np.clip(np.floor(first_start), 0, 1e6).astype(np.int64)
    high = np.clip(np.ceil(last_end), 0, 1e6).astype(np.int64)
    drawn = rng.integers(low, np.maximum(high, low), endpoint=True)
    return np.clip(np.where(low < high, drawn, (low + high) // 2), 0, video_len - 1)


def grow_video_clips(
    rng: np.random.Generator, center: np.ndarray, video_len: np.ndarray, max_len: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Grow a clip of ``min(max_len, video_len)`` seconds around each centre.

    The clip starts empty at its centre and takes one second on the left or right with probability 1/2 each, the free
    side at a border. Without borders the seconds on the left are Binomial(length, 1/2); a border can only be met on
    one side, and from then on that side's count is what fits, so clamping the binomial draw gives the same
    distribution in one step.

    Returns:
        ``[start, end)`` in seconds, int64 ``(N,)`` each, inside the video.
    """
    length = np.minimum(max_len, video_len)
    left = np.clip(rng.binomial(length, 0.5), length - (video_len - center), center)
    start = center - left
    return start, start + length
