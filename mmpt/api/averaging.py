"""Means over the windows of a video and over the templates of a label.

Shapes: W windows of one video, L labels, P templates, N videos, H hidden.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmpt.api.checks import check_texts
from mmpt.utils.errors import DataError

__all__ = ["averaged", "filled", "label_vectors", "mean_over_templates"]


def averaged(windows: Tensor) -> Tensor:
    """Average the directions of vectors (W, H), and their lengths apart: one alone stays as it is. Returns (H,)."""
    if len(windows) == 1:
        return windows[0]
    return F.normalize(F.normalize(windows, dim=1).mean(0), dim=0) * windows.norm(dim=1).mean()


def filled(templates: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Return every template with every label in place of its ``{}``: L * P texts, label by label.

    Raises:
        DataError: if there is no template, or one is no text or has no ``{}``.
    """
    found = check_texts(templates, "template")[0]
    wrong = next((template for template in found if "{}" not in template), None)
    if wrong is not None:
        raise DataError(f"a template holds {{}} where the label stands: {wrong!r} does not")
    return [template.replace("{}", label) for label in labels for template in found]


def label_vectors(texts: np.ndarray, labels: int) -> np.ndarray:
    """Average the vectors of a label's templates, (L * P, H), in direction and in length: (L, H)."""
    parts = torch.from_numpy(texts).unflatten(0, (labels, -1))
    return torch.stack([averaged(part) for part in parts]).numpy()


def mean_over_templates(scores: np.ndarray, labels: int) -> np.ndarray:
    """Average scores (L * P, N) over templates: (N, L)."""
    return scores.reshape(labels, -1, scores.shape[1]).mean(1).T
