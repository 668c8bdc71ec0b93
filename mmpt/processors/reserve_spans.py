"""Which words belong to which stretch of sound, and which stretches are to be told (MERLOT Reserve, section 3.2).

Each segment has three stretches of sound, its subsegments: 60 frames of its spectrogram each, with random gaps.
"""

from typing import NamedTuple

import numpy as np

from mmpt.modules.reserve_tokens import SOUNDS
from mmpt.processors.segment_base import RecordSegments
from mmpt.store.spectrogram import BLOCK_FRAMES, INFERENCE_STARTS, MelOptions

__all__ = [
    "SUBSEGMENTS",
    "Words",
    "assign_targets",
    "block_starts",
    "choose_targets",
    "locate_words",
]

#: Subsegments of a segment.
SUBSEGMENTS = SOUNDS
#: Frames of a segment's spectrogram that are in none of its subsegments.
_SPARE_FRAMES = 8
#: Seconds, as played, from one frame of the spectrogram to the next.
_HOP = MelOptions().hop / 22050
#: Seconds within which a word beside a masked stretch is masked with it.
_GROWTH = 0.125
#: Seconds between videos on the clock of a record: more than anything that is compared.
_APART = 60.0


class Words(NamedTuple):
    """The words of a record in order, W of them, and where its subsegments lie, three times N of them.

    Attributes:
        ids: int64 (W,).
        middles: float64 (W,), the middle of each on the clock of the record: seconds as played, segment after segment.
        subsegments: int64 (W,), which each belongs to; never falling.
        sources: int64 (3 N,), the video of each subsegment.
        blocks: float64 (3 N, 2), begin and end of each subsegment's sound, on the same clock.
    """

    ids: np.ndarray
    middles: np.ndarray
    subsegments: np.ndarray
    sources: np.ndarray
    blocks: np.ndarray

    def of(self, subsegment: int) -> slice:
        """Return which of the words belong to a subsegment."""
        first, end = np.searchsorted(self.subsegments, (subsegment, subsegment + 1)).tolist()
        return slice(first, end)


def block_starts(segments: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Return the first spectrogram frame of each subsegment, int64 (segments, 3).

    The frames that are spared lie before, between and behind the subsegments: at random in training, two in each place
    otherwise (``rng`` None).
    """
    if rng is None:
        return np.tile(np.array(INFERENCE_STARTS, np.int64), (segments, 1))
    places = SUBSEGMENTS + 1
    spared = rng.multinomial(_SPARE_FRAMES, [1 / places] * places, size=segments)
    return np.cumsum(spared, axis=1)[:, :SUBSEGMENTS] + BLOCK_FRAMES * np.arange(SUBSEGMENTS)


def locate_words(stored: RecordSegments, starts: np.ndarray) -> Words:
    """Find the subsegment of every word of a record: the one whose middle is nearest, but never an earlier one.

    Args:
        stored: the segments.
        starts: int64 (N, 3), of :func:`block_starts`.

    Raises:
        DataError: if the store has no times of words, or they do not fit; names the video.
    """
    ids, middles, subsegments, begins = [], [], [], []
    clock, last = 0.0, None
    for n, centres in enumerate((starts + BLOCK_FRAMES / 2) * _HOP):
        start, end = stored.times(n)
        if last is not None and stored.sources[n] != stored.sources[n - 1]:
            clock += _APART
        elif last is not None:  # a part that was left out between two segments
            clock += max(start - last, 0.0)
        tokens, times = stored.tokens(n), stored.token_times(n)
        middle = times.mean(axis=1, dtype=np.float64)
        nearest = np.abs(middle[:, None] - centres).argmin(axis=1)
        ids.append(tokens.astype(np.int64))
        middles.append(clock + middle)
        subsegments.append(SUBSEGMENTS * n + np.maximum.accumulate(nearest))
        begins.append(clock + starts[n] * _HOP)
        clock, last = clock + (end - start) / stored.speed(n), end
    first = np.concatenate(begins)
    return Words(
        np.concatenate(ids),
        np.concatenate(middles),
        np.concatenate(subsegments).astype(np.int64),
        np.repeat(stored.sources, SUBSEGMENTS),
        np.stack([first, first + BLOCK_FRAMES * _HOP], axis=1),
    )


def choose_targets(rng: np.random.Generator, subsegments: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw the subsegments to be told from text and from sound: two int64 arrays, in order, without one in common."""
    count = int(rate * subsegments)
    drawn = rng.permutation(subsegments)
    return np.sort(drawn[:count]), np.sort(drawn[count : 2 * count])


def assign_targets(words: Words, targets: np.ndarray, grow: bool = False) -> np.ndarray:
    """Return the number of the target whose words each word is among, int64 (W,); -1 of the words that stay.

    A target without words takes the nearer one of those beside it, of the same video, from the subsegment before or
    after it unless that is a target too. With ``grow``, a target with words takes one more at either end if its middle
    is within 0.125 s of the target's sound: it can be heard there.

    Args:
        words: of a record.
        targets: int64, subsegments in order.
        grow: whether targets grow.
    """
    numbers = np.full(words.sources.size, -1, np.int64)
    numbers[targets] = np.arange(len(targets))
    owner: np.ndarray = numbers[words.subsegments]
    for number, target in enumerate(targets.tolist()):
        own = words.of(target)
        if own.start == own.stop:
            beside = [k for k in _beside(words, owner, target, own) if abs(words.subsegments[k] - target) == 1]
            centre = words.blocks[target].mean()
            if beside:
                owner[min(beside, key=lambda k: abs(words.middles[k] - centre))] = number
        elif grow:
            begin, end = words.blocks[target]
            for k in _beside(words, owner, target, own):
                if begin - _GROWTH <= words.middles[k] <= end + _GROWTH:
                    owner[k] = number
    return owner


def _beside(words: Words, owner: np.ndarray, target: int, own: slice) -> list[int]:
    """Return the words before and behind those of a target that are of the same video and no target's."""
    return [
        k
        for k in (own.start - 1, own.stop)
        if 0 <= k < len(words.ids) and owner[k] < 0 and words.sources[words.subsegments[k]] == words.sources[target]
    ]
