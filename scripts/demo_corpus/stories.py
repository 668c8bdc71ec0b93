"""Videos of the demo corpus with a story and a sound track: what MERLOT and MERLOT Reserve learn from.

A video is a few stories, a story five stages of five seconds: one coloured shape comes in on the left, tiny, and goes
out on the right, huge. A narrator says so word by word, and a tone says it too: its pitch is the colour, how fast it
trembles the shape, how loud it is the stage. So every pair of picture, word and sound tells about the third, and the
order of the stages can be told from pictures and words alone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from scripts.demo_corpus.scenes import RGB, Background, Pose, draw_shape
from scripts.demo_corpus.splits import COLOURS, SHAPES

__all__ = [
    "CHOICES",
    "RATE",
    "SIZES",
    "STAGES",
    "STAGE_SECONDS",
    "Stage",
    "StoryCounts",
    "StoryPlan",
    "Word",
    "plan_stories",
]

STAGES = ("tiny", "small", "middling", "large", "huge")
STAGE_SECONDS = 5.0
STORIES_PER_VIDEO = 3
#: Options of a question.
CHOICES = 5
#: Samples per second of the sound.
RATE = 22050
SIZES = ((96, 72), (80, 80), (112, 84), (72, 96))
_FRAMES_PER_SECOND = 5
_LOWEST, _OCTAVES = 220.0, 3.0  # of the pitches, in Hz
_TREMBLE = dict(zip(SHAPES, (0.0, 1.2, 2.5, 4.0, 6.5, 10.0), strict=True))  # Hz
_LEADS = ("now", "here", "look", "so", "okay", "then", "and now", "see")
_PLACES = ("far left", "left", "middle", "right", "far right")
_SENTENCES = (
    "{lead} a {size} {colour} {shape} is at the {place}",
    "{lead} the {colour} {shape} is {size} and at the {place}",
    "{lead} we see the {size} {colour} {shape} at the {place}",
    "{lead} at the {place} the {size} {colour} {shape}",
)


@dataclass(frozen=True)
class StoryCounts:
    """Numbers of videos with stories, and of single stages that are asked about."""

    story_train: int = 120
    story_val: int = 10
    story_test: int = 40
    asked_train: int = 240
    asked_val: int = 30
    asked_test: int = 120


@dataclass(frozen=True)
class Stage:
    """What is seen and heard for five seconds; ``jitter`` are small random numbers in [-1, 1]."""

    colour: str
    shape: str
    number: int
    jitter: tuple[float, float, float]


@dataclass(frozen=True)
class Word:
    """One word of the narrator, from ``start`` to ``end`` in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class StoryPlan:
    """Describe one video file: its stages one after another, what is said, and its size."""

    name: str
    split: str
    stages: tuple[Stage, ...]
    words: tuple[Word, ...] = field(repr=False)
    width: int
    height: int
    seed: tuple[int, ...]
    fps: int = _FRAMES_PER_SECOND
    codec: str = "libx264"
    ending: str = ".mp4"

    @property
    def seconds(self) -> float:
        """Length of the video."""
        return len(self.stages) * STAGE_SECONDS

    @property
    def file_name(self) -> str:
        """Name of the video file."""
        return self.name + self.ending

    def pictures(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield the frames, uint8 (height, width, 3)."""
        background = Background(self.width, self.height, rng)
        for frame in range(round(self.seconds * self.fps)):
            seconds = frame / self.fps
            stage = self.stages[min(int(seconds / STAGE_SECONDS), len(self.stages) - 1)]
            image_HW3 = background.frame(rng)
            draw_shape(image_HW3, stage.shape, np.asarray(RGB[stage.colour]), _pose(stage, seconds % STAGE_SECONDS))
            yield image_HW3

    def sound(self, rng: np.random.Generator) -> np.ndarray:
        """Return the sound track, float32 (samples,) in [-1, 1], at :data:`RATE`."""
        return np.concatenate([_tone(stage, rng) for stage in self.stages])


def plan_stories(seed: int, counts: StoryCounts = StoryCounts()) -> list[StoryPlan]:
    """Plan all videos; equal arguments give equal plans.

    One pair of colour and shape in three occurs in the test alone, each of its colours and shapes in training too.
    """
    rng = np.random.default_rng([seed, 11])
    held_out = [
        (colour, SHAPES[(row * 5 + turn) % len(SHAPES)]) for row, colour in enumerate(COLOURS) for turn in (0, 1)
    ]
    known = [pair for pair in product(COLOURS, SHAPES) if pair not in held_out]
    plans: list[StoryPlan] = []
    for split in ("story_train", "story_val", "story_test", "asked_train", "asked_val", "asked_test"):
        among = held_out if split.endswith("test") else known
        for number in range(getattr(counts, split)):
            stages = _story_stages(among, rng) if split.startswith("story") else (_stage(among, None, rng),)
            width, height = SIZES[int(rng.integers(len(SIZES)))]
            words = tuple(_narrate(stages, rng))
            name = f"{split}_{number:04d}"
            plans.append(StoryPlan(name, split, stages, words, width, height, (seed, 12, len(plans))))
    return plans


def _story_stages(pairs: Sequence[tuple[str, str]], rng: np.random.Generator) -> tuple[Stage, ...]:
    chosen = [pairs[row] for row in rng.permutation(len(pairs))[:STORIES_PER_VIDEO]]
    return tuple(_stage([pair], number, rng) for pair in chosen for number in range(len(STAGES)))


def _stage(pairs: Sequence[tuple[str, str]], number: int | None, rng: np.random.Generator) -> Stage:
    colour, shape = pairs[int(rng.integers(len(pairs)))]
    number = int(rng.integers(len(STAGES))) if number is None else number
    return Stage(colour, shape, number, tuple(float(value) for value in rng.uniform(-1, 1, 3)))  # type: ignore[arg-type]


def _pose(stage: Stage, seconds: float) -> Pose:
    across, down, turn = stage.jitter
    swing = 0.06 * math.sin(math.tau * seconds / 2.5)
    return Pose(
        x=-0.7 + 0.35 * stage.number + 0.06 * across + swing,
        y=0.15 * down,
        radius=0.2 + 0.13 * stage.number,
        angle=0.3 * turn,
    )


def _tone(stage: Stage, rng: np.random.Generator) -> np.ndarray:
    """Return the five seconds of sound of a stage, float32."""
    seconds = np.arange(round(STAGE_SECONDS * RATE)) / RATE
    pitch = _LOWEST * 2 ** (_OCTAVES * COLOURS.index(stage.colour) / (len(COLOURS) - 1) + 0.02 * stage.jitter[0])
    wave = np.sin(math.tau * pitch * seconds) + 0.3 * np.sin(math.tau * 2 * pitch * seconds)
    tremble = 0.55 + 0.45 * np.cos(math.tau * _TREMBLE[stage.shape] * seconds + math.pi * stage.jitter[1])
    loudness = 0.04 * 2**stage.number  # 0.04 .. 0.64
    noise = rng.normal(0, 0.002, len(seconds))
    return (loudness * tremble * wave / 1.3 + noise).astype(np.float32)


def _narrate(stages: Sequence[Stage], rng: np.random.Generator) -> Iterator[Word]:
    """Yield the narrator's words: one sentence about each stage, spread over its five seconds, now and then late."""
    for position, stage in enumerate(stages):
        sentence = _SENTENCES[int(rng.integers(len(_SENTENCES)))].format(
            lead=_LEADS[int(rng.integers(len(_LEADS)))],
            size=STAGES[stage.number],
            colour=stage.colour,
            shape=stage.shape,
            place=_PLACES[stage.number],
        )
        texts = f"{sentence}.".split()
        begin = position * STAGE_SECONDS + float(rng.uniform(0.1, 0.4))
        step = (STAGE_SECONDS - 0.6) / len(texts)
        for number, text in enumerate(texts):
            start = begin + number * step
            yield Word(text, round(start, 3), round(start + 0.8 * step, 3))
