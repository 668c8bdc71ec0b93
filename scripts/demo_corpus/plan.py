"""What the demo corpus holds: every video's segments, size, frame rate, codec and words, from one seed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from scripts.demo_corpus.narration import CaptionLine, describe, narrate, recognise
from scripts.demo_corpus.scenes import Segment, sample_motion
from scripts.demo_corpus.splits import Triple, split_triples

__all__ = ["Counts", "VideoPlan", "plan_corpus"]

SIZES = ((128, 96), (112, 112), (160, 120), (96, 128))
FRAME_RATES = (12, 15, 24, 25)
#: (codec, file ending): H.264 in three files of four.
CODECS = (("libx264", ".mp4"), ("libx264", ".mkv"), ("libx264", ".mp4"), ("mpeg4", ".avi"))
NARRATED_SECONDS = (15.0, 24.0)
SEGMENT_SECONDS = (3.0, 4.5)
CLIP_SECONDS = 15.0
CAPTIONS_PER_CLIP = 8
RARE_WORDS = 0.15


@dataclass(frozen=True)
class Counts:
    """Hold numbers of videos: narrated ones for pre-training, clips with captions for retrieval."""

    narrated_train: int = 84
    narrated_val: int = 8
    clips_train: int = 40
    clips_val: int = 12
    clips_test: int = 104


@dataclass(frozen=True)
class VideoPlan:
    """Describe one video file. ``captions`` are of a retrieval clip, ``lines`` of a narrated video."""

    name: str
    split: str
    segments: tuple[Segment, ...]
    width: int
    height: int
    fps: int
    codec: str
    ending: str
    seed: tuple[int, ...]
    captions: tuple[str, ...] = ()
    lines: tuple[CaptionLine, ...] = field(default=(), compare=False)

    @property
    def seconds(self) -> float:
        """Length of the video."""
        return self.segments[-1].end

    @property
    def file_name(self) -> str:
        """Name of the video file."""
        return self.name + self.ending


def plan_corpus(seed: int, counts: Counts = Counts()) -> list[VideoPlan]:
    """Plan all videos of a corpus; equal arguments give equal plans.

    A test clip shows one triple that no other split has. The triples of validation clips are theirs alone too.

    Raises:
        ConfigError: if the clips would take more than half of all triples away from training.
    """
    rng = np.random.default_rng([seed, 1])
    splits = split_triples(rng, counts.clips_val, counts.clips_test)
    plans = []
    bag: list[Triple] = []
    for split, count in (("narrated_train", counts.narrated_train), ("narrated_val", counts.narrated_val)):
        for number in range(count):
            segments = _narrated_segments(splits.train, bag, rng)
            lines = tuple(recognise(narrate(segments, rng), rng))
            plans.append(_plan(f"{split}_{number:04d}", split, segments, seed, len(plans), rng, lines=lines))
    train = [splits.train[row] for row in rng.permutation(len(splits.train))[: counts.clips_train]]
    for split, triples in (("clips_train", train), ("clips_val", splits.val), ("clips_test", splits.test)):
        for number, triple in enumerate(triples):
            amount = CAPTIONS_PER_CLIP if split == "clips_train" else 1
            captions = tuple(describe(triple, rng, RARE_WORDS) for _ in range(amount))
            segments = [_segment(0.0, CLIP_SECONDS, triple, rng)]
            plans.append(_plan(f"{split}_{number:04d}", split, segments, seed, len(plans), rng, captions=captions))
    return plans


def _narrated_segments(triples: Sequence[Triple], bag: list[Triple], rng: np.random.Generator) -> list[Segment]:
    """Return the segments of one narrated video; all triples are shown before any is shown again."""
    segments: list[Segment] = []
    duration, clock = float(rng.uniform(*NARRATED_SECONDS)), 0.0
    while clock < duration - SEGMENT_SECONDS[0] / 2:
        if not bag:
            bag.extend(triples[row] for row in rng.permutation(len(triples)))
        end = clock + float(rng.uniform(*SEGMENT_SECONDS))
        segments.append(_segment(clock, end, bag.pop(), rng))
        clock = end
    return segments


def _segment(start: float, end: float, triple: Triple, rng: np.random.Generator) -> Segment:
    red, green, blue = (int(value) for value in rng.integers(-12, 13, 3))
    return Segment(start, end, triple, sample_motion(triple.action, rng), (red, green, blue))


def _plan(
    name: str,
    split: str,
    segments: Sequence[Segment],
    seed: int,
    number: int,
    rng: np.random.Generator,
    captions: tuple[str, ...] = (),
    lines: tuple[CaptionLine, ...] = (),
) -> VideoPlan:
    width, height = SIZES[int(rng.integers(len(SIZES)))]
    fps = FRAME_RATES[int(rng.integers(len(FRAME_RATES)))]
    codec, ending = CODECS[int(rng.integers(len(CODECS)))]
    return VideoPlan(
        name, split, tuple(segments), width, height, fps, codec, ending, (seed, 2, number), captions, lines
    )
