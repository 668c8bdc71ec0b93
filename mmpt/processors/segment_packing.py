"""Which segments of which videos make a record (MERLOT, section 3; MERLOT Reserve, section 3): pure arithmetic.

A record has N segments in groups, each of which is one sequence to a joint encoder. Long videos fill whole records;
what is left of them, and short videos, fill groups, then parts of groups, so that a group holds one video wherever
lengths allow it. Nothing is listed segment by segment: a million videos are a few arrays.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

__all__ = ["Run", "Runs", "pack", "pack_segments"]


class Run(NamedTuple):
    """Consecutive segments of one video: ``length`` of video number ``video``, from segment ``first`` on."""

    video: int
    first: int
    length: int


class Runs:
    """All segments of a set of videos as one sequence, in runs, and records as parts of it.

    Args:
        videos: int64 (runs,), the number of each run's video.
        firsts: int64 (runs,), its first segment.
        counts: int64 (runs,), how many, 1 or more.
    """

    def __init__(self, videos: np.ndarray, firsts: np.ndarray, counts: np.ndarray) -> None:
        self.videos, self.firsts, self.counts = videos, firsts, counts
        self._ends = np.cumsum(counts)

    @property
    def segments(self) -> int:
        """How many segments there are."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def records(self, length: int) -> int:
        """Return how many records of ``length`` segments hold all of them; the last may begin again from the first."""
        return -(-self.segments // length)

    def record(self, index: int, length: int) -> list[Run]:
        """Return the runs of record ``index``, ``length`` segments together."""
        place, found = index * length, list[Run]()
        while length:
            place %= self.segments
            number = int(np.searchsorted(self._ends, place, side="right"))
            offset = place - int(self._ends[number] - self.counts[number])
            count = min(int(self.counts[number]) - offset, length)
            run = Run(int(self.videos[number]), int(self.firsts[number]) + offset, count)
            last = found[-1] if found else None
            if last is not None and (last.video, last.first + last.length) == (run.video, run.first):
                found[-1] = last._replace(length=last.length + count)
            else:
                found.append(run)
            place, length = place + count, length - count
        return found


def pack_segments(lengths: np.ndarray, record: int, group: int) -> Runs:
    """Order all segments of videos so that cutting them into records and groups splits few videos.

    Args:
        lengths: int64 (videos,), segments of each video; 0 is left out.
        record: segments of a record (N).
        group: segments of a group, a divisor of N.

    Returns:
        First whole records of one video, then whole groups of one, then the groups of several: every segment once.
    """
    lengths = np.asarray(lengths, np.int64)
    whole = lengths // record * record
    groups = (lengths - whole) // group
    rest = lengths - whole - groups * group
    few, small = np.flatnonzero(groups), np.flatnonzero(rest)
    few, small = few[pack(groups[few], record // group)], small[pack(rest[small], group)]
    long = np.flatnonzero(whole)
    return Runs(
        np.concatenate([long, few, small]),
        np.concatenate([np.zeros(len(long), np.int64), whole[few], (whole + groups * group)[small]]),
        np.concatenate([whole[long], groups[few] * group, rest[small]]),
    )


def pack(sizes: np.ndarray, capacity: int) -> np.ndarray:
    """Return an order of pieces such that, laid end to end and cut every ``capacity``, few of them are cut.

    Boxes that can be filled exactly come first, each beginning with the largest piece that is left. Pieces that no
    others complete come last, and are cut.

    Args:
        sizes: int64 (pieces,), each 1 to ``capacity - 1``.
        capacity: of a box.

    Returns:
        int64 (pieces,), the numbers of all pieces.
    """
    queues = {size: np.flatnonzero(sizes == size) for size in range(1, capacity)}
    boxes, uncompleted = list[np.ndarray](), list[np.ndarray]()
    for size in range(capacity - 1, 0, -1):
        while len(queues[size]):
            counts = {one: len(queue) for one, queue in queues.items()}
            filling = _filling(capacity, size, counts, least=1)
            if filling is None:
                uncompleted.append(queues[size])
                queues[size] = queues[size][:0]
                break
            times = min(counts[one] // number for one, number in filling.items())
            columns = []
            for one, number in filling.items():
                columns.append(queues[one][: times * number].reshape(times, number))
                queues[one] = queues[one][times * number :]
            boxes.append(np.concatenate(columns, axis=1).ravel())
    return np.concatenate([np.zeros(0, np.int64), *boxes, *uncompleted])


def _filling(room: int, size: int, counts: Mapping[int, int], least: int = 0) -> dict[int, int] | None:
    """Return how many pieces of each size up to ``size`` fill ``room`` exactly, large ones first; None: none do."""
    if room == 0 and not least:
        return {}
    if size == 0:
        return None
    for number in range(min(counts[size], room // size), least - 1, -1):
        rest = _filling(room - number * size, size - 1, counts)
        if rest is not None:
            return {size: number, **rest} if number else rest
    return None
