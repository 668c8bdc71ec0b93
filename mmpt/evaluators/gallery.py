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
from mmpt.utils.errors import DataError, MMPTError

__all__ = ["Thumbnails", "choose_queries", "examples_of"]

logger = logging.getLogger(__name__)

_CLIP = re.compile(r"(.+)_(\d+)_(\d+)")
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

    def _clip(self, video_id: str) -> tuple[Path | None, float, float | None]:
        """Return (file, start, end) of a video, or of the clip that ``<id>_<start>_<end>`` names."""
        if video_id in self._files:
            return self._files[video_id], 0.0, None
        clip = _CLIP.fullmatch(video_id)
        if clip and clip[1] in self._files and int(clip[2]) < int(clip[3]):
            return self._files[clip[1]], float(clip[2]), float(clip[3])
        return None, 0.0, None

    def _read(self, video_id: str) -> npt.NDArray[np.uint8] | None:
        from mmpt.store.decode import probe, stream_frames

        file, start, end = self._clip(video_id)
        if file is None:
            self.failed[video_id] = "no video file of that name"
            return None
        try:
            length = end - start if end is not None else probe(file).duration
            fps = self.frames / length if length else 1.0
            blocks = list(stream_frames(file, fps=fps, size=self.size, start=start, end=end))
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
        found = zip(range(1, len(items) + 1), items.tolist(), values.tolist(), strict=True)
        entries: list[tuple[int, int, float]] = list(found)
        if right not in items:
            entries.append((int(ranks[row]), right, float(arrays["text"][row] @ arrays["video"][right])))
        shown = []
        for place, item, value in entries:
            name = str(arrays["ids"][item])
            shown.append(Shown(name, value, item == right, place, thumbnails(name) if thumbnails else None))
        examples.append(Example(str(arrays["texts"][row]), int(ranks[row]), shown))
    return examples
