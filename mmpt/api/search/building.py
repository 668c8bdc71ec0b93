"""Bring an index up to date with folders of videos: what is new is encoded, what is unchanged is left alone."""

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmpt.api.capability import require_call
from mmpt.api.outputs import ClipVectors
from mmpt.api.pipeline import VideoTextPipeline
from mmpt.api.search.indexed_video import IndexedVideo, Turns
from mmpt.api.search.layout import IndexSettings, key_of
from mmpt.api.search.nearest import build_nearest
from mmpt.api.search.snapshot import live_entries
from mmpt.api.search.summary import IndexSummary
from mmpt.api.search.writer import IndexWriter, compact, writing_index
from mmpt.store.extraction_job import printable
from mmpt.store.video_list import find_videos
from mmpt.utils.errors import DataError, UnsafePathError
from mmpt.utils.files import file_sha256, resolve_path
from mmpt.utils.safe_paths import path_below

__all__ = ["index_folder"]

#: Share of rows without a video from which an index is compacted.
_COMPACTED_FROM = 0.5

Progress = Callable[[int, int, str], None]
_Encoded = tuple[dict[str, Any], ClipVectors, list[bytes]]  # facts, clips and their thumbnails


def index_folder(
    pipeline: VideoTextPipeline,
    folders: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    index_dir: str | os.PathLike[str],
    *,
    clip_seconds: float = 4.0,
    stride_seconds: float | None = None,
    thumbnail_pixels: int = 120,
    workers: int = 2,
    retry_failed: bool = False,
    on_progress: Progress | None = None,
) -> IndexSummary:
    """Index the videos of folders, all levels below, in an index that is there or is made.

    Videos are committed one by one: a run that is killed loses those under way, and the next goes on. Videos whose
    size and time, or else content, are those of the last run are left alone, those that failed then too; of these
    folders' videos that are no longer there, the clips are removed.

    Args:
        pipeline: the model; an index is of one.
        folders: one or several.
        index_dir: where the index is.
        clip_seconds: length of a clip.
        stride_seconds: from the start of a clip to the next one's; None: half of a clip.
        thumbnail_pixels: shorter side of thumbnails; 0: none.
        workers: videos under way at a time: while the model has one, the others are decoded.
        retry_failed: try the videos again that failed before and have not changed since.
        on_progress: is called with (videos done, videos in all, path).

    Raises:
        MissingCapabilityError: if the model has no vectors to compare.
        DataError: if a folder has no videos, or the index is another model's or of other settings; says which.
    """
    begin = time.monotonic()
    require_call(pipeline, "index")
    assert pipeline.dim is not None
    stride = clip_seconds / 2 if stride_seconds is None else stride_seconds
    if not (0 < clip_seconds < math.inf and 0 < stride < math.inf) or thumbnail_pixels < 0 or workers < 1:
        raise DataError("clips and strides last more than 0 seconds; thumbnail_pixels is 0 or more, workers 1 or more")
    settings = IndexSettings(
        _lasting(pipeline.source),
        pipeline.system,
        pipeline.fingerprint(),
        pipeline.dim,
        float(clip_seconds),
        float(stride),
        thumbnail_pixels,
    )
    summary = IndexSummary()
    sources = [folders] if isinstance(folders, str | os.PathLike) else folders
    with writing_index(index_dir, settings) as writer:
        found = _found(writer.settings, Path(index_dir), sources)
        run = _Run(pipeline, writer, summary, workers, retry_failed)
        run.all(found, on_progress)
        live = live_entries(writer.entries)
        summary.videos, summary.clips = len(live), sum(video.entry["rows"] for video in live)
        rows = writer.rows
        much_is_gone = rows > 0 and summary.clips < (1 - _COMPACTED_FROM) * rows
        if not much_is_gone:
            build_nearest(writer.data, rows, settings.dim)
    if much_is_gone:
        compact(index_dir)
    summary.seconds = time.monotonic() - begin
    return summary


def _lasting(source: str) -> str:
    """Return the source of a model so that it is found from any folder."""
    found = resolve_path(source)
    return os.path.abspath(found) if os.path.exists(found) else source


def _found(
    settings: IndexSettings, index_dir: Path, folders: Sequence[str | os.PathLike[str]]
) -> tuple[dict[str, str], list[str]]:
    """Return the videos of folders, key -> path, and how the keys of these folders begin; records new roots."""
    paths: dict[str, str] = {}
    prefixes = []
    for folder in folders:
        if not os.path.isdir(folder):
            raise DataError(f"{folder}: no such folder")
        real = os.path.realpath(folder)
        root = _root_of(real, settings, index_dir)
        below = os.path.relpath(real, settings.roots[root])
        prefixes.append(key_of(root, "" if below == "." else f"{below}/"))
        for item in find_videos([real]):
            paths[key_of(root, os.path.relpath(item.path, settings.roots[root]))] = item.path
    return paths, prefixes


def _root_of(folder: str, settings: IndexSettings, index_dir: Path) -> int:
    for number, root in enumerate(settings.roots):
        if os.path.commonpath([folder, root]) == root:
            return number
        if os.path.commonpath([folder, root]) == folder:
            raise DataError(f"{folder}: {root} below it is indexed by itself in {index_dir}. Use another index")
    printable_root = printable(folder)
    if printable_root != folder:
        raise DataError(f"{printable_root}: its name is not UTF-8; rename the folder")
    settings.roots.append(folder)
    settings.write(index_dir)
    return len(settings.roots) - 1


