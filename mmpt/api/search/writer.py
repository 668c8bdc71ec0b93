"""Writing an index of clips: one writer at a time, and a video is there when its entry is in the manifest."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.api.search.layout import CLIP, CLIPS, INDEX, THUMBNAILS, VECTORS, IndexSettings, data_name, mending
from mmpt.api.search.nearest import build_nearest, drop_nearest, nearest_state
from mmpt.api.search.snapshot import Snapshot, checksum, damaged_entry, high_water, wrong_entries
from mmpt.store.extraction_manifest import Manifest
from mmpt.utils.errors import DataError
from mmpt.utils.files import sole_writer, sync_folder, writing

__all__ = ["IndexWriter", "compact", "repair", "unit_rows", "writing_index"]

LOCK = ".lock"


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors (N, H) to length 1, float32.

    Raises:
        DataError: if one is not finite, or 0.
    """
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise DataError("a vector of the model is zero or not finite")
    return np.asarray(vectors / lengths, np.float32)


class IndexWriter:
    """Append videos to a folder of data; use :func:`writing_index`, which holds the lock.

    Raises:
        DataError: if what is there was made with other settings; says which differ.
    """

    def __init__(self, folder: Path, settings: IndexSettings, repairing: bool = False) -> None:
        self.settings, self.repairing = settings, repairing
        self.data = folder / settings.data
        with writing(self.data):
            self.data.mkdir(parents=True, exist_ok=True)
        self.manifest = Manifest(self.data, settings.compared())
        self.taken_out = wrong_entries(self.entries)
        if self.taken_out and not repairing:
            raise DataError(damaged_entry(self.data, self.taken_out[0]))
        for key in self.taken_out:
            self.manifest.record(key, {"status": "removed"})
        self.rows, self.thumbnail_bytes = high_water(self.entries)
        self._cut(VECTORS, self.rows * settings.dim * 2)
        self._cut(CLIPS, self.rows * CLIP.itemsize)
        self._cut(THUMBNAILS, self.thumbnail_bytes)

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        """Records of all videos, by key: their ``status`` is done, failed or removed."""
        return self.manifest.entries

    def _cut(self, name: str, size: int) -> None:
        """Remove what a killed writer left behind the last commit."""
        path = self.data / name
        with writing(path), open(path, "ab") as file:
            found = file.tell()
            if found < size and not self.repairing:
                raise DataError(
                    f"{path}: {found} bytes, of {size}: the file was cut. Mend it with: {mending(self.data)}"
                )
            file.truncate(size)

    def add(
        self,
        key: str,
        starts: np.ndarray,
        ends: np.ndarray,
        vectors: np.ndarray,
        thumbnails: Sequence[bytes],
        facts: dict[str, Any],
    ) -> None:
        """Store the clips of a video and commit them, in place of those that it had.

        Args:
            key: of the video.
            starts: seconds (T,).
            ends: seconds (T,).
            vectors: (T, dim), scaled to unit length here.
            thumbnails: T JPEG files, or none.
            facts: about the video's file, for its record.
        """
        self.store(key, starts, ends, unit_rows(vectors).astype("<f2"), thumbnails, facts)

    def store(
        self,
        key: str,
        starts: np.ndarray,
        ends: np.ndarray,
        vectors: np.ndarray,
        thumbnails: Sequence[bytes],
        facts: dict[str, Any],
    ) -> None:
        """Store clips as :meth:`add` does, of unit vectors float16 as they are."""
        clips = np.zeros(len(vectors), CLIP)
        clips["start"], clips["end"] = starts, ends
        if thumbnails:
            sizes = np.array([len(picture) for picture in thumbnails], np.int64)
            clips["thumbnail_bytes"] = sizes
            clips["thumbnail"] = self.thumbnail_bytes + np.cumsum(sizes) - sizes
        pictures = b"".join(thumbnails)
        entry = {"status": "done", "first": self.rows, "rows": len(clips), **facts}
        self._append(VECTORS, vectors.tobytes())
        self._append(CLIPS, clips.tobytes())
        self._append(THUMBNAILS, pictures)
        self.rows += len(clips)
        self.thumbnail_bytes += len(pictures)
        self._record(key, {**entry, "crc32": checksum(vectors, clips, pictures)})

    def update(self, key: str, entry: dict[str, Any]) -> None:
        """Commit another record of rows that are there: of a file that was moved or only touched."""
        self.manifest.record(key, entry)

    def remove(self, key: str) -> None:
        """Commit that a video is gone."""
        self._record(key, {"status": "removed"})

    def fail(self, key: str, reason: str, facts: dict[str, Any]) -> None:
        """Commit that a video cannot be indexed, and that what it had is gone."""
        self._record(key, {"status": "failed", "reason": reason, **facts})

    def _record(self, key: str, entry: dict[str, Any]) -> None:
        # The marks keep rows of replaced entries from being written over under their readers.
        marks = {"rows_end": self.rows, "thumbnails_end": self.thumbnail_bytes}
        self.manifest.record(key, {**entry, **marks})

    def _append(self, name: str, content: bytes) -> None:
        path = self.data / name
        with writing(path), open(path, "ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def writing_index(
    folder: str | os.PathLike[str], settings: IndexSettings | None = None, repairing: bool = False
) -> Iterator[IndexWriter]:
    """Hold the lock of an index and yield its writer; the manifest is saved at the end.

    Args:
        folder: of the index.
        settings: of an index to make or to go on with; None: one that is there.
        repairing: give files that were cut their length again, with zeros, which no checksum agrees with.

    Raises:
        DataError: if another process writes it, or its settings differ; says what.
    """
    path = Path(folder)
    if settings is None:
        IndexSettings.read(path)  # before a folder is made for the lock
    with sole_writer(path / LOCK):
        stored = IndexSettings.read(path) if (path / INDEX).exists() else None
        current = stored or settings
        assert current is not None
        if stored and settings:
            _compare(path, stored, settings)
        if not stored:
            current.write(path)
        _remove_others(path, current.data)
        writer = IndexWriter(path, current, repairing)
        with writer.manifest.saved():
            yield writer


