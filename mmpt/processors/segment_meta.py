"""Records of segments of videos: which there are in a split, and of how many segments (MERLOT, MERLOT Reserve)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmpt.processors.annotations import SkipReport
from mmpt.processors.base import MetaProcessor, SplitOptions, read_id_list
from mmpt.processors.segment_base import Piece, Record, SegmentOptions, open_store
from mmpt.processors.segment_packing import pack_segments
from mmpt.store.group_names import videos_of
from mmpt.store.segment_store import SegmentStore
from mmpt.utils.errors import ConfigError
from mmpt.utils.files import resolve_path
from mmpt.utils.options import read_options

__all__ = [
    "MERLOTMetaOptions",
    "MERLOTMetaProcessor",
    "ReserveMetaOptions",
    "ReserveMetaProcessor",
    "SegmentMetaOptions",
    "SegmentMetaProcessor",
]


@dataclass
class SegmentMetaOptions(SplitOptions, SegmentOptions):
    """Which videos: ``max_missing`` is the share of those listed that the store may lack."""

    max_missing: float = 0.1


@dataclass
class MERLOTMetaOptions(SegmentMetaOptions):
    """Sizes of a record of MERLOT (section 3.2).

    Attributes:
        num_chunks: segments of a record.
        chunks_in_group: of these, how many the joint encoder sees together.
    """

    num_chunks: int = 16
    chunks_in_group: int = 4


@dataclass
class ReserveMetaOptions(SegmentMetaOptions):
    """Sizes of a record of MERLOT Reserve (section 3.2).

    Attributes:
        num_segments: segments of a record.
        num_segment_groups: how many groups they are, each of which the joint encoder sees together.
    """

    num_segments: int = 16
    num_segment_groups: int = 2


class SegmentMetaProcessor(MetaProcessor):
    """List the records of a split: ``train_path``, ``val_path`` and ``test_path`` are lists of video ids.

    Without ``train_path``, training has all videos of the store but those that ``val_holdout`` holds out. Without
    ``val_path``, validation has these, of the videos that training would have.

    Items are ``(Record, Record)``. Every segment of every listed video is in a record, and but for the last record
    in one alone. Subclasses say how long records and groups are.

    Attributes:
        video_ids: of the videos that are used, in the order of the list.
        skipped: how many of those listed are not, by reason.

    Raises:
        ConfigError: if a needed key is not set, or the sizes are none.
        DataError: if there is no store, or more than ``max_missing`` of the videos are not in it.
    """

    config_options: ClassVar[dict[str, type]] = {"dataset": SegmentMetaOptions}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.length, group = self.sizes(config)
        store, options = open_store(config), read_options(config, SegmentMetaOptions)
        source, ids = self._listed(store, options)
        self._path = str(source)  # for errors: the key may not be set
        keep = self.in_split(videos_of(ids, store.producer()))  # the groups of a video stay together
        ids = [name for name, kept in zip(ids, keep, strict=True) if kept]
        places = {name: place for place, name in enumerate(store.ids)}
        found = np.fromiter((places.get(name, -1) for name in ids), np.int64, len(ids))
        lengths = np.where(found >= 0, store.lengths()[found], 0)
        report = SkipReport(source, options.max_missing, what="videos")
        for number in np.flatnonzero(found < 0).tolist():
            report.add("not in the segment store", ids[number])
        report.close(len(ids))
        self.skipped = report.counts
        self.video_ids = [name for name, place in zip(ids, found.tolist(), strict=True) if place >= 0]
        self._runs = pack_segments(lengths[found >= 0], self.length, group)

    def _listed(self, store: SegmentStore, options: SegmentMetaOptions) -> tuple[Path, list[str]]:
        """Return the videos to choose the split's from, each once, and where they are listed."""
        held_out = self.split == "valid" and not self._path and self.val_holdout > 0
        key = "train_path" if held_out else self.path_key
        listed = getattr(options, key)
        if not listed and key == "train_path":
            return store.path, list(store.ids)
        path = resolve_path(listed) if held_out else self.path
        return path, list(dict.fromkeys(read_id_list(path, key)))

    def sizes(self, config: Any) -> tuple[int, int]:
        """Return how many segments a record and a group have; ConfigError if these cannot be."""
        raise TypeError(f"{type(self).__name__} does not say how long records are")

    def __len__(self) -> int:
        return self._runs.records(self.length)

    def __getitem__(self, index: int) -> tuple[Record, Record]:
        runs = self._runs.record(index, self.length)
        record = Record(Piece(self.video_ids[video], first, count) for video, first, count in runs)
        return record, record


class MERLOTMetaProcessor(SegmentMetaProcessor):
    """Records of ``num_chunks`` in groups of ``chunks_in_group``."""

    config_options: ClassVar[dict[str, type]] = {"dataset": MERLOTMetaOptions}

    def sizes(self, config: Any) -> tuple[int, int]:
        """Return how many segments a record and a group have."""
        options = read_options(config, MERLOTMetaOptions)
        length, group = options.num_chunks, options.chunks_in_group
        if group < 1 or length < 1 or length % group:
            raise ConfigError(f"dataset.num_chunks: {length} is no multiple of dataset.chunks_in_group: {group}")
        return length, group


class ReserveMetaProcessor(SegmentMetaProcessor):
    """Records of ``num_segments`` in ``num_segment_groups`` groups."""

    config_options: ClassVar[dict[str, type]] = {"dataset": ReserveMetaOptions}

    def sizes(self, config: Any) -> tuple[int, int]:
        """Return how many segments a record and a group have."""
        options = read_options(config, ReserveMetaOptions)
        length, groups = options.num_segments, options.num_segment_groups
        if groups < 1 or length < 1 or length % groups:
            raise ConfigError(f"dataset.num_segments: {length} is no multiple of dataset.num_segment_groups: {groups}")
        return length, length // groups
