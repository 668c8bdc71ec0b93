"""Example retrievals of a test: which queries to show, what they found, and frames of the videos."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmpt.evaluators.figures import Example, Shown
from mmpt.evaluators.ranking import top_items
from mmpt.utils.errors import DataError, MMPTError

__all__ = ["Thumbnails", "choose_queries", "examples_of"]

logger = logging.getLogger(__name__)

_VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".flv", ".wmv", ".mpg", ".mpeg", ".3gp")


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
            if file.suffix.lower() in _VIDEO_SUFFIXES:
                self._files.setdefault(file.stem, file)
        self._known: dict[str, npt.NDArray[np.uint8] | None] = {}

    def __call__(self, video_id: str) -> npt.NDArray[np.uint8] | None:
        """Return frames spread over the video, ``(frames, size, size, 3)`` uint8; None if there are none."""
        if video_id not in self._known:
            self._known[video_id] = self._read(video_id)
        return self._known[video_id]

    def _read(self, video_id: str) -> npt.NDArray[np.uint8] | None:
        from mmpt.store.decode import probe, stream_frames

        file = self._files.get(video_id)
        if file is None:
            self.failed[video_id] = "no video file of that name"
            return None
        try:
            duration = probe(file).duration
            fps = self.frames / duration if duration else 1.0
            blocks = list(stream_frames(file, fps=fps, size=self.size))
        except (MMPTError, OSError) as error:
            self.failed[video_id] = str(error)
            return None
        if not blocks:
            self.failed[video_id] = "holds no frames"
            return None
        every = np.concatenate(blocks)
        return every[np.linspace(0, len(every) - 1, min(self.frames, len(every))).round().astype(int)]


def choose_queries(ranks: npt.NDArray[np.integer], good: int = 3, bad: int = 3) -> tuple[list[int], list[int]]:
    """Choose queries to show, spread evenly over their kind: found first, and not found first.

    The bad ones are spread from the nearest miss to the worst rank of all; nothing is picked by hand.
    """
    hits = np.flatnonzero(ranks == 1)
    misses = np.flatnonzero(ranks > 1)
    misses = misses[np.argsort(ranks[misses], kind="stable")]
    return _spread(hits, good), _spread(misses, bad)


def _spread(indices: npt.NDArray[np.integer], count: int) -> list[int]:
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
    """Build the examples of some queries from the arrays of ``embeddings.npz``.

    The right video is appended with its rank where it is not among the best ``count``.
    """
    if not queries:
        return []
    rows = list(queries)
    best, scores = top_items(arrays["text"][rows], arrays["video"], count)
    examples = []
    for row, items, values in zip(rows, best, scores, strict=True):
        right = int(arrays["target"][row])
        entries = [(place, int(item), float(value)) for place, (item, value) in enumerate(zip(items, values), 1)]
        if right not in items:
            entries.append((int(ranks[row]), right, float(arrays["text"][row] @ arrays["video"][right])))
        shown = []
        for place, item, value in entries:
            name = str(arrays["ids"][item])
            shown.append(Shown(name, value, item == right, place, thumbnails(name) if thumbnails else None))
        examples.append(Example(str(arrays["texts"][row]), int(ranks[row]), shown))
    return examples
