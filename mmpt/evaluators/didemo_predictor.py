"""DiDeMo: rank the 21 moments of a video for a description, with one video pass per video."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from mmpt.evaluators.base import decode_texts, load_arrays, save_arrays
from mmpt.evaluators.batch_predictor import BatchPredictor
from mmpt.evaluators.metrics import MOMENTS
from mmpt.evaluators.sharing import NEW_ROWS
from mmpt.utils.errors import DataError
from mmpt.utils.files import read_json, write_json

__all__ = ["CHUNK_SECONDS", "DiDeMoPredictor", "moment_vectors", "rank_moments"]

logger = logging.getLogger(__name__)

CHUNK_SECONDS = 5
CHUNKS = 6


class _Queries(NamedTuple):
    """The queries of a batch, and the chunk sums of the videos that it is the first to show."""

    ids: list[str]
    rows: list[int]
    texts: list[str]
    vectors: npt.NDArray[np.float32]
    chunks: dict[str, tuple[np.ndarray, np.ndarray]]


class DiDeMoPredictor(BatchPredictor):
    """Score the moments of each description's video: mean of the frame states of a moment, dot text.

    Writes to ``eval.save_path``: ``merged.npy`` int64 (queries, 21, 2), the moments as (first, last)
    chunk, best first, -1 after the last one that has frames; ``embeddings.npz`` with ``text``
    (queries, dim) and ``scores`` (queries, 21) float32 in the order of MOMENTS, -inf for a moment
    without frames, ``ids`` and ``texts``; ``merged_targets.json``, the annotations.
    """

    kind = "moments"
    once_per_video: ClassVar[bool] = True

    def batch_function(
        self, model: Any, dataloader: Iterable[Mapping[str, Any]], device: torch.device
    ) -> Callable[[Mapping[str, Any]], _Queries]:
        """Return what encodes the texts of a batch, and its videos, each once in the test set."""

        def predicted(batch: Mapping[str, Any]) -> _Queries:
            names = [str(name) for name in batch["video_id"]]
            vectors = model.encode_text(batch["caps"].to(device), batch["cmasks"].to(device)).float().cpu().numpy()
            rows = [int(row) for row in batch["idx"]]
            chunks = self._encode_new_videos(model, batch, names, device)
            return _Queries(names, rows, decode_texts(self.config, batch), vectors, chunks)

        return predicted

    def finish(
        self, parts: Sequence[_Queries], dataloader: Iterable[Mapping[str, Any]], output_file: str
    ) -> dict[str, Any]:
        """Score all queries and return ``outputs`` (rankings), ``targets``, ``scores``, ``ids`` and ``texts``.

        Raises:
            DataError: if an annotation is missing.
        """
        chunks = {name: sums for part in parts for name, sums in part.chunks.items()}
        ids = [name for part in parts for name in part.ids]
        text = np.concatenate([part.vectors for part in parts])
        scores = np.stack([_score(vector, *chunks[name]) for vector, name in zip(text, ids, strict=True)])
        outputs = {
            "outputs": rank_moments(scores),
            "targets": _annotations(dataloader, [row for part in parts for row in part.rows], ids),
            "scores": scores,
            "text": text,
            "ids": np.array(ids, dtype=str),
            "texts": np.array([one for part in parts for one in part.texts], dtype=str),
        }
        self._save(outputs, output_file)
        logger.info("%d descriptions of %d videos", len(ids), len(chunks))
        return outputs

    def load(self, output_file: str = "merged") -> dict[str, Any]:
        """Read the saved scores and annotations."""
        stored = load_arrays(self.save_path / "embeddings.npz", ("scores", "text", "ids", "texts"))
        targets = read_json(self.save_path / f"{output_file}_targets.json")
        return {"outputs": rank_moments(stored["scores"]), "targets": targets, **stored}

    def _save(self, outputs: Mapping[str, Any], output_file: str) -> None:
        save_arrays(self.save_path / f"{output_file}.npy", ranking=outputs["outputs"])
        write_json(self.save_path / f"{output_file}_targets.json", outputs["targets"], indent=None)
        arrays = {name: outputs[name] for name in ("scores", "text", "ids", "texts")}
        save_arrays(self.save_path / "embeddings.npz", **arrays)

    @staticmethod
    def _encode_new_videos(
        model: Any, batch: Mapping[str, Any], names: Sequence[str], device: torch.device
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return the chunk sums of the videos that no earlier batch shows."""
        rows = batch[NEW_ROWS]
        if not rows:
            return {}
        vfeats, vmasks = batch["vfeats"][rows].to(device), batch["vmasks"][rows].to(device)
        states = model.encode_video_frames(vfeats, vmasks).float().cpu().numpy()
        masks = vmasks.cpu().numpy()
        return {names[row]: _chunk_sums(*one) for row, *one in zip(rows, states, masks, strict=True)}


def _chunk_sums(states: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum the valid states of each chunk: ((6, dim) float32 sums, (6,) int64 numbers of frames)."""
    seconds = min(len(states), CHUNKS * CHUNK_SECONDS)
    frames = np.zeros((CHUNKS * CHUNK_SECONDS, states.shape[1]), dtype=np.float32)
    valid = np.zeros(CHUNKS * CHUNK_SECONDS, dtype=np.int64)
    valid[:seconds] = mask[:seconds].astype(bool)
    # where, not a product: a padded position may hold anything, NaN included
    frames[:seconds] = np.where(valid[:seconds, None] > 0, states[:seconds], 0.0)
    sums = frames.reshape(CHUNKS, CHUNK_SECONDS, -1).sum(axis=1)
    return sums, valid.reshape(CHUNKS, CHUNK_SECONDS).sum(axis=1)


def moment_vectors(states: npt.NDArray[np.floating], mask: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Average the valid frames of each of the 21 moments.

    Args:
        states: one state per second ``(seconds, dim)``.
        mask: which seconds are video, not padding ``(seconds,)``.

    Returns:
        ``(vectors (21, dim) float32, frames (21,) int64)``; a moment without frames has a zero vector.
    """
    return _moments(*_chunk_sums(np.asarray(states), np.asarray(mask)))


def _moments(sums: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    vectors = np.stack([sums[first : last + 1].sum(axis=0) for first, last in MOMENTS])
    counts = np.array([frames[first : last + 1].sum() for first, last in MOMENTS])
    return vectors / np.maximum(counts, 1)[:, None].astype(np.float32), counts


def _score(text: np.ndarray, sums: np.ndarray, frames: np.ndarray) -> np.ndarray:
    vectors, counts = _moments(sums, frames)
    return np.where(counts > 0, vectors @ text, -np.inf).astype(np.float32)


def rank_moments(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Order the moments of every query: ``(queries, 21)`` scores to ``(queries, 21, 2)`` chunk pairs.

    A moment without frames (-inf) is left out; the rows after the last moment are -1.
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    ranking = np.array(MOMENTS, dtype=np.int64)[order]
    ranking[np.isneginf(np.take_along_axis(scores, order, axis=1))] = -1
    return ranking


def _annotations(dataloader: Any, rows: Sequence[int], ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the annotation of every query, checked against the video it was scored on."""
    data = dataloader.dataset.meta_processor.data
    targets = []
    for row, name in zip(rows, ids, strict=True):
        target = data[row]
        if not isinstance(target, Mapping) or "times" not in target or str(target.get("video")) != name:
            raise DataError(f"query {row} (video {name}) has no annotation with its times; is this a DiDeMo list?")
        targets.append(dict(target))
    return targets
