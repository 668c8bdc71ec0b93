"""Ranks of the matching items of a retrieval test, by counting in blocks instead of sorting.

Tie rule: an item that scores the same as the matching one counts against the query,

    rank = 1 + #(other items that score higher) + #(other items that score equal),

so that a model that gives every item one score is ranked last, not first. Where a query has
several matching items, its rank is that of the best one, and the others never count against it.

Items with equal embeddings have equal scores by construction (they are scored once), whatever
the order in which a matrix product happens to add. No more than ``block_bytes`` of scores exist
at a time: 100,000 x 100,000 at 512 dimensions needs about 1 GiB.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mmpt.modules.linear import linear, onednn_is_faster
from mmpt.utils.errors import DataError

__all__ = ["BLOCK_BYTES", "ranks", "ranks_both", "ranks_from_scores", "top_items"]

BLOCK_BYTES = 128 * 2**20
#: Scores that are counted at a time.
_CACHED_BYTES = 2**19
#: Items scored at a time where oneDNN, which makes a new matrix, multiplies.
_ITEMS = 4096

ScoreBlock = Callable[[int, int], npt.NDArray[np.floating]]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Positives:
    """Matching (query, item) pairs, sorted by query."""

    queries: IntArray
    items: IntArray


def ranks(
    text: npt.NDArray[np.floating],
    video: npt.NDArray[np.floating],
    target: npt.ArrayLike,
    block_bytes: int = BLOCK_BYTES,
) -> IntArray:
    """Rank, for every text, its video among all videos by dot product.

    Args:
        text: embeddings of the queries ``(texts, dim)``.
        video: embeddings of the items ``(videos, dim)``.
        target: index into ``video`` of the match of every text ``(texts,)``.
        block_bytes: limit for the block of scores held at a time.

    Returns:
        int64 ``(texts,)``, 1 is best; ties count against the query.

    Raises:
        DataError: if shapes disagree, a target is out of range or an embedding is not finite.
    """
    text, video, indices = _checked(text, video, target)
    return _ranks_of(text, video, _Positives(np.arange(len(text)), indices), block_bytes)


def ranks_both(
    text: npt.NDArray[np.floating],
    video: npt.NDArray[np.floating],
    target: npt.ArrayLike,
    block_bytes: int = BLOCK_BYTES,
) -> tuple[IntArray, IntArray]:
    """Rank in both directions: the video of every text, and the best text of every video that has one.

    Arguments and errors as :func:`ranks`. The second array is as long as there are different targets.
    """
    text, video, indices = _checked(text, video, target)
    forward = _ranks_of(text, video, _Positives(np.arange(len(text)), indices), block_bytes)
    order = np.argsort(indices, kind="stable")
    described, query = np.unique(indices[order], return_inverse=True)
    queries = video if len(described) == len(video) else video[described]
    return forward, _ranks_of(queries, text, _Positives(query.astype(np.int64), order), block_bytes)


def ranks_from_scores(
    score: ScoreBlock | npt.NDArray[np.floating],
    target: npt.ArrayLike,
    items: int | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> IntArray:
    """Rank the target of every query by given scores.

    Args:
        score: matrix ``(queries, items)``, or a function of (begin, end) that returns those rows of it.
        target: index of the matching item of every query ``(queries,)``.
        items: number of items; needed with a function.
        block_bytes: limit for the block of scores asked for at a time (four bytes per score).

    Raises:
        DataError: if scores are NaN (says how many) or a target is out of range.
    """
    indices = np.asarray(target, dtype=np.int64)
    if callable(score):
        if items is None:
            raise ValueError("the number of items is needed with a score function")
        rows, columns = score, items
    else:
        matrix = np.asarray(score)
        if matrix.ndim != 2 or len(matrix) != len(indices):
            raise DataError(f"scores have shape {matrix.shape}, but there are {len(indices)} queries")
        rows, columns = (lambda begin, end: matrix[begin:end]), matrix.shape[1]
    _check_targets(indices, columns)
    positives = _Positives(np.arange(len(indices)), indices)
    return _count(rows, len(indices), columns, positives, None, block_bytes)


def top_items(scores: npt.NDArray[np.floating], count: int) -> tuple[IntArray, np.ndarray]:
    """Return indices and scores ``(texts, count)`` of the best videos of a few texts ``(texts, videos)``, best first.

    Equal scores keep the order of the videos.
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(scores, order, axis=1)


