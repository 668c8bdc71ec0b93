"""From videos to one feature per second: decoding overlapped with a network, resumable, counted.

Output: ``<folder>/<id>.npy`` of shape (seconds, dim), float16 by default, the last partial second
padded as the encoder asks; beside them ``manifest.json`` (:mod:`mmpt.store.extraction_manifest`).
"""

import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.store.decode import decoder_version
from mmpt.store.decode_pool import ExtractionOptions, FrameEncoder, Piece, decode_pieces
from mmpt.store.extraction_manifest import Manifest
from mmpt.store.video_list import VideoItem, split_duplicates
from mmpt.utils.errors import StorageError
from mmpt.utils.files import atomic_open, sole_writer
from mmpt.utils.safe_paths import is_plain_name, path_below

__all__ = ["ExtractionOptions", "ExtractionSummary", "FrameEncoder", "extract_features", "feature_path"]

logger = logging.getLogger(__name__)

_FEW = 5
_LONGEST_ID = 230  # bytes; file systems allow 255, and atomic writing adds to the name


@dataclass
class ExtractionSummary:
    """Counts of one run; times are in seconds.

    ``failures``, ``warnings`` and ``notes`` are (video, reason) pairs: videos without features; those whose features
    may be shorter than expected; those whose features of unknown origin were extracted again. ``truncated`` names
    videos whose file ends early. ``source_frames`` were decoded, ``frames`` given to the network.
    ``decode_seconds`` adds up over workers, so that with the network's it may exceed ``wall_seconds``.
    """

    done: int = 0
    skipped: int = 0
    truncated: list[str] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    source_frames: int = 0
    frames: int = 0
    decode_seconds: float = 0.0
    encode_seconds: float = 0.0
    wall_seconds: float = 0.0

    @property
    def failed(self) -> int:
        """Number of videos without features."""
        return len(self.failures)

    @property
    def failed_fraction(self) -> float:
        """Share of the videos that failed, 0 to 1."""
        return self.failed / max(1, self.done + self.skipped + self.failed)

    def describe(self, most: int = 20) -> str:
        """Return the closing lines: counts, then the reasons of at most ``most`` videos of a kind."""
        lines = [
            f"done {self.done}, skipped {self.skipped}, failed {self.failed}, truncated {len(self.truncated)}, "
            f"warnings {len(self.warnings)}"
        ]
        if self.skipped:
            lines.append(f"  skipped: {self.skipped} whose features are there and whose file is unchanged")
        if self.truncated:
            rest = len(self.truncated) - _FEW
            lines.append(f"  truncated: {', '.join(self.truncated[:_FEW])}{f' and {rest} more' if rest > 0 else ''}")
        for word, videos in (("failed", self.failures), ("warning", self.warnings), ("note", self.notes)):
            lines += [f"  {word}: {video}: {reason}" for video, reason in videos[:most]]
            if len(videos) > most:
                lines.append(f"  {word}: {len(videos) - most} more; manifest.json has them all")
        return "\n".join(lines)


def feature_path(folder: str | os.PathLike[str], video_id: str) -> Path:
    """Return where the features of a video are to be written.

    Raises:
        UnsafePathError: if the id would lead out of the folder.
    """
    return path_below(folder, f"{video_id}.npy", replaced=True)


def extract_features(
    items: Sequence[VideoItem],
    encoder: FrameEncoder,
    folder: str | os.PathLike[str],
    options: ExtractionOptions | None = None,
    progress: bool = False,
) -> ExtractionSummary:
    """Extract the features of videos into a folder, going on where an earlier run stopped.

    A video whose features are there and whose file has not changed is skipped, unless ``options.force``. Features of
    unknown origin (without an entry in the manifest) are extracted again. What cannot be decoded, or not in time, and
    other videos under an id that is taken, count as failed. Features never depend on workers or order.

    Raises:
        DataError: if the folder was made with other settings or another run is writing into it.
        StorageError: if the disk is full, the folder may not be written, or many decoders hang.
        MissingExtraError: if PyAV is not installed.
    """
    options = options or ExtractionOptions()
    began = time.perf_counter()
    provenance = {
        **encoder.provenance(),
        "hflip": options.hflip,
        "dtype": "float16" if options.half_precision else "float32",
        "decoder": decoder_version(),
    }
    with sole_writer(Path(folder) / ".lock"):
        job = _Job(encoder, Path(folder), options, Manifest(folder, provenance))
        try:
            job.run(items, progress)
        except BaseException:
            with suppress(StorageError):  # where there is no room for it, the journal has it all
                job.manifest.save()
            raise
        job.manifest.save()
    job.summary.wall_seconds = time.perf_counter() - began
    return job.summary


