"""The work of one process in a test by fusion: its videos and all texts are encoded once, then its pairs are fused.

Shapes: N texts, V videos, B rows of a batch, L positions, H hidden.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mmpt.evaluators.base import EvalOptions, decode_texts
from mmpt.evaluators.fusion_items import BatchItems, FusionItems, Key, add_tensor, keys_of, rows_to_encode, text_tensors
from mmpt.evaluators.fusion_rerank import POOLED, pooled
from mmpt.evaluators.fusion_scoring import FinishedBlocks, PairPlan, score_block
from mmpt.evaluators.fusion_states import STATE_TYPES, StateStore
from mmpt.evaluators.sharing import NEW_ROWS
from mmpt.utils.distributed import is_main_process

__all__ = ["FusionOptions", "FusionRun", "weights_digest"]

logger = logging.getLogger(__name__)

_TEXTS_AT_ONCE = 256


@dataclass
class FusionOptions(EvalOptions):
    """Keys of ``eval`` of retrieval by fusion.

    ``pairs_per_batch`` pairs are fused at a time (published: 100 per GPU). With ``rerank_top_k``, a cheap score
    chooses for each text that many videos, which alone are fused; the others rank behind them, in the order of the
    cheap score. R@k is then bounded by how often the right video is among those chosen, and for k up to
    ``rerank_top_k`` it differs from the exact one by nothing else; ranks beyond it, so median and mean rank and all of
    video to text, are in part those of the cheap score. Empty (the default): all pairs are fused.
    ``cheap_score`` is ``pooled``, the cosine of the mean states before fusion (which no objective of VIOLET and
    LAVENDER makes comparable: weak), or better the ``merged.npy`` that a RetrievalPredictor of another model wrote for
    the same test set.
    ``states_dtype`` is the type in which states wait: ``float32``, or ``float16`` for half the memory and rounding of
    1 in 2,000 to each of their numbers. A process keeps those of its own videos and of all texts, L x H numbers each
    (VIOLET, 5 frames of 224 pixels: 250 x 768); beyond ``states_max_gb`` for videos and as much for texts they are
    mapped from a scratch file in ``save_path``.
    """

    pairs_per_batch: int = 100
    rerank_top_k: int | None = None
    cheap_score: str = POOLED
    states_dtype: str = "float32"
    states_max_gb: float = 8.0


class FusionRun:
    """The states that a process has of its videos and of all texts, and the batches that it has read."""

    def __init__(self, config: Any, options: FusionOptions, model: Any, device: torch.device) -> None:
        self.config, self.options, self.model, self.device = config, options, model, device
        self.videos, self.texts = _store(options), _store(options)
        self.own: dict[int, BatchItems] = {}
        self.pools = options.rerank_top_k is not None and options.cheap_score == POOLED
        #: Pooled states, where they are the cheap score.
        self.vectors: dict[Key, npt.NDArray[np.float32]] = {}
        self.text_vectors: list[npt.NDArray[np.float32]] = []
        self._place: dict[Key, int] = {}

    def read(self, number: int, batch: Mapping[str, Any]) -> None:
        """Encode the videos that a batch is the first to show, and keep its texts."""
        tensors = text_tensors(batch)
        keys = keys_of(batch, number, self.options.unique_videos)
        rows = rows_to_encode(keys, batch.get(NEW_ROWS, range(len(keys))))
        if rows:
            self._encode(batch, rows, keys)
        encoded = [keys[row] for row in rows]
        self.own[number] = BatchItems(keys, decode_texts(self.config, batch), tensors, encoded)

    def encode_missing(
        self, share: Iterable[tuple[int, Mapping[str, Any]]], missing: set[Key], look_for_failures: Callable[[], None]
    ) -> None:
        """Encode further clips under an id, each alone, so that its states do not depend on its neighbours."""
        logger.info("%d clips share an id with another clip; each is an item of its own", len(missing))
        for number, batch in share:
            look_for_failures()
            keys = self.own[number].keys
            for row in rows_to_encode(keys, range(len(keys))):
                if keys[row] in missing and keys[row] not in self._place:
                    self._encode(batch, [row], keys)

    def encode_texts(self, items: FusionItems) -> None:
        """Encode all texts, in their order."""
        check_texts = getattr(self.model, "check_texts", None)
        for batch in items.batches:
            if check_texts is not None:
                check_texts(batch.tensors["caps"])
            for parts in zip(*(tensor.split(_TEXTS_AT_ONCE) for tensor in batch.tensors.values()), strict=True):
                moved = (part.to(self.device) for part in parts)
                states = self.model.encode_text(**dict(zip(batch.tensors, moved, strict=True)))
                self.texts.append(states)
                if self.pools:
                    self.text_vectors.append(pooled(states.values, states.mask))

    def pooled_videos(self, items: FusionItems) -> dict[int, npt.NDArray[np.float32]]:
        """Return the pooled states (H,) of the videos that this process scores; none where they are not needed."""
        own = ((index, key) for index, key in enumerate(items.videos) if items.batch_of[index] in self.own)
        return {index: self.vectors[key] for index, key in own} if self.pools else {}

    def score(
        self, plan: PairPlan, items: FusionItems, finished: FinishedBlocks, look_for_failures: Callable[[], None]
    ) -> list[tuple[Any, npt.NDArray[np.float32]]]:
        """Score the pairs of this process's videos, block by block, but for those of finished blocks."""
        place = {index: self._place[key] for index, key in enumerate(items.videos) if items.batch_of[index] in self.own}
        blocks = [block for block in plan.blocks() if items.batch_of[block.first] in self.own]
        known = {block: finished.load(block, plan.pairs_in(block)) for block in blocks}
        done = sum(len(scores) for scores in known.values() if scores is not None)
        if done:
            logger.info("%d pairs are scored already; the test goes on", done)
        total = sum(map(plan.pairs_in, blocks))
        shown = None if is_main_process() else True
        scored = []
        with tqdm(total=total, initial=done, desc="pairs", unit="pair", disable=shown) as bar:
            for block in blocks:
                look_for_failures()
                scores = known[block]
                if scores is None:
                    scores = score_block(
                        *(self.model, self.texts, self.videos, place, plan.pairs_of(block)),
                        *(self.options.pairs_per_batch, self.device, bar.update, items.told),
                    )
                    finished.save(block, scores)
                scored.append((block, scores))
        return scored

    def _encode(self, batch: Mapping[str, Any], rows: list[int], keys: list[Key]) -> None:
        vfeats, vmasks = (batch[name][rows].to(self.device) for name in ("vfeats", "vmasks"))
        states = self.model.encode_video(vfeats, vmasks)
        for number, row in enumerate(rows):
            self._place.setdefault(keys[row], len(self.videos) + number)
        self.videos.append(states)
        if self.pools:
            vectors = pooled(states.values, states.mask)
            for row, vector in zip(rows, vectors, strict=True):
                self.vectors.setdefault(keys[row], vector)


def _store(options: FusionOptions) -> StateStore:
    most = int(options.states_max_gb * 2**30)
    return StateStore(STATE_TYPES[options.states_dtype], most, Path(options.save_path))


def weights_digest(model: nn.Module) -> str:
    """Return a hash of all weights and buffers of a model."""
    content = hashlib.blake2b()
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):
            add_tensor(content, name, value)
    return content.hexdigest()
