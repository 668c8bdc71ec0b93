"""Writing a frame store: shard by shard, each readable as soon as it is complete."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

import mmpt
from mmpt.store.frame_store import (
    STORE_FILE,
    STORE_VERSION,
    ShardEntry,
    frames_prefix,
    read_store_file,
    videos_prefix,
)
from mmpt.utils.errors import DataError
from mmpt.utils.files import read_json, write_json
from mmpt.utils.shardedtensor import ShardedTensor, ShardedTensorWriter

__all__ = ["VIDEOS_PER_SHARD", "FrameStoreWriter"]

VIDEOS_PER_SHARD = 4096

_NAME = "shard_"
# also what a killed writer leaves under a temporary name
_SHARD_FILE = re.compile(rf"\.?({_NAME}\d+)\.(?:frames|videos)_(?:data|starts|ids|index)\.(?:npy|json)(?:\..*)?")


class FrameStoreWriter:
    """Add videos to a store; what is there already stays, and a video that is added again replaces the earlier one.

    Args:
        folder: of the store; made if absent. The caller sees to it that nobody else writes there
            (:func:`mmpt.utils.files.sole_writer`).
        producer: JSON-ready facts about the origin, kept in the index of each shard.
        videos_per_shard: a shard is closed after so many videos; a killed writer loses the one it was writing.
        on_commit: called when a shard has become readable, with the ids in it.

    Raises:
        DataError: if the folder holds a damaged store.
        StorageError: if the disk is full or the folder may not be written, here or in any later step.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        producer: Mapping[str, Any] | None = None,
        videos_per_shard: int = VIDEOS_PER_SHARD,
        on_commit: Callable[[list[str]], None] | None = None,
    ) -> None:
        if videos_per_shard < 1:
            raise DataError(f"{folder}: a shard holds at least 1 video, not {videos_per_shard}")
        self.folder, self.videos_per_shard = Path(folder), videos_per_shard
        self.producer = {"tool": "mmpt.store.frame_writer", "mmpt": mmpt.__version__, **(producer or {})}
        self.on_commit = on_commit
        self.shards = read_store_file(folder)
        #: What else ``frames.json`` holds; readers do not look at it.
        self.extra = _extra(self.folder)
        #: The ids in the complete shards, each with the name of its shard.
        self.stored: dict[str, str] = {}
        for shard in self.shards:
            ids = ShardedTensor.load(videos_prefix(folder, shard.name), mmap_mode=None).ids or []
            self.stored.update(dict.fromkeys(ids, shard.name))
            for video_id in shard.removed:
                self.stored.pop(video_id, None)
        self._remove_leftovers()
        self._stack = ExitStack()
        self._frames: ShardedTensorWriter | None = None
        self._videos: ShardedTensorWriter | None = None
        self._ids: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close_shard()
        else:  # the unfinished shard is discarded
            self._stack.__exit__(kind, error, trace)

    @property
    def pending(self) -> list[str]:
        """The ids in the shard being written, which readers do not see yet."""
        return list(self._ids)

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
        if self._frames is None or self._videos is None:
            self._frames, self._videos = self._open_shard()
        self._videos.append(times, video_id)
        for image in images:
            self._frames.append(np.frombuffer(image, np.uint8) if isinstance(image, bytes) else image)
        self._ids.append(video_id)
        if len(self._ids) >= self.videos_per_shard:
            self.close_shard()

    def close_shard(self) -> None:
        """Make the videos added so far readable."""
        if self._frames is None or self._videos is None:
            return
        self._videos.producer["frames_generation"] = self._frames.generation
        self._stack.close()  # the frames first, then the videos that refer to them
        name = self._next_name()
        self.shards.append(ShardEntry(name, len(self._ids)))
        self.stored.update(dict.fromkeys(self._ids, name))
        written, self._ids = self._ids, []
        self._frames, self._videos = None, None
        self.save()
        if self.on_commit is not None:
            self.on_commit(written)

    def remove(self, video_ids: Iterable[str]) -> None:
        """Let videos in complete shards no longer count; their bytes stay until the whole shard is of no use."""
        present = [video_id for video_id in video_ids if self.stored.pop(video_id, None) is not None]
        if present:
            self.shards[-1].removed += present
            self.save()

    def drop_useless_shards(self) -> None:
        """Remove shards of which every video was replaced or removed."""
        in_use = set(self.stored.values())
        kept: list[ShardEntry] = []
        for shard in self.shards:
            if shard.name in in_use:
                kept.append(shard)
            elif kept:  # what was removed must stay so
                kept[-1].removed += shard.removed
        if len(kept) < len(self.shards):
            self.shards = kept
            self.save()  # before, so that no reader looks for what is being removed
            self._remove_leftovers()

    def save(self) -> None:
        """Write ``frames.json``: from now on readers see the shards that it names."""
        shards = [
            {"name": shard.name, "videos": shard.videos, **({"removed": shard.removed} if shard.removed else {})}
            for shard in self.shards
        ]
        write_json(self.folder / STORE_FILE, {**self.extra, "version": STORE_VERSION, "shards": shards})

    def _next_name(self) -> str:
        last = max((int(shard.name.removeprefix(_NAME)) for shard in self.shards), default=-1)
        return f"{_NAME}{last + 1:05d}"

    def _open_shard(self) -> tuple[ShardedTensorWriter, ShardedTensorWriter]:
        name = self._next_name()
        videos = ShardedTensorWriter(videos_prefix(self.folder, name), np.float64, (), self.producer)
        self._stack.enter_context(videos)
        frames = ShardedTensorWriter(frames_prefix(self.folder, name), np.uint8, (), self.producer)
        self._stack.enter_context(frames)
        return frames, videos

    def _remove_leftovers(self) -> None:
        """Remove the files of shards that ``frames.json`` does not name: of killed runs, or no longer of use."""
        named = {shard.name for shard in self.shards}
        for file in self.folder.glob(f"*{_NAME}*") if self.folder.is_dir() else ():
            found = _SHARD_FILE.fullmatch(file.name)
            if found is not None and found[1] not in named:
                file.unlink(missing_ok=True)


def _extra(folder: Path) -> dict[str, Any]:
    """Return what ``frames.json`` holds beside the shards."""
    stored = read_json(folder / STORE_FILE) if (folder / STORE_FILE).exists() else {}
    return {key: value for key, value in stored.items() if key not in ("version", "shards")}
