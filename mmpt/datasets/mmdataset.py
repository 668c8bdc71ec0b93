"""MMDataset: a meta, video and text processor and an aligner, put together."""

import functools
import itertools
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate, get_worker_info

from mmpt.processors.base import UnusableItemError
from mmpt.utils.distributed import world
from mmpt.utils.errors import DataError
from mmpt.utils.seeds import DEFAULT_SEED, item_generator
from mmpt.utils.signals import overlook_first

__all__ = ["PADDING_STEP", "MMDataset"]

logger = logging.getLogger(__name__)

#: Key of a batch that is not to count: the worker has none left in a step that others still have one for.
PADDING_STEP = "padding_step"
#: Index of the generator of an epoch's order, and of its further passes from the second on: no item has it.
_ORDER_STREAM, _PASS_STREAM = 2**31 - 2, 2**31
_MAX_SKIPPED = 0.1
_ALWAYS_ALLOWED = 3  # in each process, where a tenth of all items is as many


class MMDataset(Dataset[dict[str, Any]]):
    """One item per index: what the aligner makes of a video and its text, plus ``idx``.

    An item of the train split depends on (seed, epoch, index) alone, whatever the number of workers; items of
    the other splits are the same in every epoch. Global random states are neither read nor set.

    Args:
        meta_processor: ``len`` and ``[i] -> (video_id, text_id)``, and ``split``.
        video_processor: ``(video_id) -> features``.
        text_processor: ``(text_id, rng=..) -> token ids``.
        aligner: ``(video_id, features, token ids, rng=..) -> dict``.
    """

    def __init__(
        self, meta_processor: Any, video_processor: Any, text_processor: Any, aligner: Any, seed: int = DEFAULT_SEED
    ) -> None:
        self.meta_processor = meta_processor
        self.video_processor = video_processor
        self.text_processor = text_processor
        self.aligner = aligner
        self.seed = seed
        self.epoch = 0
        self.split: str = meta_processor.split
        self.unusable: set[int] = set()
        self._ranks = 1

    def __len__(self) -> int:
        return len(self.meta_processor)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose randomness the next items have (train split only)."""
        self.epoch = epoch
        self.unusable = set()  # groups of videos may be others in each epoch
        self._ranks = world()[1]  # told to the workers here: spawned ones cannot ask

    def order(self, passed: int = 0) -> np.ndarray:
        """Return the order of the items in this epoch, int64 (items,): shuffled in training, else as they are.

        It depends on (seed, epoch) and how often the epoch has ``passed`` over all items before. Copies of one list
        (``dup`` of the meta processor) are shuffled each on its own.
        """
        total = len(self)
        if self.split != "train":
            return np.arange(total, dtype=np.int64)
        copies = self.meta_processor.dup
        rng = item_generator(self.seed, self.epoch, _PASS_STREAM + passed if passed else _ORDER_STREAM)
        size = total // copies
        return np.concatenate([copy * size + rng.permutation(size) for copy in range(copies)]).astype(np.int64)

    def epoch_batches(self) -> list[np.ndarray] | None:
        """Return the batches of this epoch where the dataset itself makes them; None: they are cut from its order."""
        return None

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return an item, as :meth:`item`."""
        return self.item(index)

    def item(self, index: int, passed: int = 0) -> dict[str, Any]:
        """Return an item, with the randomness of the epoch's first pass over the data or of a later one.

        Outside the test split, an item that turns out to be unusable is counted (``unusable``) and the next
        usable one takes its place. Each process counts what it has met itself since the epoch began, and allows a
        tenth of its share of the items: of all items divided by data workers and ranks. Over all processes the
        limit therefore holds approximately.

        Raises:
            DataError: if an item is damaged, or more than a tenth of this process' share of the items are unusable
                (one is always allowed, and up to three where that is no more than a tenth of all items).
        """
        _stay_with_the_training(os.getpid())
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of a dataset of {len(self)}")
        for source in itertools.chain(range(index, len(self)), range(index)):
            if source in self.unusable:
                continue
            try:
                return {**self._build(source, index + passed * len(self)), "idx": index}
            except UnusableItemError as error:
                if self.split == "test":
                    raise
                self._skip(source, error)
        raise DataError(f"no item of the {self.split} split is usable")

    def _build(self, source: int, draw: int) -> dict[str, Any]:
        rng = item_generator(self.seed, self.epoch if self.split == "train" else 0, draw)
        video_id, text_id = self.meta_processor[source]
        video_feature = self.video_processor(video_id)
        text_feature = self.text_processor(text_id, rng=rng)
        return self.aligner(video_id, video_feature, text_feature, rng=rng)

    def _skip(self, source: int, error: UnusableItemError) -> None:
        self.unusable.add(source)
        worker = get_worker_info()
        processes = self._ranks * (worker.num_workers if worker else 1)
        allowed = _MAX_SKIPPED * len(self)
        if len(self.unusable) > max(1.0, min(_ALWAYS_ALLOWED, allowed), allowed / processes):
            share = f", in one of {processes} processes" if processes > 1 else ""
            raise DataError(
                f"{len(self.unusable)} of the {len(self)} items of the {self.split} split met so far are unusable"
                f"{share}; the last: {error}"
            ) from error
        logger.warning("item %d left out (%d so far): %s", source, len(self.unusable), error)

    @staticmethod
    def collater(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Stack items key by key: tensors and numbers to ``(batch, ..)`` tensors; the rest as default_collate does.

        Strings, and lists of strings, become a list with one element per item. Keys that are None are dropped. A
        batch of one item shares its memory.

        Raises:
            DataError: if items differ in keys or shapes; names the key and the videos.
        """
        batch: dict[str, Any] = {}
        for key, value in samples[0].items():
            if value is None:
                continue
            try:
                values = [sample[key] for sample in samples]
                if isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value)):
                    batch[key] = values
                elif len(values) == 1 and isinstance(value, torch.Tensor):
                    batch[key] = value.unsqueeze(0)
                else:
                    batch[key] = default_collate(values)
            except (KeyError, RuntimeError, TypeError) as error:
                shapes = {str(s.get("video_id")): getattr(s.get(key), "shape", type(s.get(key))) for s in samples}
                raise DataError(f"items of one batch do not stack, key {key!r}: {shapes}: {error}") from error
        return batch


@functools.cache
def _stay_with_the_training(process: int) -> None:
    """Let a data worker overlook the signal by which a cluster asks a whole job to leave; once in each process.

    The training still saves upon it, and would fail if a data worker were gone.
    """
    if get_worker_info() is not None:
        overlook_first()
