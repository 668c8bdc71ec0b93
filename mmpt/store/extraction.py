"""From videos to one feature per second: decoding overlapped with a network, resumable, counted.

Output: ``<folder>/<id>.npy`` of shape (seconds, dim), float16 by default, the last partial second
padded as the encoder asks; beside them ``manifest.json`` (:mod:`mmpt.store.extraction_manifest`).
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mmpt.store.decode import DecodeReport, decoder_version, stream_frames
from mmpt.store.decode_pool import Piece, PoolOptions
from mmpt.store.extraction_job import ExtractionJob, ExtractionSummary, UnfitVideoError, is_unchanged, source_of
from mmpt.store.extraction_manifest import Manifest
from mmpt.store.video_list import VideoItem
from mmpt.utils.files import atomic_open, sole_writer
from mmpt.utils.safe_paths import path_below

__all__ = [
    "ExtractionOptions",
    "ExtractionSummary",
    "FrameEncoder",
    "extract_features",
    "feature_path",
    "whole_seconds",
]


class FrameEncoder(Protocol):
    """What extraction needs of an encoder; see :class:`mmpt.modules.feature_encoders.FeatureEncoder`."""

    fps: int
    size: int
    resize: int
    dim: int
    pad: Any

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Map (seconds, fps, size, size, 3) uint8 to (seconds, dim) float32."""

    def provenance(self) -> dict[str, Any]:
        """Return what the features depend on."""


@dataclass(frozen=True)
class ExtractionOptions:
    """How to extract.

    ``batch_size``: seconds of video per forward pass. ``half_precision``: store float16, else float32. ``hflip``:
    mirror the frames. ``force``: also extract videos again whose features are there. ``workers`` and
    ``timeout_seconds``: see :class:`mmpt.store.decode_pool.PoolOptions`.
    """

    batch_size: int = 8
    workers: int = 1
    half_precision: bool = True
    hflip: bool = False
    force: bool = False
    timeout_seconds: float = 600.0


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
        job = _FeatureJob(encoder, Path(folder), options, Manifest(folder, provenance))
        pool = PoolOptions(options.workers, options.timeout_seconds)
        job.run(items, job.decode, pool, options.force, progress)
    job.summary.wall_seconds = time.perf_counter() - began
    return job.summary


class _FeatureJob(ExtractionJob):
    """Encodes the seconds of each video and writes one file per video."""

    def __init__(self, encoder: FrameEncoder, folder: Path, options: ExtractionOptions, manifest: Manifest) -> None:
        super().__init__(manifest, "features")
        self.encoder, self.folder, self.options = encoder, folder, options
        self.parts: dict[str, list[np.ndarray]] = {}
        for leftover in folder.glob(".*.npy.*.tmp"):
            leftover.unlink()  # of a killed run; the lock says that no other is under way

    def decode(self, item: VideoItem, report: DecodeReport) -> Iterator[tuple[np.ndarray, float]]:
        """Yield the frames of some seconds, (seconds, fps, size, size, 3) uint8."""
        fps = self.encoder.fps
        blocks = stream_frames(
            item.path,
            fps,
            self.encoder.resize,
            crop_size=self.encoder.size,
            start=item.start,
            end=item.end,
            hflip=self.options.hflip,
            block=self.options.batch_size * fps,
            report=report,
        )
        for block in blocks:
            yield whole_seconds(block, fps, self.encoder.pad), len(block) / fps

    def is_there(self, item: VideoItem) -> bool:
        entry = self.manifest.entries.get(item.video_id)
        shape = _stored_shape(feature_path(self.folder, item.video_id))
        if shape is None or len(shape) != 2 or shape[1] != self.encoder.dim:
            return False
        if entry is None:
            self.summary.notes.append((item.video_id, "features without a record were there: extracted again"))
            return False
        return entry["status"] == "done" and is_unchanged(entry, source_of(item))

    def take(self, piece: Piece) -> None:
        started = time.perf_counter()
        self.parts.setdefault(piece.item.video_id, []).append(self.encoder(piece.content))
        self.summary.encode_seconds += time.perf_counter() - started

    def finish(self, piece: Piece, entry: dict[str, Any]) -> None:
        video_id = piece.item.video_id
        features = np.concatenate(self.parts.pop(video_id))
        with np.errstate(over="ignore"):
            stored = features.astype(np.float16 if self.options.half_precision else np.float32)
        if not np.isfinite(stored).all():
            cause = "do not fit float16; use --half_precision 0" if np.isfinite(features).all() else "are not finite"
            raise UnfitVideoError(f"its features {cause}")
        with atomic_open(feature_path(self.folder, video_id), "wb") as file:
            np.save(file, stored)
        self.manifest.record(video_id, {**entry, "shape": list(stored.shape)})

    def discard(self, video_id: str) -> None:
        self.parts.pop(video_id, None)
        feature_path(self.folder, video_id).unlink(missing_ok=True)

    def end(self) -> None:
        assert not self.parts, "each video was written when it ended"


def whole_seconds(block: np.ndarray, fps: int, pad: str) -> np.ndarray:
    """Fill up the last second (``pad``: zero or repeat): (frames, H, W, 3) -> (seconds, fps, H, W, 3)."""
    short = -len(block) % fps
    if short:
        filling = np.zeros_like(block[:1]) if pad == "zero" else block[-1:]
        block = np.concatenate([block, np.repeat(filling, short, 0)])
    return block.reshape(-1, fps, *block.shape[1:])


def _stored_shape(path: Path) -> list[int] | None:
    """Return the shape of a .npy file, None if there is no complete one."""
    try:
        return list(np.load(path, mmap_mode="r", allow_pickle=False).shape)
    except (OSError, ValueError, EOFError):
        return None
