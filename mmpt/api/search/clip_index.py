"""An index of clips, opened for queries by text, clip, image or vector."""

import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from mmpt.api.outputs import VideoClip
from mmpt.api.pipeline import VideoTextPipeline
from mmpt.api.search.hits import SearchHit, pick_hits
from mmpt.api.search.layout import IndexSettings, path_in, recorded_model
from mmpt.api.search.nearest import Nearest
from mmpt.api.search.snapshot import Snapshot
from mmpt.api.search.writer import unit_rows, writing_index
from mmpt.store.images import decode_image
from mmpt.store.video_list import VIDEO_SUFFIXES
from mmpt.utils.errors import CheckpointError, ConfigError, DataError, UnsafePathError, shown
from mmpt.utils.safe_paths import path_below

__all__ = ["ClipIndex"]

logger = logging.getLogger(__name__)


class _Commit(NamedTuple):
    """What belongs together: a search takes all of it once, whatever another thread refreshes meanwhile."""

    snapshot: Snapshot
    nearest: Nearest
    roots: list[Path]


class ClipIndex:
    """The clips of an index as of its last commit when it was opened; :meth:`refresh` sees later ones.

    Threads may search, and refresh, at the same time.

    Args:
        folder: of the index.
        pipeline: the model that encodes queries; None: that of the index, loaded when it is first needed.
        roots: where the indexed folders are now, in their order; None: where they were.

    Raises:
        DataError: if there is no index, it is damaged, the roots are not as many, or the model is another.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        pipeline: VideoTextPipeline | None = None,
        roots: Sequence[str | os.PathLike[str]] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._given_roots = roots
        self._pipeline: VideoTextPipeline | None = None
        self._refreshing = threading.Lock()
        self._commit = self._opened()
        if pipeline is not None:
            self._use(pipeline)

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        pipeline: VideoTextPipeline | None = None,
        roots: Sequence[str | os.PathLike[str]] | None = None,
    ) -> Self:
        """Open an index that is there."""
        return cls(folder, pipeline, roots)

    @classmethod
    def create(cls, folder: str | os.PathLike[str], settings: IndexSettings) -> Self:
        """Make an index of no videos; :func:`~mmpt.api.search.building.index_folder` makes and fills one.

        Raises:
            DataError: if there is one with other settings.
        """
        with writing_index(folder, settings):
            pass
        return cls(folder)

    @property
    def snapshot(self) -> Snapshot:
        """What the index holds."""
        return self._commit.snapshot

    @property
    def settings(self) -> IndexSettings:
        """What the index was made with."""
        return self._commit.snapshot.settings

    @property
    def nearest(self) -> Nearest:
        """What finds rows."""
        return self._commit.nearest

    @property
    def roots(self) -> list[Path]:
        """Where the indexed folders are."""
        return self._commit.roots

    def refresh(self) -> None:
        """See what was committed since.

        Raises:
            DataError: as when it is opened, or if it was made anew with another model; what was seen before is kept.
        """
        with self._refreshing:
            self._refresh()

    def refresh_if_changed(self) -> bool:
        """Refresh if a run has ended since, which costs a look at two files; tell whether it had.

        Raises:
            DataError: as :meth:`refresh`.
        """
        with self._refreshing:
            changed = not self.snapshot.is_latest()
            if changed:
                self._refresh()
        return changed

    def _refresh(self) -> None:
        commit = self._opened()
        if commit.snapshot.settings.fingerprint != self.settings.fingerprint:
            raise DataError(f"{self.folder}: was made anew, with {commit.snapshot.settings.model}. Open it again")
        self._commit = commit

    def _opened(self) -> _Commit:
        snapshot = Snapshot(self.folder)
        recorded = snapshot.settings.roots
        roots = [Path(root) for root in (recorded if self._given_roots is None else self._given_roots)]
        if len(roots) != len(recorded):
            raise DataError(f"{self.folder}: has {len(recorded)} roots ({', '.join(recorded)}), give as many")
        return _Commit(snapshot, Nearest(snapshot.data, snapshot.vectors, snapshot.live), roots)

    def __len__(self) -> int:
        """Return the number of clips."""
        return int(self.snapshot.live.sum())

    @property
    def pipeline(self) -> VideoTextPipeline:
        """The model that encodes queries; loaded from the path that the index names if none was given."""
        if self._pipeline is None:
            self.load_model()
        assert self._pipeline is not None
        return self._pipeline

    def load_model(self, source: str | None = None, **options: Any) -> None:
        """Load the model that encodes queries.

        Args:
            source: where it is now; None: the path where it was when the index was made, never a hub id.
            options: of :meth:`~mmpt.api.pipeline.VideoTextPipeline.from_pretrained`.

        Raises:
            DataError: if it is not that of the index, or is no longer there.
        """
        try:
            named = source or recorded_model(self.settings, self.folder)
            pipeline = VideoTextPipeline.from_pretrained(named, **options)
        except (CheckpointError, ConfigError) as error:
            if source is not None:
                raise
            raise DataError(
                f"{self.folder}: the model that it was made with cannot be loaded ({error}). Say where it is now: "
                "--model SOURCE, or pipeline="
            ) from error
        self._use(pipeline)

    def _use(self, pipeline: VideoTextPipeline) -> None:
        if (found := pipeline.fingerprint()) != self.settings.fingerprint:
            raise DataError(
                f"{self.folder}: was made with {self.settings.model} ({self.settings.fingerprint[:12]}), not with "
                f"{pipeline.source} ({found[:12]}): their vectors do not compare. Use that model, or index anew"
            )
        self._pipeline = pipeline

    def search(
        self,
        text: str | None = None,
        *,
        clip: VideoClip | tuple[str, float, float | None] | None = None,
        image: str | os.PathLike[str] | np.ndarray | None = None,
        vector: np.ndarray | None = None,
        top: int = 10,
        per_video: int | None = None,
        min_score: float | None = None,
        merge: bool = True,
    ) -> list[SearchHit]:
        """Find the clips that fit a query best, best first.

        Args:
            text: what to look for; or else
            clip: a part of a video: path, start and end in seconds; or else
            image: a JPEG or PNG file, or pixels (height, width, 3) uint8; or else
            vector: (dim,) of the index's model.
            top: at most so many hits.
            per_video: at most so many of each video.
            min_score: cosine that a hit must have.
            merge: tell clips of a video that overlap as one.

        Raises:
            DataError: if not exactly one query is given, it cannot be read, or a bound cannot be met.
            UnsafePathError: if what the index calls a video is not below its root.
        """
        if sum(query is not None for query in (text, clip, image, vector)) != 1:
            raise DataError("a search needs one of text, clip, image and vector")
        if top < 1 or (per_video is not None and per_video < 1):
            raise DataError(f"top {top} and per_video {per_video} must be at least 1")
        if min_score is not None and not -1 <= min_score <= 1:
            raise DataError(f"min_score {min_score}: a cosine is between -1 and 1")
        query, commit = self._encoded(text, clip, image, vector), self._commit
        count, total = max(100, 4 * top), int(commit.snapshot.live.sum())
        while True:
            scores, rows = commit.nearest.search(query[None], min(count, max(1, total)))
            hits = _hits(commit, query, scores[0], rows[0], top, per_video, min_score, merge)
            if len(hits) >= top or count >= total or (rows[0] < 0).any():
                return hits
            if min_score is not None and scores[0, -1] < min_score:
                return hits
            count *= 4

    def why_nothing(self, min_score: float | None = None) -> str:
        """Return what a person is told where a search found nothing."""
        if not len(self):
            return "nothing found: the index has no clips"
        return "nothing found" if min_score is None else f"nothing found: no clip has a score of {min_score:g} or more"

    def _encoded(
        self,
        text: str | None,
        clip: VideoClip | tuple[str, float, float | None] | None,
        image: str | os.PathLike[str] | np.ndarray | None,
        vector: np.ndarray | None,
    ) -> np.ndarray:
        if text is not None:
            vector = self.pipeline.encode_text(text)
        elif clip is not None:
            vector = self.pipeline.encode_video(VideoClip(*clip))
        elif image is not None:
            pixels = image if isinstance(image, np.ndarray) else _read_image(image)
            vector = self.pipeline.encode_image([pixels])[0]
        vector = np.asarray(vector)
        if vector.shape != (self.settings.dim,):
            raise DataError(f"a query of shape {vector.shape}: the index has vectors of width {self.settings.dim}")
        return np.asarray(unit_rows(vector[None])[0])

    def path_of(self, key: str) -> Path:
        """Return the path of a video of the index, below its root.

        Raises:
            UnsafePathError: if it would lead elsewhere, or is no video's.
        """
        return _path_of(self._commit, key)


def _hits(
    commit: _Commit,
    query: np.ndarray,
    scores: np.ndarray,
    rows: np.ndarray,
    top: int,
    per_video: int | None,
    min_score: float | None,
    merge: bool,
) -> list[SearchHit]:
    hits: list[SearchHit] = []
    counts: dict[str, int] = {}
    for key, start, end, score, row in pick_hits(commit.snapshot, commit.nearest, query, scores, rows, merge):
        if len(hits) == top or (min_score is not None and score < min_score):
            break
        counts[key] = counts.get(key, 0) + 1
        if per_video is None or counts[key] <= per_video:
            hits.append(SearchHit(str(_path_of(commit, key)), start, end, score, row, commit.snapshot))
    return hits


def _path_of(commit: _Commit, key: str) -> Path:
    source = commit.snapshot.data / "manifest.json"
    root, name = path_in(key, len(commit.roots), source)
    path = path_below(commit.roots[root], name, source)
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UnsafePathError(f"{source}: {shown(name)} is not the name of a video")
    return path


def _read_image(path: str | os.PathLike[str]) -> np.ndarray:
    try:
        return decode_image(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
