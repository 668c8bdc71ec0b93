"""Draw moving coloured shapes: motion, antialiased drawing and backgrounds, in plain numpy.

Positions and sizes are in half-sides of the central square of the frame, so that a centre crop keeps
the action whatever the frame's aspect. Suffixes: _HW3 an image (height, width, RGB) of uint8.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from scripts.demo_corpus.splits import Triple

__all__ = ["Background", "Motion", "Pose", "Segment", "draw_shape", "pose_at", "render", "sample_motion"]

RGB = {
    "red": (215, 30, 35),
    "orange": (245, 130, 20),
    "yellow": (240, 225, 40),
    "green": (40, 170, 60),
    "blue": (40, 80, 225),
    "purple": (130, 40, 165),
    "pink": (250, 140, 190),
    "white": (245, 245, 245),
}
_NOISE_FRAMES = 6


@dataclass(frozen=True)
class Motion:
    """Describe how one segment's shape moves; times in seconds, lengths in half-sides."""

    x: float
    y: float
    radius: float
    angle: float
    period: float
    phase: float
    direction: int


@dataclass(frozen=True)
class Pose:
    """Say where the shape is at one moment; ``radius`` 0 means that it cannot be seen."""

    x: float
    y: float
    radius: float
    angle: float


@dataclass(frozen=True)
class Segment:
    """Show one triple from ``start`` to ``end`` (seconds)."""

    start: float
    end: float
    triple: Triple
    motion: Motion
    colour_shift: tuple[int, int, int] = (0, 0, 0)


# Seconds of one cycle of each action: slow enough for 8 frames per second, twice or more in 4 seconds.
_PERIODS = {
    "bounce": (0.8, 1.2),
    "spin": (1.6, 2.4),
    "slide_left": (1.8, 2.8),
    "slide_right": (1.8, 2.8),
    "loop": (1.6, 2.4),
    "zigzag": (0.8, 1.1),
    "grow": (1.8, 2.6),
    "shrink": (1.8, 2.6),
    "blink": (0.5, 0.8),
}


def sample_motion(action: str, rng: np.random.Generator) -> Motion:
    """Draw the size, place, speed and phase of one performance of ``action``."""
    place = 0.25 if action in ("spin", "blink", "grow", "shrink") else 0.12
    return Motion(
        x=float(rng.uniform(-place, place)),
        y=float(rng.uniform(-place, place)),
        radius=float(rng.uniform(0.36, 0.46)),
        angle=float(rng.uniform(-0.2, 0.2)),
        period=float(rng.uniform(*_PERIODS[action])),
        phase=float(rng.uniform()),
        direction=int(rng.choice((-1, 1))),
    )


def _triangle_wave(turns: float) -> float:
    return 4 * abs(turns % 1.0 - 0.5) - 1


def _bounce(m: Motion, turns: float) -> Pose:
    return Pose(m.x * 3, 0.5 - 1.05 * abs(math.sin(math.pi * turns)), m.radius, m.angle)


def _spin(m: Motion, turns: float) -> Pose:
    return Pose(m.x, m.y, m.radius * 1.15, m.direction * math.tau * turns)


def _slide_left(m: Motion, turns: float) -> Pose:
    return Pose(1.15 - 2.3 * (turns % 1.0), m.y * 2, m.radius, m.angle)


def _slide_right(m: Motion, turns: float) -> Pose:
    return Pose(2.3 * (turns % 1.0) - 1.15, m.y * 2, m.radius, m.angle)


def _loop(m: Motion, turns: float) -> Pose:
    angle = m.direction * math.tau * turns
    return Pose(m.x + 0.52 * math.cos(angle), m.y + 0.52 * math.sin(angle), m.radius * 0.9, m.angle)


def _zigzag(m: Motion, turns: float) -> Pose:
    return Pose(0.62 * _triangle_wave(turns / 3.5), m.y + 0.4 * _triangle_wave(turns), m.radius * 0.9, m.angle)


def _grow(m: Motion, turns: float) -> Pose:
    return Pose(m.x, m.y, m.radius * (0.45 + 1.35 * (turns % 1.0)), m.angle)


def _shrink(m: Motion, turns: float) -> Pose:
    return Pose(m.x, m.y, m.radius * (1.8 - 1.35 * (turns % 1.0)), m.angle)


def _blink(m: Motion, turns: float) -> Pose:
    return Pose(m.x, m.y, m.radius if turns % 1.0 < 0.5 else 0.0, m.angle)


_POSES: dict[str, Callable[[Motion, float], Pose]] = {
    "bounce": _bounce,
    "spin": _spin,
    "slide_left": _slide_left,
    "slide_right": _slide_right,
    "loop": _loop,
    "zigzag": _zigzag,
    "grow": _grow,
    "shrink": _shrink,
    "blink": _blink,
}


def pose_at(action: str, motion: Motion, seconds: float) -> Pose:
    """Return where the shape is ``seconds`` after its segment began."""
    return _POSES[action](motion, seconds / motion.period + motion.phase)


# Each function maps unit coordinates to a signed distance, positive inside the shape of radius 1.


