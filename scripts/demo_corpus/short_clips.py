"""Short clips of the demo corpus: two seconds each, so that four sparse frames show what moves and where.

The combinations that their tests show are held out as those of the other videos are, from the same seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scripts.demo_corpus.narration import describe, plain
from scripts.demo_corpus.plan import Counts, VideoPlan
from scripts.demo_corpus.scenes import Segment, sample_motion
from scripts.demo_corpus.splits import Triple, split_triples

__all__ = ["ShortCounts", "plan_short_clips"]

SIZES = ((96, 72), (80, 80), (112, 84), (72, 96))
FRAMES_PER_SECOND = 10
SECONDS = 2.0
CAPTIONS_PER_CLIP = 4
#: Shapes are so much larger than in the other videos: the models see frames of few pixels.
CLOSENESS = 1.4
#: One clip in eight is MPEG-4, the others are H.264.
_CODECS = (("libx264", ".mp4"),) * 7 + (("mpeg4", ".avi"),)


@dataclass(frozen=True)
class ShortCounts:
    """Numbers of clips: for pre-training, and to train, validate and test a task with."""

    short_pretrain: int = 1200
    short_train: int = 300
    short_val: int = 36
    short_test: int = 104


def plan_short_clips(seed: int, counts: ShortCounts = ShortCounts()) -> list[VideoPlan]:
    """Plan all clips; equal arguments give equal plans.

        Pre-training and training clips show training triples, all as often as one another; a test clip the only one of
    its triple, as far as there are enough. Captions of pre-training are plain; those of the tasks say the same in many
    ways, of a training clip in several.
    """
    held_out = Counts()
    splits = split_triples(np.random.default_rng([seed, 1]), held_out.clips_val, held_out.clips_test)
    rng = np.random.default_rng([seed, 6])
    plans: list[VideoPlan] = []
    for split, count, triples in (
        ("short_pretrain", counts.short_pretrain, splits.train),
        ("short_train", counts.short_train, splits.train),
        ("short_val", counts.short_val, splits.val),
        ("short_test", counts.short_test, splits.test),
    ):
        amount = CAPTIONS_PER_CLIP if split == "short_train" else 1
        for number, triple in enumerate(_in_turn(triples, count, rng)):
            if split == "short_pretrain":
                captions: tuple[str, ...] = (plain(triple),)
            else:
                captions = tuple(describe(triple, rng, rare=0.0) for _ in range(amount))
            plans.append(_plan(f"{split}_{number:04d}", split, triple, captions, (seed, 7, len(plans)), rng))
    return plans


def _in_turn(triples: Sequence[Triple], count: int, rng: np.random.Generator) -> list[Triple]:
    """Return ``count`` triples in random order; all occur before any occurs again."""
    rounds = -(-count // len(triples))
    return [triples[row] for _ in range(rounds) for row in rng.permutation(len(triples))][:count]


def _plan(
    name: str,
    split: str,
    triple: Triple,
    captions: tuple[str, ...],
    seed: tuple[int, ...],
    rng: np.random.Generator,
) -> VideoPlan:
    red, green, blue = (int(value) for value in rng.integers(-12, 13, 3))
    motion = sample_motion(triple.action, rng)
    motion = replace(motion, radius=motion.radius * CLOSENESS)
    segment = Segment(0.0, SECONDS, triple, motion, (red, green, blue))
    width, height = SIZES[int(rng.integers(len(SIZES)))]
    codec, ending = _CODECS[int(rng.integers(len(_CODECS)))]
    return VideoPlan(name, split, (segment,), width, height, FRAMES_PER_SECOND, codec, ending, seed, captions)
