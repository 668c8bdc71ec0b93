"""What the demo corpus holds: every video's segments, size, frame rate, codec and words, from one seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from scripts.demo_corpus.narration import CaptionLine, describe, describe_step, narrate, recognise
from scripts.demo_corpus.scenes import Segment, render, sample_motion
from scripts.demo_corpus.splits import Splits, Triple, split_triples
from scripts.demo_corpus.steps import StepTask, choose_steps, choose_tasks, colour_step

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
# Step videos are many seconds of little to see: small frames, and few of them, keep them cheap.
STEP_SIZES = ((96, 72), (80, 80), (112, 84), (72, 96))
STEP_FRAME_RATES = (12, 15)
# Whole seconds, both included, as annotators mark steps: no feature is half step, half pause.
STEP_SECONDS = (4, 5)
PAUSE_SECONDS = (1, 3)
LEFT_OUT = 0.3
VIDEOS_PER_TASK = 4


@dataclass(frozen=True)
class Counts:
    """Hold numbers of videos: narrated ones for pre-training, clips with captions, videos of steps."""

    narrated_train: int = 84
    narrated_val: int = 8
    clips_train: int = 40
    clips_val: int = 12
    clips_test: int = 104
    steps_train: int = 48
    steps_val: int = 8
    steps_test: int = 32


@dataclass(frozen=True)
class VideoPlan:
    """Describe one video file.

    ``captions`` are of a retrieval clip, or one for each segment of a step video; ``lines`` of a narrated video;
    ``task`` of a step video, which ends with a pause of ``pause`` seconds.
    """

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
    pause: float = 0.0
    task: StepTask | None = None

    @property
    def seconds(self) -> float:
        """Length of the video."""
        return self.segments[-1].end + self.pause

    @property
    def file_name(self) -> str:
        """Name of the video file."""
        return self.name + self.ending

    def pictures(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield the frames, uint8 (height, width, 3)."""
        return render(list(self.segments), self.width, self.height, self.fps, rng, self.seconds)


def plan_corpus(seed: int, counts: Counts = Counts()) -> list[VideoPlan]:
    """Plan all videos of a corpus; equal arguments give equal plans.

    A test clip shows one triple that no narrated video and no training clip shows; so does a validation clip.
    Test videos of steps show triples of these two where they can, the other step videos triples of training.

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
    return plans + _plan_steps(seed, counts, splits)


def _plan_steps(seed: int, counts: Counts, splits: Splits) -> list[VideoPlan]:
    """Plan the step videos, from random numbers of their own: the other videos do not depend on them."""
    rng = np.random.default_rng([seed, 3])
    sizes = {split: getattr(counts, split) for split in ("steps_train", "steps_val", "steps_test")}
    numbers = {split: -(-size // VIDEOS_PER_TASK) for split, size in sizes.items()}
    tasks = choose_tasks(choose_steps(splits, rng), numbers, rng)
    plans: list[VideoPlan] = []
    for split, size in sizes.items():
        own = [task for task in tasks if task.split == split]
        triples = (*splits.test, *splits.val) if split == "steps_test" else splits.train
        plans += [
            _step_video(f"{split}_{i:04d}", own[i % len(own)], triples, seed, len(plans) + i, rng) for i in range(size)
        ]
    return plans


def _step_video(
    name: str, task: StepTask, triples: Sequence[Triple], seed: int, number: int, rng: np.random.Generator
) -> VideoPlan:
    """Plan one performance of a task: its steps in order, at times without one of them, between pauses."""
    steps = list(task.steps)
    if rng.random() < LEFT_OUT:
        del steps[int(rng.integers(len(steps)))]
    segments, clock = [], 0.0
    for step in steps:
        start = clock + float(rng.integers(*PAUSE_SECONDS, endpoint=True))
        clock = start + float(rng.integers(*STEP_SECONDS, endpoint=True))
        segments.append(_segment(start, clock, colour_step(step, triples, rng), rng))
    width, height = STEP_SIZES[int(rng.integers(len(STEP_SIZES)))]
    fps = STEP_FRAME_RATES[int(rng.integers(len(STEP_FRAME_RATES)))]
    codec, ending = CODECS[int(rng.integers(len(CODECS)))]
    captions = tuple(describe_step(segment.triple, rng) for segment in segments)
    pause = float(rng.integers(*PAUSE_SECONDS, endpoint=True))
    return VideoPlan(
        name,
        task.split,
        tuple(segments),
        width,
        height,
        fps,
        codec,
        ending,
        (seed, 4, number),
        captions,
        pause=pause,
        task=task,
    )


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
