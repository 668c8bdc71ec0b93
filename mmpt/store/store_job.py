"""An extraction from videos into a store of shards (:mod:`mmpt.store.video_shards`): of frames, or of segments."""

import os
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from mmpt.store.decode_pool import DecodeReport, PoolOptions
from mmpt.store.extraction_job import ExtractionJob, ExtractionSummary, is_unchanged, source_of
from mmpt.store.extraction_manifest import Manifest
from mmpt.store.video_list import VideoItem
from mmpt.store.video_shards_writer import VideoShardsWriter
from mmpt.utils.files import sole_writer

__all__ = ["StoreJob", "run_store_job"]


class StoreOptions(Protocol):
    """What the options of such extractions have in common."""

    @property
    def workers(self) -> int: ...

    @property
    def timeout_seconds(self) -> float: ...

    @property
    def force(self) -> bool: ...


class StoreJob(ExtractionJob):
    """Adds videos to shards; a video is recorded as done once its shard is readable.

    A subclass sets ``writer``, which calls :meth:`record`, keeps what it has taken of a video in ``taken`` and what is
    to be recorded of one that it has stored in ``entries``, both by the video's id.
    """

    writer: VideoShardsWriter

    def __init__(self, manifest: Manifest, product: str) -> None:
        super().__init__(manifest, product)
        self.taken: dict[str, Any] = {}
        self.entries: dict[str, dict[str, Any]] = {}

    @abstractmethod
    def decode(self, item: VideoItem, report: DecodeReport) -> Iterator[tuple[Any, float]]:
        """Yield parts of a video, in a worker's thread, with their seconds."""

    def is_there(self, item: VideoItem) -> bool:
        """Tell whether a video is in a complete shard and was made of its file as that is, or was where it is gone."""
        entry = self.manifest.entries.get(item.video_id)
        if item.video_id not in self.writer.stored or entry is None or entry["status"] != "done":
            return False
        source = source_of(item)
        if source["source_bytes"] is None:
            return self.stays(item, "file")
        return is_unchanged(entry, source) and self.is_current(item, entry)

    def is_current(self, item: VideoItem, entry: dict[str, Any]) -> bool:
        """Tell whether all that a video was made of besides its file is as its record says."""
        return True

    def stays(self, item: VideoItem, gone: str) -> bool:
        """Note that a video stays as it is although what it was made of is gone; True."""
        product = self.summary.product
        self.summary.notes.append(
            (item.video_id, f"its {gone} is no longer there; the {product} of an earlier run stay")
        )
        return True

    def discard(self, video_id: str) -> None:
        """Forget a failed video, and what an earlier run stored of it."""
        self.taken.pop(video_id, None)
        self.writer.remove([video_id])

    def end(self) -> None:
        """Complete the last shard."""
        self.writer.close_shard()
        self.writer.drop_useless_shards()

    def record(self, video_ids: list[str]) -> None:
        """Note what a shard was made of; a run that is killed before that extracts those videos again."""
        for video_id in video_ids:
            self.manifest.record(video_id, self.entries.pop(video_id))


def run_store_job(
    folder: str | os.PathLike[str],
    make: Callable[[], StoreJob],
    items: Sequence[VideoItem],
    options: StoreOptions,
    progress: bool,
) -> ExtractionSummary:
    """Run a job as the only one that writes into a folder; ``make`` is called when it is."""
    began = time.perf_counter()
    with sole_writer(Path(folder) / ".lock"):
        job = make()
        with job.writer:
            pool = PoolOptions(options.workers, options.timeout_seconds)
            job.run(items, job.decode, pool, options.force, progress)
    job.summary.wall_seconds = time.perf_counter() - began
    return job.summary