def _circle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.92 - np.hypot(u, v)


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.8 - np.maximum(np.abs(u), np.abs(v))


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    slanted = 0.54 + 0.5 * v - 0.866 * np.abs(u)
    return np.minimum(slanted, 0.54 - v)


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    fifth = math.tau / 5
    folded = np.abs((np.arctan2(u, -v) + fifth / 2) % fifth - fifth / 2)
    distance = np.hypot(u, v)
    # The straight edge between a tip (radius 1.05, angle 0) and a dent (radius 0.42, angle 36 degrees).
    tip, dent = np.array([1.05, 0.0]), 0.42 * np.array([math.cos(fifth / 2), math.sin(fifth / 2)])
    edge = (dent - tip) / np.linalg.norm(dent - tip)
    return -((distance * np.cos(folded) - tip[0]) * -edge[1] + (distance * np.sin(folded) - tip[1]) * edge[0]) * -1.0


def _ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.22 - np.abs(np.hypot(u, v) - 0.74)


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    across, down = np.abs(u), np.abs(v)
    return np.maximum(np.minimum(0.98 - across, 0.28 - down), np.minimum(0.28 - across, 0.98 - down))


_DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
}


def draw_shape(image_HW3: np.ndarray, shape: str, colour: np.ndarray, pose: Pose) -> None:
    """Blend an antialiased shape of ``colour`` (RGB, 0..255) into a uint8 image, in place."""
    height, width = image_HW3.shape[:2]
    half = min(height, width) / 2
    radius = pose.radius * half
    if radius <= 0:
        return
    x, y = width / 2 + pose.x * half, height / 2 + pose.y * half
    reach = 1.1 * radius + 1
    left, right = max(int(x - reach), 0), min(int(x + reach) + 1, width)
    top, bottom = max(int(y - reach), 0), min(int(y + reach) + 1, height)
    if left >= right or top >= bottom:
        return
    across = (np.arange(left, right, dtype=np.float32) + 0.5 - x) / radius
    down = (np.arange(top, bottom, dtype=np.float32) + 0.5 - y)[:, None] / radius
    cos, sin = math.cos(pose.angle), math.sin(pose.angle)
    inside = _DISTANCES[shape](cos * across + sin * down, cos * down - sin * across)
    alpha = np.clip(inside * radius + 0.5, 0.0, 1.0)[:, :, None].astype(np.float32)
    box = image_HW3[top:bottom, left:right]
    box[...] = (box + alpha * (colour.astype(np.float32) - box) + 0.5).astype(np.uint8)


class Background:
    """Hold a dim textured backdrop with camera noise: a few noisy copies, shown in random order."""

    def __init__(self, width: int, height: int, rng: np.random.Generator) -> None:
        base = rng.uniform(35, 100) + rng.uniform(-14, 14, size=3)
        texture = _texture(width, height, rng) * rng.uniform(6, 22)
        noise = rng.normal(0, rng.uniform(2, 6), size=(_NOISE_FRAMES, height, width, 1))
        frames = base + texture[None, :, :, None] + noise
        self.frames = np.clip(frames, 0, 140).astype(np.uint8)

    def frame(self, rng: np.random.Generator) -> np.ndarray:
        """Return a fresh (height, width, 3) uint8 copy."""
        return self.frames[int(rng.integers(_NOISE_FRAMES))].copy()


def _texture(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Return a (height, width) pattern in about [-1, 1]: clouds, stripes, checks or a gradient."""
    across, down = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    kind = rng.choice(("clouds", "stripes", "checks", "gradient"))
    angle = rng.uniform(0, math.tau)
    along = across * math.cos(angle) + down * math.sin(angle)
    beside = down * math.cos(angle) - across * math.sin(angle)
    if kind == "gradient":
        return along
    if kind == "stripes":
        return np.sin(along * rng.uniform(6, 18))
    if kind == "checks":
        scale = rng.uniform(5, 12)
        return np.sign(np.sin(along * scale)) * np.sign(np.sin(beside * scale))
    waves = rng.uniform(1, 7, size=(6, 2)) * rng.choice((-1, 1), size=(6, 2))
    return sum(np.sin(a * across + b * down + rng.uniform(0, math.tau)) for a, b in waves) / 3  # type: ignore[return-value]


def render(
    segments: list[Segment], width: int, height: int, fps: int, rng: np.random.Generator, duration: float | None = None
) -> Iterator[np.ndarray]:
    """Yield the frames (height, width, 3) uint8 of ``duration`` seconds, by default until the last segment ends.

    All segments share one background; between them, before and after, nothing else is seen.
    """
    background = Background(width, height, rng)
    position = 0
    for frame in range(round((segments[-1].end if duration is None else duration) * fps)):
        seconds = frame / fps
        while position + 1 < len(segments) and seconds >= segments[position].end:
            position += 1
        segment = segments[position]
        image_HW3 = background.frame(rng)
        if segment.start <= seconds < segment.end:
            colour = np.asarray(RGB[segment.triple.colour]) + np.asarray(segment.colour_shift)
            pose = pose_at(segment.triple.action, segment.motion, seconds - segment.start)
            draw_shape(image_HW3, segment.triple.shape, np.clip(colour, 0, 255), pose)
        yield image_HW3