class _Run:
    """One run over videos: what each needs, and its commit."""

    def __init__(
        self,
        pipeline: VideoTextPipeline,
        writer: IndexWriter,
        summary: IndexSummary,
        workers: int,
        retry_failed: bool,
    ) -> None:
        self.pipeline, self.writer, self.summary, self.workers = pipeline, writer, summary, workers
        self.retry_failed = retry_failed
        self._facts: dict[str, dict[str, Any]] = {}  # of the files before they were opened

    def all(self, found: tuple[dict[str, str], list[str]], on_progress: Progress | None) -> None:
        """Bring all videos up to date."""
        paths, prefixes = found
        gone = [
            key
            for key, entry in self.writer.entries.items()
            if key.startswith(tuple(prefixes)) and key not in paths and entry["status"] != "removed"
        ]
        self._gone = {key: self.writer.entries[key] for key in gone}
        pending = [(key, path) for key, path in paths.items() if not self._is_there(key, path)]
        done = len(paths) - len(pending)
        for path in self._encode(pending):
            done += 1
            if on_progress is not None:
                on_progress(done, len(paths), path)
        for key in self._gone:
            self.summary.removed += self.writer.entries[key]["status"] == "done"
            self.writer.remove(key)

    def _is_there(self, key: str, path: str) -> bool:
        """Tell whether a video needs no encoding: unchanged, only touched, or moved; or failed before."""
        try:
            facts = self._facts[key] = _facts(path)
        except OSError:
            return False
        entry = self.writer.entries.get(key, {})
        if entry.get("status") == "failed" and {**entry, **facts} == entry and not self.retry_failed:
            self.summary.failed_before += 1
            return True
        there = entry.get("status") == "done" and entry.get("size") == facts["size"]
        if there and entry.get("mtime_ns") == facts["mtime_ns"]:
            self.summary.unchanged += 1
            return True
        moved = [] if there else [old for old, was in self._gone.items() if was.get("size") == facts["size"]]
        if not (there or moved):
            return False
        sha256 = file_sha256(path)
        if there and entry.get("sha256") == sha256:
            self.writer.update(key, {**entry, **facts})
            self.summary.unchanged += 1
            return True
        return any(self._move(old, key, facts) for old in moved if self._gone[old].get("sha256") == sha256)

    def _move(self, old: str, key: str, facts: dict[str, Any]) -> bool:
        entry = self._gone.pop(old)
        if entry["status"] != "done":
            return False
        self.writer.update(key, {**entry, **facts})
        self.writer.remove(old)
        self.summary.moved += 1
        return True

    def _encode(self, pending: list[tuple[str, str]]) -> Iterator[str]:
        """Encode videos, several at a time, and commit each, in order."""
        waiting: deque[tuple[str, str, Future[_Encoded]]] = deque()
        turns = Turns()
        with ThreadPoolExecutor(self.workers) as threads:
            try:
                for key, path in pending:
                    waiting.append((key, path, threads.submit(self._encoded, key, path, turns)))
                    if len(waiting) > self.workers:
                        yield self._commit(*waiting.popleft())
                while waiting:
                    yield self._commit(*waiting.popleft())
            finally:
                turns.stop()
                threads.shutdown(wait=False, cancel_futures=True)

    def _encoded(self, key: str, path: str, turns: Turns) -> _Encoded:
        settings = self.writer.settings
        key.encode()
        root, _, name = key.partition(":")
        path_below(settings.roots[int(root)], name)
        facts = _facts(path)
        facts["sha256"] = file_sha256(path)
        every = min(1.0, settings.clip_seconds / 2, settings.stride_seconds / 2)
        video = IndexedVideo(path, turns, settings.thumbnail_pixels, every)
        with suppress(DataError):  # told when it is needed; reading the file needs no model
            _ = video.clock
        with turns:
            clips = self.pipeline.encode_clips(video, settings.clip_seconds, settings.stride_seconds)
        return facts, clips, video.thumbnails(clips.starts, clips.ends)

    def _commit(self, key: str, path: str, encoded: Future[_Encoded]) -> str:
        before = self.writer.entries.get(key, {}).get("status")
        try:
            facts, clips, thumbnails = encoded.result()
            self.writer.add(key, clips.starts, clips.ends, clips.vectors, thumbnails, facts)
        except (DataError, OSError, UnicodeEncodeError) as error:
            self._fail(key, path, error)
            return path
        if before == "done":
            self.summary.replaced += 1
        else:
            self.summary.added += 1
        return path

    def _fail(self, key: str, path: str, error: Exception) -> None:
        reason = "its name is not UTF-8; rename the file" if isinstance(error, UnicodeEncodeError) else str(error)
        lasting = isinstance(error, DataError) and not isinstance(
            error, UnsafePathError
        )  # an OSError may pass by itself
        facts = self._facts.get(key, {}) if lasting else {}
        self.writer.fail(printable(key), printable(reason), facts)
        self.summary.failures.append((printable(path), printable(reason)))


def _facts(path: str) -> dict[str, Any]:
    status = os.stat(path)
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
