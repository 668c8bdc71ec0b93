"""Several datasets as one, in batches of one of them each: multi-task training (LAVENDER, arXiv:2206.07160)."""

import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from mmpt.datasets.mmdataset import MMDataset
from mmpt.processors.base import MetaProcessor
from mmpt.utils.seeds import item_generator

__all__ = ["MEMBER", "Member", "MemberDatasets", "member_seed"]

#: Key of a batch: the name of the member that it is of, once per item.
MEMBER = "member"
#: Index of the generator that draws the members of an epoch's batches: no dataset item has it.
_DRAW_STREAM = 2**31 - 3


class Member(NamedTuple):
    """One of the datasets, and how many of its items make a batch."""

    dataset: MMDataset
    batch_size: int


class _AllItems(MetaProcessor):
    """The items of all members, one after another."""

    def __init__(self, datasets: Mapping[str, MMDataset]) -> None:
        self.parts = [dataset.meta_processor for dataset in datasets.values()]
        self.split = next(iter(datasets.values())).split

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        for part in self.parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(index)


class MemberDatasets(MMDataset):
    """The items of all members one after another, each with the name of its member under :data:`MEMBER`.

    In training, an epoch has as many batches as all members together, and each is of a member that is drawn
    uniformly: small members are passed over several times in it, large ones in part. The items of a later pass have
    randomness of their own (frames, masked words). Everything depends on (seed, epoch) and the items alone. The other
    splits have every item once, member by member.

    Args:
        members: name to dataset, all of one split, and batch size.
        seed: of the draws.
    """

    def __init__(self, members: Mapping[str, Member], seed: int) -> None:
        super().__init__(_AllItems({name: member.dataset for name, member in members.items()}), None, None, None, seed)
        self.members = dict(members)
        self.names = list(members)
        self.starts = np.cumsum([0, *(len(member.dataset) for member in members.values())])

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose randomness the next items have (train split only)."""
        super().set_epoch(epoch)
        for member in self.members.values():
            member.dataset.set_epoch(epoch)

    def item(self, index: int, passed: int = 0) -> dict[str, Any]:
        """Return an item; an index beyond the last one goes on at the first, in the next pass over all of them."""
        passes, place = divmod(int(index), len(self))
        number = int(np.searchsorted(self.starts, place, side="right")) - 1
        dataset = self.members[self.names[number]].dataset
        return {
            **dataset.item(place - int(self.starts[number]), passed + passes),
            MEMBER: self.names[number],
        }

    def epoch_batches(self) -> list[np.ndarray]:
        """Return the batches of this epoch, each of one member: indices int64, as :meth:`item` takes them."""
        counts = [math.ceil(len(member.dataset) / member.batch_size) for member in self.members.values()]
        if self.split == "train":
            rng = item_generator(self.seed, self.epoch, _DRAW_STREAM)
            drawn = rng.integers(len(counts), size=sum(counts)).tolist()
        else:
            drawn = [number for number, count in enumerate(counts) for _ in range(count)]
        streams = [self._stream(number) for number in range(len(counts))]
        return [next(streams[number]) for number in drawn]

    def _stream(self, number: int) -> Iterator[np.ndarray]:
        """Yield the batches of a member in one pass over it after another, without end."""
        dataset, size = self.members[self.names[number]]
        passed = 0
        while True:
            order = dataset.order(passed) + self.starts[number] + passed * len(self)
            yield from (order[start : start + size] for start in range(0, len(order), size))
            passed += 1


def member_seed(seed: int, name: str) -> int:
    """Return the seed of a member's dataset: items of equal number in two members share no randomness."""
    return seed << 32 | zlib.crc32(name.encode())
