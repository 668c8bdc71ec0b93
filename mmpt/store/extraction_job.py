"""What every extraction from videos shares: which videos are to be done, counts, records, one closing report.

:mod:`mmpt.store.extraction` (features) and :mod:`mmpt.store.frame_extraction` (frames) are made of it.
"""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpt.store.decode_pool import Decode, Piece, PoolOptions, decode_pieces
from mmpt.store.extraction_manifest import Manifest
from mmpt.store.video_list import VideoItem, split_duplicates
from mmpt.utils.safe_paths import is_plain_name

__all__ = [
    "NO_MANIFEST",
    "ExtractionJob",
    "ExtractionSummary",
    "UnfitVideoError",
    "is_unchanged",
    "printable",
    "source_of",
]

logger = logging.getLogger(__name__)

#: Ends the report of a run that keeps no manifest.
NO_MANIFEST = "without --quiet each is told as it happens"

_FEW = 5
_LONGEST_ID = 230  # bytes; file systems allow 255, and atomic writing adds to the name


@dataclass
class ExtractionSummary:
    """Counts of one run; times are in seconds.

    ``failures``, ``warnings`` and ``notes`` are (video, reason) pairs: videos without ``product`` (features, frames);
    those whose product may be shorter than expected; those about which there is something else to know. ``truncated``
    names videos whose file ends early. ``skipped_because`` ends the sentence on skipped videos. ``full_list`` tells
    where those are that the report has no room for. ``source_frames`` were decoded, ``frames`` given to the network or
    stored. ``decode_seconds`` adds up over workers, so that with the network's it may
    exceed ``wall_seconds``.
    """

    product: str = "features"
    skipped_because: str = " and whose file is unchanged"
    full_list: str = "manifest.json has them all"
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
        """Number of videos without features or frames."""
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
            lines.append(f"  skipped: {self.skipped} whose {self.product} are there{self.skipped_because}")
        if self.truncated:
            rest = len(self.truncated) - _FEW
            lines.append(f"  truncated: {', '.join(self.truncated[:_FEW])}{f' and {rest} more' if rest > 0 else ''}")
        for word, videos in (("failed", self.failures), ("warning", self.warnings), ("note", self.notes)):
            lines += [f"  {word}: {video}: {reason}" for video, reason in videos[:most]]
            if len(videos) > most:
                lines.append(f"  {word}: {len(videos) - most} more; {self.full_list}")
        return "\n".join(lines)


class ExtractionJob(ABC):
    """One run over a list of videos; what becomes of their decoded parts is the subclass's.

    Args:
        manifest: the record of earlier runs into the same folder.
        product: what a video is turned into, for the report: features, frames.
    """

    def __init__(self, manifest: Manifest, product: str) -> None:
        self.manifest = manifest
        self.summary = ExtractionSummary(product)

    @abstractmethod
    def is_there(self, item: VideoItem) -> bool:
        """Tell whether a video's product is complete and still that of its file."""

    @abstractmethod
    def take(self, piece: Piece) -> None:
        """Take a part of a video."""

    @abstractmethod
    def finish(self, piece: Piece, entry: dict[str, Any]) -> None:
        """Store a video that was decoded to its end; ``entry`` is to be its record.

        Raises:
            UnfitVideoError: if it cannot be stored; counted as a failure.
        """

    @abstractmethod
    def discard(self, video_id: str) -> None:
        """Remove what a failed video left: parts that were taken, and the product of an earlier version of its file."""

    @abstractmethod
    def end(self) -> None:
        """Complete what was stored, after the last video."""

    def run(
        self, items: Sequence[VideoItem], decode: Decode, options: PoolOptions, force: bool, progress: bool
    ) -> None:
        """Skip what is there, decode the rest and hand it on; the manifest is saved however that ends."""
        with self.manifest.saved():
            self._run(items, decode, options, force, progress)

    def _run(
        self, items: Sequence[VideoItem], decode: Decode, options: PoolOptions, force: bool, progress: bool
    ) -> None:
        from tqdm import tqdm

        unique, clashes = split_duplicates(items)
        for item, first in clashes:
            self._fail(item.path, item, f"the id {item.video_id!r} is already that of {first.path}")
        named = [item for item in unique if self._has_usable_name(item)]
        pending = [item for item in named if force or not self._skips(item)]
        done = len(items) - len(pending)
        with tqdm(total=len(items), initial=done, unit="video", delay=2, disable=not progress) as bar:
            for piece in decode_pieces(pending, decode, options):
                if piece.content is not None:
                    self.take(piece)
                else:
                    self._finish(piece)
                    bar.update()
        self.end()
        summary = self.summary
        for videos in (summary.failures, summary.warnings, summary.truncated, summary.notes):
            videos.sort()  # workers finish in any order

    def _skips(self, item: VideoItem) -> bool:
        there = self.is_there(item)
        self.summary.skipped += there
        return there

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

    def _finish(self, piece: Piece) -> None:
        item, report = piece.item, piece.report
        self.summary.decode_seconds += piece.seconds
        self.summary.frames += report.written
        self.summary.source_frames += report.decoded
        if piece.error is not None:
            self._fail(item.video_id, item, piece.error)
            return
        entry: dict[str, Any] = {"status": "done", "seconds": round(report.seconds - item.start, 3)}
        if report.truncated:
            entry["truncated"] = True
        if report.warnings:
            entry["warnings"] = report.warnings
        try:
            self.finish(piece, {**entry, **source_of(item)})
        except UnfitVideoError as error:
            self._fail(item.video_id, item, str(error))
            return
        if report.truncated:
            self.summary.truncated.append(item.video_id)
        if report.warnings:
            self.summary.warnings.append((item.video_id, "; ".join(report.warnings)))
        self.summary.done += 1

    def _fail(self, key: str, item: VideoItem, reason: str) -> None:
        if key == item.video_id:
            self.discard(item.video_id)
        key, reason = printable(key), printable(reason)
        self.manifest.record(key, {"status": "failed", "reason": reason, **source_of(item)})
        self.summary.failures.append((key, reason))
        logger.info("%s: %s", key, reason)


class UnfitVideoError(Exception):
    """Report a decoded video that cannot be stored; the message is the reason that is recorded."""


def source_of(item: VideoItem) -> dict[str, Any]:
    """Return what a record says about the file that a video comes from; its size is None where there is none."""
    source: dict[str, Any] = {"source": printable(str(Path(item.path).absolute()))}
    try:
        status = os.stat(item.path)
        source |= {"source_bytes": status.st_size, "source_mtime": status.st_mtime}
    except OSError:
        source |= {"source_bytes": None, "source_mtime": None}
    return source | ({"start": item.start, "end": item.end} if item.start or item.end is not None else {})


def is_unchanged(entry: dict[str, Any], source: dict[str, Any]) -> bool:
    """Tell whether a source is what it was when a record was made; its path may change."""
    return all(entry.get(key) == source.get(key) for key in ("source_bytes", "source_mtime", "start", "end"))


def printable(path: str) -> str:
    """Return a path that JSON in UTF-8 can hold."""
    return path.encode(errors="backslashreplace").decode()
