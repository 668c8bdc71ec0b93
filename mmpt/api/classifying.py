"""Labels of videos and of their parts, by what their names score.

Shapes: N videos, T parts or seconds, L labels, P templates, H hidden.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf

from mmpt.api.outputs import Hit, Label
from mmpt.api.scoring import averaged
from mmpt.api.text_input import check_texts
from mmpt.utils.errors import DataError

__all__ = ["best_hits", "check_labels", "filled", "label_vectors", "mean_over_templates", "ranked", "temperature_of"]


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


def filled(templates: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Return every template with every label in place of its ``{}``: L * P texts, label by label.

    Raises:
        DataError: if there is no template, or one has no ``{}``.
    """
    found = [templates] if isinstance(templates, str) else list(templates)
    wrong = next((template for template in found if "{}" not in template), None)
    if not found or wrong is not None:
        raise DataError(f"a template holds {{}} where the label stands: {wrong!r} does not" if found else "no template")
    return [template.replace("{}", label) for label in labels for template in found]


def label_vectors(texts: np.ndarray, labels: int) -> np.ndarray:
    """Average the vectors of a label's templates, (L * P, H), in direction and in length: (L, H)."""
    parts = torch.from_numpy(texts).unflatten(0, (labels, -1))
    return torch.stack([averaged(part) for part in parts]).numpy()


def mean_over_templates(scores: np.ndarray, labels: int) -> np.ndarray:
    """Average scores (L * P, N) over templates: (N, L)."""
    return scores.reshape(labels, -1, scores.shape[1]).mean(1).T


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


def best_hits(scores: np.ndarray, names: Sequence[str], top: int) -> list[list[Hit]]:
    """Return the ``top`` videos of each query by descending score (queries, N); equal ones in order."""
    if top < 1:
        raise DataError(f"top: {top} is not at least 1")
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [Hit(int(row), names[row], float(line[row])) for row in rows] for line, rows in zip(scores, order, strict=True)
    ]
