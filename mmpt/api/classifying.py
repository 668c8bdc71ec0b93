"""Labels and queries with the videos that they fit best, by scores.

Shapes: N videos, M queries, L labels, H hidden.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf

from mmpt.api.outputs import Hit, Label
from mmpt.api.text_input import check_texts
from mmpt.api.video_sources import source_of
from mmpt.utils.errors import DataError

__all__ = ["best_hits", "check_labels", "found_videos", "ranked", "temperature_of"]


def check_labels(labels: Any) -> list[str]:
    """Return labels as a list.

    Raises:
        DataError: if there is none, one is empty, or two are the same.
    """
    found = check_texts([labels] if isinstance(labels, str) else labels, "label")[0]
    twice = sorted({label for label in found if found.count(label) > 1}) if len(set(found)) < len(found) else []
    if twice:
        raise DataError(f"the label {twice[0]!r} is given more than once")
    return found


def temperature_of(config: DictConfig) -> float:
    """Return ``loss.temperature`` of a job; 1 where it has none."""
    value = OmegaConf.select(config, "loss.temperature")
    return float(value) if value else 1.0


def ranked(scores: np.ndarray, labels: Sequence[str], temperature: float, top: int | None) -> list[Label]:
    """Return labels by descending score (L,), with the softmax of scores over temperature; equal ones in order."""
    if top is not None and top < 1:
        raise DataError(f"top: {top} is not at least 1")
    chances = F.softmax(torch.from_numpy(scores).double() / temperature, dim=0).tolist()
    order = np.argsort(-scores, kind="stable")[:top]
    return [Label(labels[number], float(scores[number]), chances[number]) for number in order]


def found_videos(pipeline: Any, queries: Sequence[str], videos: Any, top: int, fps: float | None) -> list[list[Hit]]:
    """Find the videos that fit each query best; they may be vectors (N, H).

    Raises:
        DataError: if the vectors are not of the model's width.
    """
    if not isinstance(videos, np.ndarray):
        names = [source_of(video, fps, row).name for row, video in enumerate(videos)]
        return best_hits(pipeline.similarity(queries, videos, fps=fps), names, top)
    if videos.ndim != 2 or videos.shape[1] != pipeline.dim:
        raise DataError(f"vectors of shape {videos.shape}: this model has {pipeline.dim} wide ones")
    return best_hits(pipeline.encode_text(queries) @ videos.T, [str(row) for row in range(len(videos))], top)


def best_hits(scores: np.ndarray, names: Sequence[str], top: int) -> list[list[Hit]]:
    """Return the ``top`` videos of each query by descending score (queries, N); equal ones in order."""
    if top < 1:
        raise DataError(f"top: {top} is not at least 1")
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [Hit(int(row), names[row], float(line[row])) for row in rows] for line, rows in zip(scores, order, strict=True)
    ]
