"""Example retrievals of a test: which queries to show, what they found, and frames of the videos."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmpt.evaluators.figures import Example, Shown
from mmpt.evaluators.ranking import top_items
from mmpt.evaluators.retrieval_files import scores_of
from mmpt.store.video_list import VIDEO_SUFFIXES
from mmpt.utils.errors import DataError, MMPTError

__all__ = ["Thumbnails", "choose_queries", "examples_of", "spread"]

logger = logging.getLogger(__name__)

_CLIP = re.compile(r"(.+)_(\d+)_(\d+)")
#: Seconds decoded for one picture.
_GLANCE = 0.25


class Thumbnails:
    """A few frames of a video by its id, from the video files of a folder.

    Videos that are missing or cannot be decoded are listed in ``failed``.

    Raises:
        DataError: if there is no such folder.
    """

    def __init__(self, folder: str | os.PathLike[str], frames: int = 4, size: int = 96) -> None:
        self.frames, self.size = frames, size
        self.failed: dict[str, str] = {}
        self._files: dict[str, Path] = {}
        if not Path(folder).is_dir():
            raise DataError(f"there is no folder of videos {folder}")
        for file in sorted(Path(folder).rglob("*")):
            if file.suffix.lower() in VIDEO_SUFFIXES:
                self._files.setdefault(file.name, file)
                self._files.setdefault(file.stem, file)
        self._known: dict[str, npt.NDArray[np.uint8] | None] = {}

    def __call__(self, video_id: str) -> npt.NDArray[np.uint8] | None:
        """Return frames spread over the video, ``(frames, size, size, 3)`` uint8; None if there are none."""
        if video_id not in self._known:
            self._known[video_id] = self._read(video_id)
        return self._known[video_id]

    def _clip(self, video_id: str) -> tuple[Path | None, float, float | None]:
        """Return (file, start, end) of a video, or of the clip that ``<id>_<start>_<end>`` names."""
        whole = self._file(video_id)
        if whole:
            return whole, 0.0, None
        clip = _CLIP.fullmatch(video_id)
        file = self._file(clip[1]) if clip else None
        if clip and file and int(clip[2]) < int(clip[3]):
            return file, float(clip[2]), float(clip[3])
        return None, 0.0, None

    def _file(self, video_id: str) -> Path | None:
        """Return the file of an id; an id may end like a file of another container, as DiDeMo's do."""
        if video_id in self._files:
            return self._files[video_id]
        stem, suffix = os.path.splitext(video_id)
        return self._files.get(stem) if suffix.lower() in VIDEO_SUFFIXES else None

    def _read(self, video_id: str) -> npt.NDArray[np.uint8] | None:
        file, start, end = self._clip(video_id)
        if file is None:
            self.failed[video_id] = "no video file of that name"
            return None
        pictures: list[np.ndarray] = []
        try:
            for place, seconds in self._places(file, start, end):
                pictures.append(self._picture(file, place, seconds))
        except (MMPTError, OSError) as error:  # what a damaged file has before the damage is shown
            if not pictures:
                self.failed[video_id] = str(error)
                return None
        return np.stack(pictures)

    def _places(self, file: Path, start: float, end: float | None) -> list[tuple[float, float]]:
        """Return where to look, as (second, seconds to decode): the middles of equal parts."""
        from mmpt.store.decode import probe

        if end is None:
            end = start + (probe(file).duration or self.frames)  # of unknown length: its first seconds
        part = (end - start) / self.frames
        glance = min(_GLANCE, part)
        return [(start + part * (number + 0.5) - glance / 2, glance) for number in range(self.frames)]

    def _picture(self, file: Path, place: float, seconds: float) -> np.ndarray:
        from mmpt.store.decode import stream_frames

        blocks = stream_frames(file, fps=1 / seconds, size=self.size, start=max(0.0, place), end=place + seconds)
        return np.concatenate(list(blocks))[0]


def choose_queries(ranks: npt.NDArray[np.integer], good: int = 3, bad: int = 3) -> tuple[list[int], list[int]]:
    """Choose queries to show, spread evenly over their kind: found first, and not found first.

    The bad ones are spread from the nearest miss to the worst rank of all; nothing is picked by hand.
    """
    hits = np.flatnonzero(ranks == 1)
    misses = np.flatnonzero(ranks > 1)
    misses = misses[np.argsort(ranks[misses], kind="stable")]
    return spread(hits, good), spread(misses, bad)


def spread(indices: npt.NDArray[np.integer], count: int) -> list[int]:
    """Return ``count`` of the indices (all, if they are fewer), spread evenly from the first to the last."""
    if len(indices) <= count:
        return [int(index) for index in indices]
    return [int(indices[place]) for place in np.linspace(0, len(indices) - 1, count).round().astype(int)]


def examples_of(
    arrays: Mapping[str, np.ndarray],
    ranks: npt.NDArray[np.integer],
    queries: Sequence[int],
    count: int = 5,
    thumbnails: Thumbnails | None = None,
) -> list[Example]:
    """Build the examples of some queries of a test from its arrays (:mod:`mmpt.evaluators.retrieval_files`).

    The right video is appended with its rank where it is not among the best ``count``.
    """
    if not queries:
        return []
    rows = list(queries)
    scores = scores_of(arrays, rows)
    examples = []
    for row, own, items, values in zip(rows, scores, *top_items(scores, count), strict=True):
        right = int(arrays["target"][row])
        found = zip(range(1, len(items) + 1), items.tolist(), values.tolist(), strict=True)
        entries: list[tuple[int, int, float]] = list(found)
        if right not in items:
            entries.append((int(ranks[row]), right, float(own[right])))
        shown = []
        for place, item, value in entries:
            name = str(arrays["ids"][item])
            shown.append(Shown(name, value, item == right, place, thumbnails(name) if thumbnails else None))
        examples.append(Example(str(arrays["texts"][row]), int(ranks[row]), shown))
    return examples
