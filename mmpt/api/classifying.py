"""Labels and queries with the videos that they fit best, by scores.

Shapes: N videos, M queries, L labels, H hidden.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from mmpt.api.capability import require_call
from mmpt.api.checks import as_array, check_count, check_names
from mmpt.api.outputs import Hit, Label
from mmpt.api.video_sources import as_list, source_of
from mmpt.utils.errors import DataError

__all__ = ["best_hits", "classify", "found_videos", "ranked", "temperature_of"]


def temperature_of(config: DictConfig) -> float:
    """Return ``loss.temperature`` of a job; 1 where it has none."""
    value = OmegaConf.select(config, "loss.temperature")
    return float(value) if value else 1.0


def ranked(scores: np.ndarray, labels: Sequence[str], temperature: float, top: int | None) -> list[Label]:
    """Return labels by descending score (L,), with the softmax of scores over temperature; equal ones in order."""
    chances = F.softmax(torch.from_numpy(scores).double() / temperature, dim=0).tolist()
    order = np.argsort(-scores, kind="stable")[:top]
    return [Label(labels[number], float(scores[number]), chances[number]) for number in order]


def classify(
    pipeline: Any,
    videos: Any,
    labels: Sequence[str],
    templates: Sequence[str],
    top: int | None,
    fps: float | None,
    *,
    batch_size: int,
    progress: bool,
) -> Any:
    """Rank labels for each video, see :meth:`~mmpt.api.VideoTextPipeline.classify`."""
    require_call(pipeline, "classify")
    check_count(batch_size, "batch_size")
    check_count(1 if top is None else top, "top")
    names = check_names(labels, "label")
    given, single = as_list(videos)
    if not given:
        return []
    rows = pipeline.reader.each(given, fps, progress)
    scores = pipeline.comparer.label_scores(rows, names, templates, batch_size)
    temperature = temperature_of(pipeline.config)
    found = [ranked(row, names, temperature, top) for row in scores]
    return found[0] if single else found


def found_videos(
    pipeline: Any, queries: Sequence[str], videos: Any, top: int, fps: float | None, **reading: Any
) -> list[list[Hit]]:
    """Find the videos that fit each query best; they may be vectors (N, H).

    Raises:
        DataError: if the vectors are not of the model's width, or not finite.
    """
    check_count(top, "top")
    if isinstance(videos, np.ndarray | Tensor) and videos.ndim < 4:
        vectors = _checked_vectors(as_array(videos), pipeline.dim)
        return best_hits(pipeline.encode_text(queries) @ vectors.T, [str(row) for row in range(len(vectors))], top)
    sources = [source_of(video, fps, row) for row, video in enumerate(as_list(videos)[0])]
    scores = pipeline.similarity(queries, sources, **reading)
    return best_hits(scores, [source.name for source in sources], top)


def _checked_vectors(vectors: np.ndarray, width: int | None) -> np.ndarray:
    if width is None:
        raise DataError("this model has no vectors of videos, it compares pairs: give the videos themselves")
    if vectors.ndim != 2 or vectors.shape[1] != width or vectors.dtype.kind not in "fiu":
        raise DataError(f"vectors of shape {vectors.shape}, {vectors.dtype}: this model has {width} wide ones")
    wrong = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(wrong):
        raise DataError(f"vector {wrong[0]} has values that are not finite: encode its video again")
    return vectors


def best_hits(scores: np.ndarray, names: Sequence[str], top: int) -> list[list[Hit]]:
    """Return the ``top`` videos of each query by descending score (queries, N); equal ones in order."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [Hit(int(row), names[row], float(line[row])) for row in rows] for line, rows in zip(scores, order, strict=True)
    ]
