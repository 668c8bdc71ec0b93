"""What the calls of a pipeline give back: plain values that become JSON by :meth:`as_dict`.

Times are seconds from the start of the file.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Answer", "ClipVectors", "Hit", "Label", "Plain", "Span", "Timeline", "VideoClip"]


class VideoClip(NamedTuple):
    """A part of a video file: from ``start`` to ``end`` seconds, None being the file's end."""

    path: str
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class Plain:
    """A record of plain values."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON takes them."""
        return asdict(self)


@dataclass(frozen=True)
class Label(Plain):
    """A label of a video: its score as the model gives it, and its probability among the labels that were asked for."""

    label: str
    score: float
    probability: float


@dataclass(frozen=True)
class Answer(Plain):
    """An answer to a question, with its score and its probability among those that were compared."""

    text: str
    score: float
    probability: float


@dataclass(frozen=True)
class Hit(Plain):
    """A video that a query found: its place in what was searched, what it is called, and its score."""

    index: int
    video: str
    score: float


@dataclass(frozen=True)
class Span(Plain):
    """Seconds of a video that have one label; ``score`` is the label's mean score in them."""

    start: float
    end: float
    label: str
    score: float


@dataclass(frozen=True)
class Timeline:
    """Scores of labels over a video.

    Attributes:
        labels: L names.
        starts: float64 (T,), seconds at which the T parts begin.
        ends: float64 (T,), at which they end.
        scores: float32 (T, L), as the model gives them.
        background: score below which a part has no label; None: every part has one.
        nothing: the one of ``labels`` that says that a part has none of the others; its parts are in no span.
    """

    labels: Sequence[str]
    starts: np.ndarray
    ends: np.ndarray
    scores: np.ndarray
    background: float | None = None
    nothing: str | None = None

    def spans(self) -> list[Span]:
        """Return the runs of parts that share their best label, in order; without those that have none."""
        if not len(self.scores):
            return []
        best = self.scores.argmax(1)
        if self.background is not None:
            best = np.where(self.scores.max(1) < self.background, -1, best)
        if self.nothing is not None:
            best = np.where(best == list(self.labels).index(self.nothing), -1, best)
        edges = np.flatnonzero(np.diff(best)) + 1
        found = []
        for first, stop in zip([0, *edges.tolist()], [*edges.tolist(), len(best)], strict=True):
            number = int(best[first])
            if number >= 0:
                mean = float(self.scores[first:stop, number].mean())
                found.append(Span(float(self.starts[first]), float(self.ends[stop - 1]), self.labels[number], mean))
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return labels, times, scores and spans as JSON takes them."""
        return {
            "labels": list(self.labels),
            "starts": self.starts.tolist(),
            "ends": self.ends.tolist(),
            "scores": self.scores.tolist(),
            "spans": [span.as_dict() for span in self.spans()],
        }


class ClipVectors(NamedTuple):
    """Vectors of the parts of one video: ``starts`` and ``ends`` float64 (T,), ``vectors`` float32 (T, H)."""

    starts: np.ndarray
    ends: np.ndarray
    vectors: np.ndarray
