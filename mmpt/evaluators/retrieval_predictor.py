"""Text-video retrieval: one embedding per text and per video, scores by dot product."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mmpt.evaluators.base import decode_texts, load_arrays, save_arrays
from mmpt.evaluators.batch_predictor import BatchPredictor
from mmpt.evaluators.retrieval_files import EMBEDDINGS, PAIRS
from mmpt.models.embedding import EmbeddedBatch, check_encodes_apart, embed_batch, join_batches

__all__ = ["RetrievalPredictor", "unique_videos"]

logger = logging.getLogger(__name__)

_ARRAYS = ("text", "video", "target", "ids", "texts")


class RetrievalPredictor(BatchPredictor):
    """Embed the pairs of a test set; text i belongs to the video of pair i.

    Writes ``embeddings.npz`` to ``eval.save_path``: ``text`` (texts, dim) and ``video`` (videos, dim)
    float32, ``target`` (texts,) int64 index of each text's video, ``ids`` (videos,) and ``texts``
    (texts,) strings; and, up to ``eval.save_scores_max`` a side, the scores as ``merged.npy``
    (texts, videos) float32.
    """

    kind = "retrieval"

    def batch_function(
        self, model: torch.nn.Module, dataloader: Iterable[Mapping[str, Any]], device: torch.device
    ) -> Callable[[Mapping[str, Any]], tuple[EmbeddedBatch, list[str]]]:
        """Return what embeds the pairs of a batch and keeps their texts.

        Raises:
            ConfigError: if the model encodes video and text of a pair together.
        """
        check_encodes_apart(model)
        return lambda batch: (embed_batch(model, batch, device), decode_texts(self.config, batch))

    def finish(
        self,
        parts: Sequence[tuple[EmbeddedBatch, list[str]]],
        dataloader: Iterable[Mapping[str, Any]],
        output_file: str,
    ) -> dict[str, Any]:
        """Return ``outputs`` (scores, or None where too large), ``texts`` and the saved arrays."""
        pairs = join_batches([embedded for embedded, _ in parts])
        texts = [text for _, texts in parts for text in texts]
        video, target, ids = pairs.video, np.arange(len(pairs.text)), [str(name) for name in pairs.ids]
        if self.options.unique_videos:
            first, target = unique_videos(ids, video)
            video, ids = video[first], [ids[row] for row in first]
        arrays: dict[str, np.ndarray] = {
            "text": np.asarray(pairs.text, dtype=np.float32),
            "video": np.asarray(video, dtype=np.float32),
            "target": target.astype(np.int64),
            "ids": np.array(ids, dtype=str),
            "texts": np.array(texts, dtype=str),
        }
        save_arrays(self.save_path / EMBEDDINGS, **arrays)
        (self.save_path / PAIRS).unlink(missing_ok=True)  # of an earlier test, by another predictor
        return {"outputs": self._scores(arrays, output_file), **arrays}

    def load(self, output_file: str = "merged") -> dict[str, Any]:
        """Read the saved embeddings; ``outputs`` is None."""
        return {"outputs": None, **load_arrays(self.save_path / EMBEDDINGS, _ARRAYS)}

    def _scores(self, arrays: Mapping[str, np.ndarray], output_file: str) -> np.ndarray | None:
        path = self.save_path / f"{output_file}.npy"
        if max(len(arrays["text"]), len(arrays["video"])) > self.options.save_scores_max:
            logger.info("%d x %d scores are not saved", len(arrays["text"]), len(arrays["video"]))
            path.unlink(missing_ok=True)  # one from an earlier run would not belong to these embeddings
            return None
        scores = arrays["text"] @ arrays["video"].T
        save_arrays(path, scores=scores)
        return scores


def unique_videos(
    ids: Sequence[str], video: npt.NDArray[np.floating]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find rows that are the same video, by id.

    Rows of one id whose embeddings differ are different clips of it and stay apart.

    Args:
        ids: id of every row ``(rows,)``.
        video: embeddings ``(rows, dim)``.

    Returns:
        ``(row of the first occurrence of every video, index of the video of every row)``, both int64.
    """
    first: list[int] = []
    by_id: dict[str, list[int]] = {}
    target = np.empty(len(ids), dtype=np.int64)
    for row, name in enumerate(ids):
        known = by_id.setdefault(name, [])
        # the same clip embedded in another batch differs by rounding only
        same = [index for index in known if np.allclose(video[first[index]], video[row], rtol=1e-3, atol=1e-5)]
        if not same:
            known.append(len(first))
            same = [len(first)]
            first.append(row)
        target[row] = same[0]
    clips = sum(len(known) for known in by_id.values() if len(known) > 1)
    if clips:
        logger.info("%d clips share an id with another clip; each is an item of its own", clips)
    return np.array(first, dtype=np.int64), target
