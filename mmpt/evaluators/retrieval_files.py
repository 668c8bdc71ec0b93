"""What retrieval tests write, for those who read it again: embeddings, or the scores of pairs.

Shapes: N texts, V videos, H hidden.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpt.evaluators.base import load_arrays
from mmpt.utils.errors import DataError
from mmpt.utils.npy import read_npy

__all__ = ["EMBEDDINGS", "PAIRS", "read_pairs", "read_scored", "scores_of"]

#: Of a :class:`~mmpt.evaluators.retrieval_predictor.RetrievalPredictor`.
EMBEDDINGS = "embeddings.npz"
#: Of a :class:`~mmpt.evaluators.fusion_retrieval_predictor.FusionRetrievalPredictor`.
PAIRS = "pairs.npz"
_NAMES = ("target", "ids", "texts")


def read_scored(folder: Path) -> dict[str, np.ndarray]:
    """Read what :func:`scores_of` needs, and ``target`` (N,), ``ids`` (V,) and ``texts`` (N,).

    Raises:
        DataError: if the files of the test are missing or damaged; names them.
    """
    if (folder / PAIRS).is_file():
        return read_pairs(folder)
    return load_arrays(folder / EMBEDDINGS, ("text", "video", *_NAMES))


def scores_of(
    arrays: Mapping[str, np.ndarray], texts: Sequence[int] | npt.NDArray[np.integer]
) -> npt.NDArray[np.floating]:
    """Return the scores of some texts against all videos (texts, V), from a matrix, or else from embeddings."""
    if "outputs" in arrays:
        return np.asarray(arrays["outputs"][texts])
    return arrays["text"][texts] @ arrays["video"].T


def read_pairs(folder: Path, output_file: str = "merged") -> dict[str, Any]:
    """Read what :class:`FusionRetrievalPredictor` wrote to a folder; the scores are mapped.

    Raises:
        DataError: if a file is missing or damaged, or they do not belong together; names it.
    """
    arrays = load_arrays(folder / PAIRS, _NAMES)
    path = folder / f"{output_file}.npy"
    scores = read_npy(path)
    if scores.shape != (len(arrays["texts"]), len(arrays["ids"])):
        raise DataError(f"{path}: scores of shape {scores.shape} do not fit {PAIRS}; run the test again")
    return {"outputs": scores, **arrays}