def _checked(
    text: npt.NDArray[np.floating], video: npt.NDArray[np.floating], target: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray, IntArray]:
    text, video = np.asarray(text, dtype=np.float32), np.asarray(video, dtype=np.float32)
    indices = np.asarray(target, dtype=np.int64)
    if text.ndim != 2 or video.ndim != 2 or text.shape[1] != video.shape[1]:
        raise DataError(f"text embeddings {text.shape} and video embeddings {video.shape} do not fit together")
    if indices.shape != (len(text),):
        raise DataError(f"there are {len(text)} texts, but targets of shape {indices.shape}")
    _check_targets(indices, len(video))
    for name, array in (("text", text), ("video", video)):
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if len(bad):
            raise DataError(
                f"{len(bad)} of {len(array)} {name} embeddings hold NaN or infinity (first: row {bad[0]}); "
                "the model or its features are damaged, ranks would mean nothing"
            )
    return text, video, indices


def _check_targets(indices: IntArray, items: int) -> None:
    if len(indices) == 0:
        raise DataError("there is nothing to rank: no queries")
    if indices.min() < 0 or indices.max() >= items:
        raise DataError(f"targets run from {indices.min()} to {indices.max()}, but there are {items} items")


def _ranks_of(queries: np.ndarray, items: np.ndarray, positives: _Positives, block_bytes: int) -> IntArray:
    first, inverse, counts = _unique_rows(items)
    unique = items if len(first) == len(items) else items[first]
    if faster := onednn_is_faster():  # torch asks for arrays that may be written
        queries, unique = (np.require(array, requirements="W") for array in (queries, unique))
    buffer = np.empty((_block_rows(len(unique), block_bytes), len(unique)), dtype=np.float32)

    def block(begin: int, end: int) -> np.ndarray:
        scores = buffer[: end - begin]
        if not faster:
            return np.matmul(queries[begin:end], unique.T, out=scores)
        some = torch.from_numpy(queries[begin:end])
        for start in range(0, len(unique), _ITEMS):
            part = slice(start, start + _ITEMS)
            scores[:, part] = linear(some, torch.from_numpy(unique[part])).numpy()
        return scores

    mapped = _Positives(positives.queries, inverse[positives.items])
    return _count(block, len(queries), len(unique), mapped, counts, block_bytes)


def _unique_rows(array: np.ndarray) -> tuple[IntArray, IntArray, IntArray]:
    """Return (row of first occurrence, unique index of every row, occurrences) of equal rows."""
    seen: dict[bytes, int] = {}
    inverse = np.empty(len(array), dtype=np.int64)
    for row, values in enumerate(array):
        # + 0.0 makes -0.0 and 0.0 the same bytes; a digest keeps the table small
        key = hashlib.blake2b((values + np.float32(0.0)).tobytes(), digest_size=16).digest()
        inverse[row] = seen.setdefault(key, len(seen))
    _, first, counts = np.unique(inverse, return_index=True, return_counts=True)
    return first, inverse, counts


def _block_rows(items: int, block_bytes: int) -> int:
    return max(1, block_bytes // (4 * items))


def _count(
    block: ScoreBlock, queries: int, items: int, positives: _Positives, weights: IntArray | None, block_bytes: int
) -> IntArray:
    """Count, per query, the items that score at least as high as its best match.

    ``weights`` says how many equal items each column stands for (None: one each).
    """
    weights = np.ones(items, dtype=np.int64) if weights is None else weights
    repeated = np.flatnonzero(weights > 1)
    extra = weights[repeated].astype(np.float64) - 1
    result = np.empty(queries, dtype=np.int64)
    undefined = 0
    rows = _block_rows(items, block_bytes)
    for begin in range(0, queries, rows):
        end = min(begin + rows, queries)
        scores = block(begin, end)
        first, last = np.searchsorted(positives.queries, (begin, end))
        query, item = positives.queries[first:last] - begin, positives.items[first:last]
        own = scores[query, item]
        best = np.full(end - begin, -np.inf, dtype=scores.dtype)
        np.maximum.at(best, query, own)
        counts = np.zeros(end - begin, dtype=np.int64)
        for some, least, found in _parts(scores, best, counts):
            if np.isnan(some.min()):
                undefined += int(np.isnan(some).sum())
                continue
            reached = some >= least[:, None]
            found[:] = list(map(np.count_nonzero, reached))  # many times as fast as with an axis
            if len(repeated):
                found += (reached[:, repeated] @ extra).astype(np.int64)
        matches = np.bincount(query[own == best[query]], minlength=end - begin)
        result[begin:end] = 1 + counts - matches
    if undefined:
        raise DataError(f"{undefined} of {queries * items} scores are NaN; ranks would mean nothing")
    return result


def _parts(scores: np.ndarray, *columns: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Split all into a few rows at a time, whose scores stay in the processor's cache: they are looked at twice."""
    few = max(1, _CACHED_BYTES // (scores.itemsize * scores.shape[1]))
    for begin in range(0, len(scores), few):
        yield tuple(values[begin : begin + few] for values in (scores, *columns))