class _Job:
    """One run over a list of videos."""

    def __init__(self, encoder: FrameEncoder, folder: Path, options: ExtractionOptions, manifest: Manifest) -> None:
        self.encoder, self.folder, self.options, self.manifest = encoder, folder, options, manifest
        self.summary = ExtractionSummary()

    def run(self, items: Sequence[VideoItem], progress: bool) -> None:
        """Skip what is there, decode and encode the rest."""
        from tqdm import tqdm

        for leftover in self.folder.glob(".*.npy.*.tmp"):
            leftover.unlink()  # of a killed run; the lock says that no other is under way
        unique, clashes = split_duplicates(items)
        for item, first in clashes:
            self._fail(item.path, item, f"the id {item.video_id!r} is already that of {first.path}")
        named = [item for item in unique if self._has_usable_name(item)]
        pending = [item for item in named if self.options.force or not self._is_there(item)]
        parts: dict[str, list[np.ndarray]] = {}
        with tqdm(total=len(items), initial=len(items) - len(pending), unit="video", disable=not progress) as bar:
            for piece in decode_pieces(pending, self.encoder, self.options):
                if piece.frames is not None:
                    started = time.perf_counter()
                    parts.setdefault(piece.item.video_id, []).append(self.encoder(piece.frames))
                    self.summary.encode_seconds += time.perf_counter() - started
                else:
                    self._finish(piece, parts.pop(piece.item.video_id, []))
                    bar.update()
        for videos in (self.summary.failures, self.summary.warnings, self.summary.truncated, self.summary.notes):
            videos.sort()  # workers finish in any order

    def _has_usable_name(self, item: VideoItem) -> bool:
        """Return whether the manifest, the file system and readers can take a video's id and path; else count it."""
        if not is_plain_name(item.video_id):
            self._fail(item.path, item, f"its id {item.video_id!r} is no plain file name; rename the file")
            return False
        try:
            long = len(item.video_id.encode()) > _LONGEST_ID
            str(Path(item.path).absolute()).encode()
        except UnicodeEncodeError:
            self._fail(item.path, item, "its name is not UTF-8; rename the file")
            return False
        if long:
            self._fail(item.path, item, f"its id is longer than {_LONGEST_ID} bytes; shorten the file's name")
        return not long

    def _is_there(self, item: VideoItem) -> bool:
        """Count and return whether a video's features are complete and still those of its file."""
        entry = self.manifest.entries.get(item.video_id)
        path = feature_path(self.folder, item.video_id)
        shape = _stored_shape(path)
        if shape is None or len(shape) != 2 or shape[1] != self.encoder.dim:
            return False
        if entry is None:
            self.summary.notes.append((item.video_id, "features without a record were there: extracted again"))
            return False
        if entry["status"] != "done" or _identity(entry) != _identity(_source(item)):
            return False
        self.summary.skipped += 1
        return True

    def _finish(self, piece: Piece, parts: list[np.ndarray]) -> None:
        item, report = piece.item, piece.report
        self.summary.decode_seconds += piece.seconds
        self.summary.frames += report.written
        self.summary.source_frames += report.decoded
        if piece.error is not None:
            self._fail(item.video_id, item, piece.error)
            return
        features = np.concatenate(parts)
        with np.errstate(over="ignore"):
            stored = features.astype(np.float16 if self.options.half_precision else np.float32)
        if not np.isfinite(stored).all():
            cause = "do not fit float16; use --half_precision 0" if np.isfinite(features).all() else "are not finite"
            self._fail(item.video_id, item, f"its features {cause}")
            return
        with atomic_open(feature_path(self.folder, item.video_id), "wb") as file:
            np.save(file, stored)
        entry = {"status": "done", "seconds": round(report.seconds - item.start, 3), "shape": list(stored.shape)}
        if report.truncated:
            self.summary.truncated.append(item.video_id)
            entry["truncated"] = True
        if report.warnings:
            entry["warnings"] = report.warnings
            self.summary.warnings.append((item.video_id, "; ".join(report.warnings)))
        self.manifest.record(item.video_id, {**entry, **_source(item)})
        self.summary.done += 1

    def _fail(self, key: str, item: VideoItem, reason: str) -> None:
        if key == item.video_id:  # features of an earlier version of the file must not stay
            feature_path(self.folder, item.video_id).unlink(missing_ok=True)
        key, reason = _printable(key), _printable(reason)
        self.manifest.record(key, {"status": "failed", "reason": reason, **_source(item)})
        self.summary.failures.append((key, reason))
        logger.info("%s: %s", key, reason)


def _stored_shape(path: Path) -> list[int] | None:
    """Return the shape of a .npy file, None if there is no complete one."""
    try:
        return list(np.load(path, mmap_mode="r", allow_pickle=False).shape)
    except (OSError, ValueError, EOFError):
        return None


def _source(item: VideoItem) -> dict[str, Any]:
    source: dict[str, Any] = {"source": _printable(str(Path(item.path).absolute()))}
    try:
        status = os.stat(item.path)
        source |= {"source_bytes": status.st_size, "source_mtime": status.st_mtime}
    except OSError:
        source |= {"source_bytes": None, "source_mtime": None}
    return source | ({"start": item.start, "end": item.end} if item.start or item.end is not None else {})


def _printable(path: str) -> str:
    """Return a path that JSON in UTF-8 can hold."""
    return path.encode(errors="backslashreplace").decode()


def _identity(entry: dict[str, Any]) -> list[Any]:
    """What tells that a source is unchanged; its path may change."""
    return [entry.get(key) for key in ("source_bytes", "source_mtime", "start", "end")]
