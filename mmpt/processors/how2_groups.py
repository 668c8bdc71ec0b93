"""The usable videos of a HowTo100M-style corpus in groups; one by one: :mod:`mmpt.processors.how2_meta`."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mmpt.processors.how2_meta import How2MetaProcessor, How2Options, ShardedHow2MetaProcessor
from mmpt.utils.collection import uncollected
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.name_index import NameIndex
from mmpt.utils.options import read_options

__all__ = ["GroupOptions", "How2VideoRetriMetaProcessor", "ShardedHow2VideoRetriMetaProcessor"]

_EXAMPLES = 3


@dataclass
class GroupOptions(How2Options):
    """``num_video_per_batch`` videos make an item."""

    num_video_per_batch: int = 32


class _VideoGroups(How2MetaProcessor):
    """Items are groups of videos (a list, twice); at first runs of ``num_video_per_batch`` in the order of the list.

    ``video_ids`` are all videos. The last group may be shorter, and there is always at least one.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        size = read_options(config, GroupOptions).num_video_per_batch
        if size < 1:
            raise ConfigError(f"dataset.num_video_per_batch: {size} is not at least 1")
        count = len(self.video_ids)
        runs = [range(i, min(i + size, count)) for i in range(0, count, size)]
        #: The numbers of the videos of each group; ``data`` are their ids.
        self._groups: list[Sequence[int]] = list(runs)
        with uncollected():
            self.data: list[Any] = [self.video_ids[group.start : group.stop] for group in runs]

    @functools.cached_property
    def _index(self) -> NameIndex:
        return NameIndex(self.video_ids)

    def set_candidates(self, candidates: Sequence[Sequence[str]]) -> None:
        """Replace the groups, as after each round of retrieval; their number may change.

        Raises:
            DataError: if there is no group, one is empty, or a video is not of this split.
        """
        groups = [list(group) for group in candidates]
        if not groups or not all(groups):
            raise DataError(f"{self.path}: retrieval gave {'an empty group' if groups else 'no groups'} of videos")
        names = list(itertools.chain.from_iterable(groups))
        numbers = self._index.find(names)
        if unknown := sorted(set(itertools.compress(names, numbers < 0))):
            raise DataError(f"{self.path}: groups name videos that are not listed: {', '.join(unknown[:_EXAMPLES])}")
        ends = itertools.accumulate(map(len, groups))
        self._groups = [numbers[end - len(group) : end].tolist() for end, group in zip(ends, groups, strict=True)]
        self.data = groups

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        group = [self._item(number, -1) for number in self._groups[index]]
        return group, group


class How2VideoRetriMetaProcessor(_VideoGroups):
    """Groups of ids."""

    config_options: ClassVar[dict[str, type]] = {"dataset": GroupOptions}


class ShardedHow2VideoRetriMetaProcessor(_VideoGroups, ShardedHow2MetaProcessor):
    """Groups of ``(id, -1, shard, index in the shard)``."""

    config_options: ClassVar[dict[str, type]] = {"dataset": GroupOptions}
