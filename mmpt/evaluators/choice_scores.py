"""Scores of the choices of questions whose texts a test need not know: those of VCR and TVQA.

Shapes: B items of a batch, Q questions of an item, O choices.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from mmpt.evaluators.batch_predictor import on_device
from mmpt.utils.errors import ConfigError, DataError

__all__ = ["Scored", "score_batches", "softmax"]


class Scored(NamedTuple):
    """The questions of a batch, item after item.

    Attributes:
        ids: of each question's item.
        kinds: int64 (B * Q,), which question it is; 0 where there is but one.
        given: int64 (B * Q,), which answer it takes for granted; -1: none, or the right one.
        labels: int64 (B * Q,), the right choice; -1 where it is not known.
        scores: float32 (B * Q, O).
    """

    ids: list[str]
    kinds: npt.NDArray[np.int64]
    given: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


def score_batches(model: Any, device: torch.device, predictor: str) -> Callable[[Mapping[str, Any]], Scored]:
    """Return what scores the choices of a batch; DataError from a batch without, or where a score is not finite.

    Raises:
        ConfigError: if the model chooses among no texts; names the predictor.
    """
    if "multiple_choice" not in getattr(model, "capabilities", ()):
        raise ConfigError(
            f"predictor: {predictor} needs a model that scores choices (option_scores); {type(model).__name__} does not"
        )

    def scored(batch: Mapping[str, Any]) -> Scored:
        if "answers" not in batch or "caps" not in batch:
            raise DataError("a batch holds no questions with choices; dataset.aligner must be that of the task")
        labels = _numbers(batch["answers"])
        names = [str(name) for name in batch["video_id"]]
        scores = model.option_scores(**on_device(batch, device)).float().cpu().numpy()
        scores = scores.reshape(-1, scores.shape[-1]).astype(np.float32)
        if len(names) < 1 or len(scores) % len(names) or len(labels) != len(scores):
            raise DataError(f"{len(scores)} questions were scored of {len(names)} items with {len(labels)} labels")
        ids = [name for name in names for _ in range(len(scores) // len(names))]
        bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
        if len(bad):
            raise DataError(f"question {ids[int(bad[0])]}: a score is not finite: {scores[bad[0]].tolist()}")
        wrong = np.flatnonzero((labels < -1) | (labels >= scores.shape[1]))
        if len(wrong):
            raise DataError(f"question {ids[int(wrong[0])]}: label {labels[wrong[0]]}, of {scores.shape[1]} choices")
        kinds, given = (_numbers(batch[key]) if key in batch else None for key in ("question_kind", "given"))
        return Scored(
            ids,
            np.zeros(len(scores), np.int64) if kinds is None else kinds,
            np.full(len(scores), -1, np.int64) if given is None else given,
            labels,
            scores,
        )

    return scored


def softmax(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the probabilities of scores (.., O), over the last dimension."""
    exact = np.asarray(scores, np.float64)
    powers = np.exp(exact - exact.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _numbers(values: torch.Tensor) -> npt.NDArray[np.int64]:
    return values.reshape(-1).cpu().numpy().astype(np.int64)
