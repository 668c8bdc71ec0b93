"""Writing a frame store: shard by shard, each readable as soon as it is complete."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmpt.store.frame_store import FRAME_LAYOUT
from mmpt.store.video_shards_writer import VIDEOS_PER_SHARD, VideoShardsWriter
from mmpt.utils.errors import DataError

__all__ = ["VIDEOS_PER_SHARD", "FrameStoreWriter"]


class FrameStoreWriter(VideoShardsWriter):
    """Add videos to a store; what is there already stays, and a video that is added again replaces the earlier one.

    Args:
        folder: of the store; made if absent. The caller sees to it that nobody else writes there
            (:func:`mmpt.utils.files.sole_writer`).
        producer: JSON-ready facts about the origin, kept in the index of each shard.
        videos_per_shard: a shard is closed after so many videos; a killed writer loses the one it was writing.
        on_commit: called when a shard has become readable, with the ids in it.
        settings: JSON-ready, what the content of all its videos depends on, kept in the commit file; None: they are
            kept elsewhere.

    Raises:
        DataError: if the folder holds a damaged store, or one that was made with other settings.
        StorageError: if the disk is full or the folder may not be written, here or in any later step.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        producer: Mapping[str, Any] | None = None,
        videos_per_shard: int = VIDEOS_PER_SHARD,
        on_commit: Callable[[list[str]], None] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        facts = {"tool": "mmpt.store.frame_writer", **(producer or {})}
        super().__init__(FRAME_LAYOUT, folder, FRAME_LAYOUT.parts, facts, videos_per_shard, on_commit, settings)

    def append(
        self, video_id: str, images: Sequence[bytes | np.ndarray], seconds: Iterable[float] | None = None
    ) -> None:
        """Add a video.

        Args:
            video_id: unique among those that this writer adds to one shard.
            images: the bytes of each frame's JPEG or PNG, in the order of time; at least one.
            seconds: when each is shown, from the start of the video; None: unknown.

        Raises:
            DataError: if there is no frame, a frame is empty, or there is not one time per frame; names the video.
        """
        times = np.full(len(images), np.nan) if seconds is None else np.asarray(list(seconds), np.float64)
        if not images or times.shape != (len(images),) or not all(len(image) for image in images):
            raise DataError(
                f"video {video_id!r}: {len(images)} frames with {times.size} times, expected one time each and no empty"
                " frame"
            )
        frames = (np.frombuffer(image, np.uint8) if isinstance(image, bytes) else image for image in images)
        self.put(video_id, times, {"frames": frames})
