"""fairseq's iterator over the batches of an epoch, with what exact resumption needs."""

import logging
from collections.abc import Iterator
from typing import Any

from fairseq.data import EpochBatchIterator

__all__ = ["EpochBatches"]

logger = logging.getLogger(__name__)


class EpochBatches(EpochBatchIterator):
    """fairseq's iterator, which also

    * lets the data workers of an epoch leave with its last batch. fairseq keeps them for a next epoch, for which it
      makes a new loader, and never asks a loader for its end. The garbage collector finds the workers later, when
      their queues are closed already, and waits five seconds for each.
    * resumes at the same place of the epoch with another number of processes or another ``--update-freq``, where
      fairseq would count the batches of each process as if nothing had changed, and repeat or skip some.

    Args:
        batches: the iterator that fairseq has made.
        group: how many batches of a process make one update (``--update-freq``).
    """

    def __init__(self, batches: EpochBatchIterator, group: int = 1) -> None:
        # Not super().__init__(): this is that iterator, in the state that fairseq has made it.
        self.__dict__.update(batches.__dict__)
        self.persistent_workers = False
        self.group = group

    def next_epoch_itr(self, *args: Any, **kwargs: Any) -> Any:
        """Return the iterator over this process' batches of the epoch, or over what is left of them."""
        iterator = super().next_epoch_itr(*args, **kwargs)
        iterator._itr = _to_the_end(iterator._itr, iterator.total - iterator.n)
        return iterator

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds: fairseq's state, and what the position in the epoch is counted in."""
        return {**super().state_dict(), "processes": self.num_shards, "batches": len(self.frozen_batches)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to the position of a checkpoint, of whatever number of processes."""
        done = state_dict.get("iterations_in_epoch", 0)
        if done:
            state_dict = {**state_dict, "iterations_in_epoch": self._position(done, state_dict)}
        super().load_state_dict(state_dict)

    def _position(self, done: int, state: dict[str, Any]) -> int:
        """Return the batches of each process now that ``done`` batches of each process were then."""
        processes, total = int(state.get("processes") or self.num_shards), len(self.frozen_batches)
        if state.get("batches", total) != total:
            logger.warning(
                "epoch %d had %d batches when the checkpoint was saved and has %d now: the data or the batch size has "
                "changed. The rest of this epoch may repeat or leave out items",
                state["epoch"], state["batches"], total,
            )  # fmt: skip
        whole = done * processes
        position = whole // self.num_shards
        position -= position % self.group
        repeated = whole - position * self.num_shards
        if processes != self.num_shards or repeated:
            logger.warning(
                "resuming with %d process(es) in the middle of an epoch of %d process(es): after %d of its %d batches, "
                "%d of which are trained on again",
                self.num_shards, processes, whole, total, repeated,
            )  # fmt: skip
        return position


def _to_the_end(source: Iterator[Any], count: int) -> Iterator[Any]:
    """Yield the ``count`` items of a source; with the last one, see the source end."""
    for number in range(count):
        item = next(source)
        if number + 1 == count:
            next(source, None)
        yield item