def _compare(path: Path, stored: IndexSettings, wanted: IndexSettings) -> None:
    before, now = stored.compared(), wanted.compared()
    if told := "; ".join(f"{key} {before[key]!r}, now {now[key]!r}" for key in now if before[key] != now[key]):
        raise DataError(
            f"{path}: was made with {stored.model} and other settings ({told}). Take another --output, or remove it"
        )


def _remove_others(path: Path, current: str) -> None:
    """Remove folders of data that a killed compaction left."""
    for other in path.glob("data_*"):
        if other.name != current and not other.is_symlink():
            shutil.rmtree(other, ignore_errors=True)


def compact(folder: str | os.PathLike[str]) -> int:
    """Write the rows of the videos that are there anew, without those that are gone; return how many these were.

    Readers of the old data keep them.

    Raises:
        DataError: if there is no index, another process writes it, or a video's rows are damaged; names it.
    """
    path = Path(folder)
    with writing_index(path):
        before = Snapshot(path)
        if damaged := next(before.damaged(), None):
            raise DataError(f"{path}: what is stored of {damaged} is damaged. Mend it with: {mending(before.data)}")
        settings = replace(before.settings, data=data_name(before.settings))
        writer = IndexWriter(path, settings)
        with writer.manifest.saved():
            for video in before.videos:
                clips = before.clips[video.span]
                pictures = [before.thumbnail(row) or b"" for row in range(video.span.start, video.span.stop)]
                places = ("status", "first", "rows", "crc32", "rows_end", "thumbnails_end")
                facts = {name: value for name, value in video.entry.items() if name not in places}
                kept = pictures if any(pictures) else []
                writer.store(video.key, clips["start"], clips["end"], before.vectors[video.span], kept, facts)
        build_nearest(writer.data, writer.rows, settings.dim)
        sync_folder(writer.data)
        settings.write(path)
        sync_folder(path)
    shutil.rmtree(before.data, ignore_errors=True)
    return len(before.live) - writer.rows


def repair(folder: str | os.PathLike[str]) -> tuple[list[str], str]:
    """Take the videos out whose clips or thumbnails are damaged, for the next run to encode, and mend the faiss index.

    Returns:
        The keys of these videos, and what the faiss index was, as :func:`~mmpt.api.search.nearest.nearest_state` does.

    Raises:
        DataError: if there is no index, another process writes it, or its settings or manifest are damaged.
    """
    path = Path(folder)
    with writing_index(path, repairing=True) as writer:
        damaged, state = list(Snapshot(path).damaged()), nearest_state(writer.data)
        for key in damaged:
            writer.remove(key)
        damaged += writer.taken_out
        if state == "damaged":
            drop_nearest(writer.data)
        build_nearest(writer.data, writer.rows, writer.settings.dim)
    return damaged, state
