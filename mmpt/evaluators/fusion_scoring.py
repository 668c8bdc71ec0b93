"""Scores of pairs of a video and a text that a model fuses: which pairs there are, in which blocks, and how they batch.

Shapes: N texts, V videos, K candidates of a text, P pairs. Texts and videos are counted from 0 in their order in the
test set.
"""

import itertools
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mmpt.evaluators.base import save_arrays
from mmpt.evaluators.fusion_states import StateStore
from mmpt.utils.errors import DataError
from mmpt.utils.npy import read_npy

__all__ = ["Block", "FinishedBlocks", "PairPlan", "score_block"]

logger = logging.getLogger(__name__)

IntArray = npt.NDArray[np.int64]

#: Batches of pairs that a block holds at least, where one video has fewer texts.
_BATCHES = 8


class Block(NamedTuple):
    """The pairs of the videos from ``first`` to before ``stop``: what is scored in one go and then kept."""

    first: int
    stop: int


@dataclass(frozen=True)
class PairPlan:
    """Which pairs of a test set are fused. It depends on the test set and the options alone, not on the processes.

    Attributes:
        texts: their number, N.
        batch_of: number of the batch that each video belongs to, ascending (V,); no block holds videos of two.
        pairs_per_batch: pairs that the model fuses at a time.
        candidates: the videos that each text is fused with, int64 (N, K); None: all.
    """

    texts: int
    batch_of: Sequence[int]
    pairs_per_batch: int
    candidates: IntArray | None = None
    _by_video: list[IntArray] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.candidates is None:
            by_video = [np.arange(self.texts, dtype=np.int64)] * len(self.batch_of)
        else:
            flat = self.candidates.reshape(-1)
            order = np.argsort(flat, kind="stable") // self.candidates.shape[1]
            by_video = np.split(order, np.searchsorted(np.sort(flat), np.arange(1, len(self.batch_of))))
        object.__setattr__(self, "_by_video", by_video)

    def pairs_of(self, block: Block) -> tuple[IntArray, IntArray]:
        """Return texts and videos of the pairs of a block, int64 (P,) each: one video after another."""
        texts = self._by_video[block.first : block.stop]
        videos = np.repeat(np.arange(block.first, block.stop), [len(one) for one in texts])
        return np.concatenate(texts), videos

    def pairs_in(self, block: Block) -> int:
        """Return the number of pairs of a block."""
        return sum(len(one) for one in self._by_video[block.first : block.stop])

    def blocks(self) -> list[Block]:
        """Return the blocks that have pairs, in order."""
        counts = [len(one) for one in self._by_video]
        blocks = []
        for _, group in itertools.groupby(range(len(counts)), key=lambda video: self.batch_of[video]):
            videos = list(group)
            first, pairs = videos[0], 0
            for video in videos:
                pairs += counts[video]
                if pairs >= _BATCHES * self.pairs_per_batch or video == videos[-1]:
                    blocks += [Block(first, video + 1)] if pairs else []
                    first, pairs = video + 1, 0
        return blocks


def score_block(
    model: nn.Module,
    texts: StateStore,
    videos: StateStore,
    place: Mapping[int, int],
    pairs: tuple[IntArray, IntArray],
    pairs_per_batch: int,
    device: torch.device,
    advance: Callable[[int], Any],
    told: Callable[[int, int], str],
) -> npt.NDArray[np.float32]:
    """Return ``model.score_aligned`` of the pairs, float32 (P,).

    Nothing is padded: pairs whose states differ in length are scored apart.

    Args:
        place: where in ``videos`` a video is.
        advance: is told after each batch how many pairs it had.
        told: says which text and video two numbers mean.

    Raises:
        DataError: if a score is not finite; names text and video.
    """
    scores = np.empty(len(pairs[0]), dtype=np.float32)
    lengths = [(videos.lengths[place[int(video)]], texts.lengths[text]) for text, video in zip(*pairs, strict=True)]
    for rows in _batches(lengths, pairs_per_batch):
        video = videos.get([place[int(number)] for number in pairs[1][rows]], device)
        text = texts.get(pairs[0][rows].tolist(), device)
        scored = model.score_aligned(text, video).float().cpu().numpy()  # type: ignore[operator]
        bad = np.flatnonzero(~np.isfinite(scored))
        if len(bad):
            which = rows[bad[0]]
            raise DataError(
                f"{len(bad)} of {len(rows)} scores of a batch are not finite (first: "
                f"{told(int(pairs[0][which]), int(pairs[1][which]))}); the model or its data are damaged, ranks would "
                "mean nothing: test another checkpoint, or extract the frames of this video again"
            )
        scores[rows] = scored
        advance(len(rows))
    return scores


def _batches(lengths: Sequence[tuple[int, int]], size: int) -> Iterator[IntArray]:
    """Yield the rows of each batch: up to ``size`` of the same lengths, in their order."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    for _, group in itertools.groupby(order, key=lambda row: lengths[row]):
        rows = np.array(list(group), dtype=np.int64)
        yield from (rows[start : start + size] for start in range(0, len(rows), size))


class FinishedBlocks:
    """The scores of finished blocks, so that a test that was killed goes on where it was.

    One file for each, ``scores-<fingerprint>-<first>-<stop>.npy``, float32 (P,). Files of another fingerprint (other
    weights, other data, other options) count for nothing.

    Args:
        folder: where they are; need not exist.
        fingerprint: hash of everything that scores depend on.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.prefix = f"scores-{fingerprint[:24]}-"

    def load(self, block: Block, count: int) -> npt.NDArray[np.float32] | None:
        """Return the scores of a block of ``count`` pairs; None if it is not finished, or its file is damaged."""
        path = self._path(block)
        if not path.is_file():
            return None
        try:
            scores = read_npy(path, mmap_mode=None, exact=True)
        except DataError as error:
            logger.warning("%s; its pairs are scored again", error)
            return None
        if scores.shape != (count,) or scores.dtype != np.float32:
            logger.warning("%s: holds %s of shape %s; its pairs are scored again", path, scores.dtype, scores.shape)
            return None
        return scores

    def save(self, block: Block, scores: npt.NDArray[np.float32]) -> None:
        """Keep the scores of a block."""
        save_arrays(self._path(block), scores=scores)

    def drop_others(self) -> None:
        """Remove what belongs to other fingerprints."""
        for path in self.folder.glob("scores-*.npy"):
            if not path.name.startswith(self.prefix):
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, block: Block) -> Path:
        return self.folder / f"{self.prefix}{block.first:08d}-{block.stop:08d}.npy"
