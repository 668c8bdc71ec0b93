"""Writing a store of many videos (:mod:`mmpt.store.video_shards`): each shard readable as soon as it is complete."""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

import mmpt
from mmpt.store.video_shards import (
    STORE_VERSION,
    VIDEOS,
    Layout,
    Part,
    ShardEntry,
    part_prefix,
    read_shard_list,
    read_store_file,
)
from mmpt.utils.errors import DataError
from mmpt.utils.files import write_json
from mmpt.utils.shardedtensor import ShardedTensor, ShardedTensorWriter

__all__ = ["VIDEOS_PER_SHARD", "VideoShardsWriter"]

VIDEOS_PER_SHARD = 4096

_NAME = "shard_"


class VideoShardsWriter:
    """Add videos to a store; what is there already stays, and a video that is added again replaces the earlier one.

    Args:
        layout: of the kind of store.
        folder: of the store; made if absent. The caller sees to it that nobody else writes there
            (:func:`mmpt.utils.files.sole_writer`).
        parts: which of the layout's a shard gets.
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
        layout: Layout,
        folder: str | os.PathLike[str],
        parts: Iterable[str],
        producer: Mapping[str, Any],
        videos_per_shard: int,
        on_commit: Callable[[list[str]], None] | None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if videos_per_shard < 1:
            raise DataError(f"{folder}: a shard holds at least 1 video, not {videos_per_shard}")
        self.layout, self.folder, self.videos_per_shard = layout, Path(folder), videos_per_shard
        self.parts = sorted(parts)
        self.producer = {"mmpt": mmpt.__version__, **producer}
        self.on_commit = on_commit
        self.shards = read_shard_list(folder, layout)
        stored = read_store_file(folder, layout)
        #: What else the commit file holds.
        self.extra = {key: value for key, value in stored.items() if key not in ("version", "shards")}
        if settings is not None:
            self._keep_settings(json.loads(json.dumps(settings)))
        #: The ids in the complete shards, each with the name of its shard.
        self.stored: dict[str, str] = {}
        for shard in self.shards:
            ids = ShardedTensor.load(part_prefix(folder, shard.name), mmap_mode=None).ids or []
            self.stored.update(dict.fromkeys(ids, shard.name))
            for video_id in shard.removed:
                self.stored.pop(video_id, None)
        self._remove_leftovers()
        self._stack = ExitStack()
        self._open: dict[str, ShardedTensorWriter] = {}
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

    def put(self, video_id: str, rows: np.ndarray, parts: Mapping[str, Iterable[np.ndarray]]) -> None:
        """Add a video whose content was checked: its rows, and the items of each part.

        Raises:
            DataError: if the shard being written has a video of that id.
        """
        if not self._open:
            self._open_shard()
        self._open[VIDEOS].append(rows, video_id)
        for name in self.parts:
            for item in parts[name]:
                self._open[name].append(item)
        self._ids.append(video_id)
        if len(self._ids) >= self.videos_per_shard:
            self.close_shard()

    def close_shard(self) -> None:
        """Make the videos added so far readable."""
        if not self._open:
            return
        for part in self.parts:
            self._open[VIDEOS].producer[f"{part}_generation"] = self._open[part].generation
        self._stack.close()  # the parts first, then the videos that refer to them
        name = self._next_name()
        self.shards.append(ShardEntry(name, len(self._ids)))
        self.stored.update(dict.fromkeys(self._ids, name))
        written, self._ids = self._ids, []
        self._open = {}
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
        """Write the commit file: from now on readers see the shards that it names."""
        shards = [
            {"name": shard.name, "videos": shard.videos, **({"removed": shard.removed} if shard.removed else {})}
            for shard in self.shards
        ]
        write_json(self.folder / self.layout.file, {**self.extra, "version": STORE_VERSION, "shards": shards})

    def _keep_settings(self, settings: dict[str, Any]) -> None:
        """Note the settings of an empty store; refuse others than those of one that holds videos."""
        held = self.extra.get("settings")
        there = held if isinstance(held, dict) else {}
        differing = [key for key in {**there, **settings} if there.get(key) != settings.get(key)]
        if self.shards and differing:
            told = "; ".join(f"{key} {there.get(key)!r}, now {settings.get(key)!r}" for key in differing)
            raise DataError(
                f"{self.folder}: what it holds was made with other settings ({told}). Use another folder, or remove"
                " this one"
            )
        self.extra["settings"] = settings

    def _next_name(self) -> str:
        last = max((int(shard.name.removeprefix(_NAME)) for shard in self.shards), default=-1)
        return f"{_NAME}{last + 1:05d}"

    def _open_shard(self) -> None:
        name = self._next_name()
        self._open[VIDEOS] = self._writer(name, VIDEOS, self.layout.videos)
        for part in self.parts:
            self._open[part] = self._writer(name, part, self.layout.parts[part])

    def _writer(self, name: str, part: str, kind: Part) -> ShardedTensorWriter:
        prefix = part_prefix(self.folder, name, part)
        return self._stack.enter_context(ShardedTensorWriter(prefix, kind.dtype, kind.row_shape, self.producer))

    def _remove_leftovers(self) -> None:
        """Remove the files of shards that the commit file does not name: of killed runs, or no longer of use."""
        named = {shard.name for shard in self.shards}
        kinds = "|".join([VIDEOS, *self.layout.parts])
        # also what a killed writer leaves under a temporary name
        of_shard = re.compile(rf"\.?({_NAME}\d+)\.(?:{kinds})_(?:data|starts|ids|index)\.(?:npy|json)(?:\..*)?")
        for file in self.folder.glob(f"*{_NAME}*") if self.folder.is_dir() else ():
            found = of_shard.fullmatch(file.name)
            if found is not None and found[1] not in named:
                file.unlink(missing_ok=True)
