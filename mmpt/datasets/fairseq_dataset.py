"""fairseq's view of an :class:`MMDataset`."""

from typing import Any

import numpy as np
from fairseq.data import FairseqDataset

from mmpt.datasets.mmdataset import PADDING_STEP, MMDataset

__all__ = ["FairseqMMDataset"]


class FairseqMMDataset(FairseqDataset):
    """Wrap a dataset; items of the train split are shuffled anew each epoch.

    The order depends on (seed, epoch) alone. Copies of one list (``dataset.dup``) are shuffled each
    on its own, so that a batch rarely holds a video twice: it would be its own negative.
    """

    def __init__(self, dataset: MMDataset) -> None:
        super().__init__()
        self.dataset = dataset
        self.epoch = 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.dataset[int(index)]

    def __len__(self) -> int:
        return len(self.dataset)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that items and order depend on."""
        self.epoch = epoch
        self.dataset.set_epoch(epoch)

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        """False: order, and with retrieved batches length, change with the epoch."""
        return False

    def collater(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch; of nothing, the first item with the mark :data:`PADDING_STEP`.

        fairseq asks for that on workers that have one batch less than the others. Of an empty batch it would make a
        repeated one, let that take part in the losses of the other workers, and forget the batches which this worker
        had before it in the same update (``--update-freq``).
        """
        if not samples:
            return {**self.dataset.collater([self.dataset[0]]), PADDING_STEP: True}
        return self.dataset.collater(samples)

    def ordered_indices(self) -> np.ndarray:
        """Return the order of this epoch, int64 (items,)."""
        return self.dataset.order()

    def batch_by_size(
        self,
        indices: np.ndarray,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[np.ndarray]:
        """Cut the order into batches of ``max_sentences`` items; the last one may be smaller.

        A dataset of several tasks makes its batches itself: each is of one task, in the size of that.

        fairseq's own way leaves out up to seven items at the end of every epoch under its default
        ``--required-batch-size-multiple 8``, which is about sentences of different lengths.
        """
        made = self.dataset.epoch_batches()
        if made is not None:
            return made
        size = max_sentences or len(indices)
        return [indices[start : start + size] for start in range(0, len(indices), size)]

    def num_tokens(self, index: int) -> int:
        """Return 1: batches are counted in items."""
        return 1

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        """Return ones: batches are counted in items."""
        return np.ones(len(indices), dtype=np.int64)

    def size(self, index: int) -> int:
        """Return 1: batches are counted in items."""
        return 1
