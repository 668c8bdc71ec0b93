"""Two stages of retrieval by fusion: a cheap score chooses the videos that a text is fused with.

Shapes: N texts, V videos, H hidden, K candidates of a text.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mmpt.evaluators.base import load_arrays
from mmpt.models.base import masked_mean
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import resolve_path
from mmpt.utils.npy import read_npy

__all__ = ["POOLED", "behind", "best_candidates", "cosines", "pooled", "read_cheap_scores"]

FloatArray = npt.NDArray[np.float32]

#: The cheap score that needs no other model.
POOLED = "pooled"


def pooled(values: Tensor, mask: Tensor) -> FloatArray:
    """Return the mean over the positions of states (B, L, H) that the mask (B, L) shows, at unit length (B, H)."""
    vectors = masked_mean(values.float(), mask.bool()).cpu().numpy()
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def cosines(text: FloatArray, video: FloatArray) -> FloatArray:
    """Return the cosines of pooled texts (N, H) and videos (V, H), (N, V)."""
    return text @ video.T


def read_cheap_scores(path: str, texts: Sequence[str], videos: Sequence[str]) -> FloatArray:
    """Read a matrix of scores (N, V): the ``merged.npy`` of a retrieval test over the same test set.

    Where that test's ``embeddings.npz`` or ``pairs.npz`` lies beside it, its ids and texts are compared.

    Raises:
        ConfigError: if there is no such file.
        DataError: if it is not that of this test set, or a score is not finite.
    """
    file = resolve_path(path)
    if not file.is_file():
        raise ConfigError(f"eval.cheap_score: {path!r} is neither {POOLED!r} nor a file of scores (.npy)")
    scores = read_npy(file)
    if scores.shape != (len(texts), len(videos)):
        raise DataError(
            f"{file}: holds scores of shape {scores.shape}, but the test set has {len(texts)} texts and "
            f"{len(videos)} videos: take the merged.npy of a test over the same test set, with the same "
            "eval.unique_videos"
        )
    scores = np.asarray(scores, dtype=np.float32)
    if not np.isfinite(scores).all():
        raise DataError(f"{file}: {int((~np.isfinite(scores)).sum())} scores are not finite")
    for beside in (file.with_name("embeddings.npz"), file.with_name("pairs.npz")):
        if beside.is_file():
            known = load_arrays(beside, ("ids",))
            if known["ids"].tolist() != list(videos):
                raise DataError(f"{file}: {beside.name} beside it lists other videos, or in another order")
    return scores


def best_candidates(cheap: FloatArray, count: int) -> npt.NDArray[np.int64]:
    """Return the best videos of each text by a cheap score (N, V), the first of equal ones: int64 (N, count)."""
    rows = [np.argsort(-row, kind="stable")[:count] for row in cheap]
    return np.stack(rows).astype(np.int64)


def behind(cheap: FloatArray, fused: FloatArray) -> FloatArray:
    """Return cheap scores (N, V) that all lie behind all ``fused`` scores (P,), in their order.

    They are spread over one unit, from two to one below the lowest fused score: whatever a pair that was not fused
    scores, it ranks after all that were, in either direction of retrieval.
    """
    low, high = float(cheap.min()), float(cheap.max())
    return (float(fused.min()) - 2 + (cheap - low) / max(high - low, 1e-12)).astype(np.float32)
