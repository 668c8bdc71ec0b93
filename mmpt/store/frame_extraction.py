"""From videos to a frame store: a few frames of each, or some per second, as JPEG; resumable, counted.

Output: a frame store (:mod:`mmpt.store.frame_store`), and ``manifest.json`` beside it
(:mod:`mmpt.store.extraction_manifest`). The command is ``scripts/frame_extractor/extract_frames.py``.
"""

import functools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmpt.store.decode import DecodeReport, Picture, decoder_version, stream_frames
from mmpt.store.decode_pool import Piece
from mmpt.store.extraction_job import ExtractionSummary
from mmpt.store.extraction_manifest import Manifest
from mmpt.store.frame_seeking import sought_frames
from mmpt.store.frame_selection import ChosenFrames, middle_frames
from mmpt.store.frame_writer import VIDEOS_PER_SHARD, FrameStoreWriter
from mmpt.store.images import QUALITY, encode_jpeg
from mmpt.store.store_job import StoreJob, run_store_job
from mmpt.store.video_list import VideoItem
from mmpt.utils.errors import DataError

__all__ = ["FrameExtractionOptions", "extract_frames"]


@dataclass(frozen=True)
class FrameExtractionOptions:
    """Which frames to take of each video, and how to store them.

    ``frames``: so many, in the middle of as many even steps (:mod:`mmpt.store.frame_selection`), as published; unless
    ``fps`` is set: so many per second, the picture on screen in the middle of each interval. ``short_side``: scale the
    shorter side down to so many pixels; None keeps the stored size, as published. ``quality``: of the JPEGs, 1 to 95.
    ``seek``: with ``frames``, decode whole videos from the key frame before each chosen frame only
    (:mod:`mmpt.store.frame_seeking`): the same frames of intact files, sooner the longer they are.
    ``videos_per_shard``: a killed run loses at most so many. ``force``: also extract again what is there. ``workers``
    and ``timeout_seconds``: see :class:`mmpt.store.decode_pool.PoolOptions`.

    Raises:
        DataError: if a value is out of range; names it.
    """

    frames: int = 5
    fps: float | None = None
    short_side: int | None = None
    quality: int = QUALITY
    seek: bool = False
    videos_per_shard: int = VIDEOS_PER_SHARD
    force: bool = False
    workers: int = 1
    timeout_seconds: float = 600.0

    def __post_init__(self) -> None:
        for name, value, fits in (
            ("frames", self.frames, self.frames >= 1),
            ("fps", self.fps, self.fps is None or 0 < self.fps < math.inf),
            ("short_side", self.short_side, self.short_side is None or self.short_side >= 1),
            ("quality", self.quality, 1 <= self.quality <= 95),
            ("videos_per_shard", self.videos_per_shard, self.videos_per_shard >= 1),
        ):
            if not fits:
                raise DataError(f"--{name.replace('_', '-')} {value}: not a usable value")

    def provenance(self) -> dict[str, Any]:
        """Return what the frames depend on, as the manifest and the shards record it."""
        from PIL import __version__ as pillow

        chosen = {"fps": self.fps} if self.fps is not None else {"frames": self.frames}
        return {
            "tool": "extract_frames",
            **chosen,
            "short_side": self.short_side,
            "quality": self.quality,
            "decoder": f"{decoder_version()}; Pillow {pillow}",
        }


def extract_frames(
    items: Sequence[VideoItem],
    folder: str | os.PathLike[str],
    options: FrameExtractionOptions | None = None,
    progress: bool = False,
) -> ExtractionSummary:
    """Extract frames of videos into a frame store, going on where an earlier run stopped.

    A video that is in a complete shard and whose file has not changed, or is no longer there, is skipped, unless
    ``options.force``. What cannot be decoded, or not in time, and other videos under an id that is taken, count as
    failed. The frames of a video never depend on workers or order; the order of the videos in the store does.

    Raises:
        DataError: if the folder was made with other settings or another run is writing into it.
        StorageError: if the disk is full, the folder may not be written, or many decoders hang.
        MissingExtraError: if PyAV is not installed.
    """
    options = options or FrameExtractionOptions()
    provenance = options.provenance()
    job = functools.partial(_FrameJob, folder, options, provenance)
    return run_store_job(folder, job, items, options, progress)


class _FrameJob(StoreJob):
    """Encodes the chosen frames, in the decoding threads, and adds each video to a shard."""

    writer: FrameStoreWriter

    def __init__(
        self,
        folder: str | os.PathLike[str],
        options: FrameExtractionOptions,
        provenance: dict[str, Any],
    ) -> None:
        super().__init__(Manifest(folder, provenance), "frames")
        self.options = options
        self.writer = FrameStoreWriter(folder, provenance, options.videos_per_shard, self.record)

    def decode(self, item: VideoItem, report: DecodeReport) -> Iterator[tuple[ChosenFrames | None, float]]:
        if self.options.fps is None:
            yield from self._decode_middles(item, report)
        else:
            yield from self._decode_steadily(item, self.options.fps, report)

    def _decode_middles(self, item: VideoItem, report: DecodeReport) -> Iterator[tuple[ChosenFrames | None, float]]:
        picture = Picture(self.options.short_side, enlarge=False)

        def encode(frame: Any) -> bytes:
            return encode_jpeg(picture(frame), self.options.quality)

        if self.options.seek and not item.start and item.end is None:
            yield from sought_frames(item.path, self.options.frames, encode, report)
        else:
            yield from middle_frames(item.path, self.options.frames, encode, report, item.start, item.end)

    def _decode_steadily(
        self, item: VideoItem, fps: float, report: DecodeReport
    ) -> Iterator[tuple[ChosenFrames | None, float]]:
        blocks = stream_frames(
            item.path,
            fps,
            self.options.short_side,
            center_crop=False,
            start=item.start,
            end=item.end,
            enlarge=False,
            report=report,
        )
        number = 0
        for block in blocks:
            seconds = ((number + np.arange(len(block)) + 0.5) / fps).tolist()
            number += len(block)
            yield ChosenFrames([encode_jpeg(image, self.options.quality) for image in block], seconds), len(block) / fps

    def take(self, piece: Piece) -> None:
        part = self.taken.setdefault(piece.item.video_id, ChosenFrames())
        part.images += piece.content.images
        part.seconds += piece.content.seconds

    def finish(self, piece: Piece, entry: dict[str, Any]) -> None:
        video_id = piece.item.video_id
        part = self.taken.pop(video_id)
        self.entries[video_id] = {**entry, "frames": len(part.images)}
        self.writer.append(video_id, part.images, part.seconds)
