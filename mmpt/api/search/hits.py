"""What a search gives back, and how rows become it: neighbours merged, few hits of each video."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmpt.api.search.nearest import Nearest
from mmpt.api.search.snapshot import Snapshot

__all__ = ["SearchHit", "pick_hits"]

#: A clip beside a hit belongs to it if it overlaps and has this share of its score.
_BELONGS = 0.9


@dataclass(frozen=True)
class SearchHit:
    """Seconds of a video that fit a query: its path, and the cosine of its best clip, which is the row ``row``."""

    video: str
    start: float
    end: float
    score: float
    row: int
    _snapshot: Snapshot = field(repr=False, compare=False)

    def thumbnail(self) -> bytes | None:
        """Return a JPEG file of the middle of the best clip, None if the index has none."""
        return self._snapshot.thumbnail(self.row)

    def as_dict(self) -> dict[str, Any]:
        """Return video, start, end and score as JSON takes them."""
        return {"video": self.video, "start": self.start, "end": self.end, "score": self.score}


def pick_hits(
    snapshot: Snapshot, nearest: Nearest, query: np.ndarray, scores: np.ndarray, rows: np.ndarray, merge: bool
) -> Iterator[tuple[str, float, float, float, int]]:
    """Yield (key, start, end, score, row) of found rows, best first; a row that belongs to an earlier hit is left out.

    With ``merge``, clips of a video that overlap a hit are part of it: it lasts as long as those of them do that have
    nearly its score, and the others are not told. No two hits of a video overlap.
    """
    taken: dict[str, list[tuple[float, float]]] = {}
    for score, row in zip(scores.tolist(), rows.tolist(), strict=True):
        if row < 0:
            return
        video, clip = snapshot.video_of(row), snapshot.clips[row]
        start, end = float(clip["start"]), float(clip["end"])
        if merge:
            if any(start < there_end and there_start < end for there_start, there_end in taken.get(video.key, ())):
                continue
            grown = _grown(snapshot, nearest, query, row, video.span, score)
            start, end = _between((start, end), grown, taken.get(video.key, ()))
            taken.setdefault(video.key, []).append((start, end))
        yield video.key, start, end, score, row


def _between(
    clip: tuple[float, float], grown: tuple[float, float], taken: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """Return the times of a hit, cut where those of better hits of its video are; its own clip is beside all these."""
    start = max([grown[0], *(there_end for _, there_end in taken if there_end <= clip[0])])
    return start, min([grown[1], *(there_start for there_start, _ in taken if there_start >= clip[1])])


def _grown(
    snapshot: Snapshot, nearest: Nearest, query: np.ndarray, row: int, span: slice, score: float
) -> tuple[float, float]:
    clip = snapshot.clips[row]
    start, end = float(clip["start"]), float(clip["end"])
    clips = snapshot.clips[span]
    beside = np.flatnonzero((clips["start"] < clip["end"]) & (clips["end"] > clip["start"]))
    if score > 0 and len(beside) > 1:
        fitting = clips[beside[nearest.scores(query, beside + span.start) >= _BELONGS * score]]
        start, end = (
            min(start, float(fitting["start"].min(initial=start))),
            max(end, float(fitting["end"].max(initial=end))),
        )
    return start, end
