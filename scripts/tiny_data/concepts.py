"""What the videos of the tiny data show, and the features and sentences that go with it.

A concept is an action on a thing. Each of its words has a random direction in feature space; a second that shows
the concept has the mean of the two, plus noise. So texts and features of one concept belong together, and a model
that learns the words finds videos that it has not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmpt.processors.base import holdout

__all__ = ["FEATURE_DIM", "THINGS", "VERBS", "Segment", "World", "pick_ids"]

#: Width of the S3D features of the public files.
FEATURE_DIM = 512
VERBS = ("cut", "pour", "mix", "peel", "fry", "wash", "paint", "fold")
THINGS = ("onion", "water", "egg", "apple", "door", "paper", "rope", "wheel")
_NOISE = 0.3


@dataclass(frozen=True)
class Segment:
    """Seconds ``start`` to ``end`` (whole numbers) in which a concept is shown."""

    start: int
    end: int
    verb: str
    thing: str

    @property
    def text(self) -> str:
        """The concept in words."""
        return f"{self.verb} the {self.thing}"


class World:
    """Source of everything random; the same seed gives the same data.

    ``directions`` are the vectors (FEATURE_DIM,) of all words.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.directions = {word: self.rng.standard_normal(FEATURE_DIM) for word in (*VERBS, *THINGS)}

    def segments(self, count: int, seconds: tuple[int, int] = (3, 7), pause: int = 0) -> list[Segment]:
        """Return ``count`` different concepts, one after another, each ``seconds`` long, with pauses before them."""
        chosen = self.rng.choice(len(VERBS) * len(THINGS), count, replace=False)
        return self.timed(
            [(VERBS[number // len(THINGS)], THINGS[number % len(THINGS)]) for number in chosen], seconds, pause
        )

    def timed(
        self, concepts: Sequence[tuple[str, str]], seconds: tuple[int, int] = (3, 7), pause: int = 0
    ) -> list[Segment]:
        """Return given concepts as segments, one after another."""
        segments, time = [], 0
        for verb, thing in concepts:
            start = time + (int(self.rng.integers(1, pause + 1)) if pause else 0)
            time = start + int(self.rng.integers(seconds[0], seconds[1] + 1))
            segments.append(Segment(start, time, verb, thing))
        return segments

    def features(self, segments: Sequence[Segment], seconds: int | None = None) -> npt.NDArray[np.float16]:
        """Return unit vectors (seconds, FEATURE_DIM); seconds outside of all segments are noise.

        ``seconds`` is by default the end of the last segment.
        """
        vectors = _NOISE * self.rng.standard_normal((seconds or segments[-1].end, FEATURE_DIM))
        for segment in segments:
            vectors[segment.start : segment.end] += (self.directions[segment.verb] + self.directions[segment.thing]) / 2
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def pick_ids(prefix: str, count: int, held_out: int = 0, fraction: float = 0.05) -> list[str]:
    """Return ``count`` video ids, of which ``held_out`` fall to validation under ``dataset.val_holdout: fraction``.

    That choice is by a hash of the id, and of a dozen ids as they come it would often take none.
    """
    candidates = [f"{prefix}{number}" for number in range(1000)]
    mask = holdout(candidates, fraction)
    inside = [name for name, held in zip(candidates, mask, strict=True) if held][:held_out]
    return [name for name, held in zip(candidates, mask, strict=True) if not held][: count - held_out] + inside
