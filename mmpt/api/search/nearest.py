"""Nearest rows of an index: exact comparison, and for many rows an IVF index of faiss, mapped from disk.

The faiss index holds the rows that were there when it was written; those that came later are compared exactly beside
it, until they are many. Its codes take a byte a number; the candidates that it finds are compared anew by the stored
vectors. It can always be made again from these.

``nearest.json`` has its hash, which is compared before rows are added and when an index is verified, and that of its
head: all but the codes and numbers of rows. A search compares the latter alone, as reading half a gigabyte costs
seconds: damage of a code can hide a clip, never tell a wrong score; damage of the head could do anything.
"""

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.api.search.layout import VECTORS
from mmpt.utils.errors import DataError
from mmpt.utils.extras import require
from mmpt.utils.files import atomic_open, file_sha256, read_json, write_json

__all__ = ["EXACT_UP_TO", "Nearest", "build_nearest", "drop_nearest", "nearest_state"]

logger = logging.getLogger(__name__)

#: Rows that are compared one by one; more get an IVF index.
EXACT_UP_TO = 65_536
#: Share of rows beside the faiss index from which they are added to it.
_MERGED_FROM = 0.05
#: The index is trained anew when there are so many times the rows that it was trained for.
_TRAINED_AGAIN = 4
_BLOCK = 32_768
_SAMPLE_PER_CELL, _FEWEST_PER_CELL = 48, 39
_CELLS_SEARCHED = 32
_SEED = 1234
FILE, FACTS = "nearest.faiss", "nearest.json"
_NUMBER_BYTES = 8  # of a row, beside its code


class Nearest:
    """Find the rows of vectors that are nearest to queries by cosine.

    Args:
        data: folder of ``nearest.faiss``; a file that is missing, damaged or of other rows is not used, and a warning
            says so where that costs time.
        vectors: float16 (rows, dim) of length 1, mapped.
        live: bool (rows,): the rows that may be found.
    """

    def __init__(self, data: Path, vectors: np.ndarray, live: np.ndarray) -> None:
        self.vectors, self.live = vectors, live
        self._index = _read(data, vectors.shape)
        self.indexed = 0 if self._index is None else self._index.ntotal
        self._beside: np.ndarray | None = None
        if len(vectors) - self.indexed > EXACT_UP_TO:
            logger.warning("%s: %d clips are not in its faiss index yet", data, len(vectors) - self.indexed)

    def search(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return scores float32 and rows int64 (Q, count), best first; row -1 where there are no more.

        Args:
            queries: float32 (Q, dim) of length 1.
            count: rows for each.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        count = max(1, count)
        parts = [self._exact(queries, count, self.indexed)]
        if self._index is not None:
            parts.append(self._approximate(queries, count))
        return _best(parts, count)

    def exact(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Search as :meth:`search`, comparing with every row."""
        return _best([self._exact(np.ascontiguousarray(queries, np.float32), max(1, count), 0)], count)

    def scores(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the cosines of a query (dim,) and rows, by the stored vectors."""
        return np.asarray(self.vectors[rows].astype(np.float32) @ query)

    def _approximate(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        faiss = require("faiss", "retrieval")
        wanted = min(self.indexed, max(4 * count, 100))
        bits = np.packbits(self.live[: self.indexed], bitorder="little")
        selected = None if self.live[: self.indexed].all() else faiss.IDSelectorBitmap(bits)
        parameters = faiss.SearchParametersIVF(sel=selected, nprobe=min(_CELLS_SEARCHED, self._index.nlist))
        rows = self._index.search(queries, wanted, params=parameters)[1]
        rows[rows >= self.indexed] = -1  # of a damaged file
        scores = np.full(rows.shape, -np.inf, np.float32)
        for query, found, score in zip(queries, rows, scores, strict=True):
            there = found >= 0
            score[there] = self.scores(query, found[there])
        return scores, rows

    def _exact(self, queries: np.ndarray, count: int, begin: int) -> tuple[np.ndarray, np.ndarray]:
        scores = np.full((len(queries), count), -np.inf, np.float32)
        rows = np.full((len(queries), count), -1, np.int64)
        for first in range(begin, len(self.vectors), _BLOCK):
            block = self._block(first)
            found = queries @ block.T
            found[:, ~self.live[first : first + len(block)]] = -np.inf
            best = np.argpartition(-found, min(count, len(block)) - 1, axis=1)[:, :count]
            part = np.take_along_axis(found, best, 1)
            scores, rows = _best([(scores, rows), (part, np.where(np.isfinite(part), best + first, -1))], count)
        return scores, rows

    def _block(self, first: int) -> np.ndarray:
        """Return vectors as float32; those beside the faiss index are kept in memory if they are few."""
        if first < self.indexed or len(self.vectors) - self.indexed > EXACT_UP_TO:
            return self.vectors[first : first + _BLOCK].astype(np.float32)
        if self._beside is None:
            self._beside = self.vectors[self.indexed :].astype(np.float32)
        return self._beside[first - self.indexed :][:_BLOCK]


def _best(parts: list[tuple[np.ndarray, np.ndarray]], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the best of several results; equal scores in the order of their rows."""
    scores, rows = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
    order = np.lexsort((rows, -scores), axis=1)[:, :count]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def build_nearest(data: Path, rows: int, dim: int, exact_up_to: int | None = None) -> bool:
    """Bring the faiss index of a folder of data up to date, and tell whether it was written.

    Args:
        data: the folder.
        rows: vectors that are committed.
        dim: their width.
        exact_up_to: rows that need no index; None: :data:`EXACT_UP_TO`.

    Raises:
        MissingExtraError: if faiss is not installed and there are so many rows that an index is due.
    """
    if rows <= (EXACT_UP_TO if exact_up_to is None else exact_up_to):
        return False
    faiss = require("faiss", "retrieval")
    vectors = np.asarray(np.memmap(data / VECTORS, np.dtype("<f2"), mode="r", shape=(rows, dim)))
    trained = _trained_for(data)
    index = _read(data, (rows, dim), mapped=False) if rows < _TRAINED_AGAIN * trained else None
    if index is not None and rows - index.ntotal <= max(_MERGED_FROM * rows, 1):
        return False
    if index is None:
        trained, index = rows, _trained(faiss, vectors)
    for first in range(index.ntotal, rows, _BLOCK):
        index.add(vectors[first : min(first + _BLOCK, rows)].astype(np.float32))
    path = data / FILE
    (data / FACTS).unlink(missing_ok=True)  # until the new one is complete there is none
    with atomic_open(path, "wb") as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
    size = os.stat(path).st_size
    head = size - rows * (dim + _NUMBER_BYTES)
    hashes = {"sha256": file_sha256(path), "head_bytes": head, "head_sha256": _head_sha256(path, head)}
    write_json(data / FACTS, {"rows": rows, "trained_for": trained, "bytes": size, **hashes})
    return True


def drop_nearest(data: Path) -> None:
    """Remove the faiss index of a folder of data; readers keep it."""
    for name in (FACTS, FILE):
        (data / name).unlink(missing_ok=True)


def nearest_state(data: Path) -> str:
    """Return whether the faiss index of a folder of data is ``"none"``, ``"whole"`` or ``"damaged"``; reads it all."""
    if not (data / FILE).exists() and not (data / FACTS).exists():
        return "none"
    try:
        _check(data, whole=True)
    except DataError:
        return "damaged"
    return "whole"


def _trained(faiss: Any, vectors: np.ndarray) -> Any:
    rows, dim = vectors.shape
    cells = max(1, min(round(2 * rows**0.5), rows // _FEWEST_PER_CELL))
    chosen = np.sort(np.random.default_rng(_SEED).permutation(rows)[: cells * _SAMPLE_PER_CELL])
    sample = vectors[chosen].astype(np.float32)
    index = faiss.index_factory(dim, f"IVF{cells},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.niter = _SEED, 10
    index.cp.spherical = True
    index.train(sample)
    return index


def _trained_for(data: Path) -> int:
    try:
        found = read_json(data / FACTS)
    except DataError:
        return 0
    trained = found.get("trained_for") if isinstance(found, dict) else None
    return trained if isinstance(trained, int) else 0


def _head_sha256(path: Path, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(size)).hexdigest()


def _check(data: Path, whole: bool) -> None:
    """Compare the faiss file, or its head, with what was written.

    Raises:
        DataError: if it differs.
    """
    path, facts = data / FILE, read_json(data / FACTS)
    size = os.stat(path).st_size if path.is_file() else 0
    head = facts.get("head_bytes") if isinstance(facts, dict) else None
    if not isinstance(head, int) or not 0 < head <= size or facts.get("bytes") != size:
        raise DataError(f"{path}: was cut or changed")
    found, wanted = (file_sha256(path), "sha256") if whole else (_head_sha256(path, head), "head_sha256")
    if found != facts.get(wanted):
        raise DataError(f"{path}: is damaged")


def _read(data: Path, shape: tuple[int, ...], mapped: bool = True) -> Any:
    """Return the faiss index if it is complete and of these vectors, else None."""
    path = data / FILE
    if not path.is_file() or not (data / FACTS).is_file():
        return None
    faiss = require("faiss", "retrieval")
    try:
        _check(data, whole=not mapped)
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP if mapped else 0)
        if index.d != shape[1] or index.ntotal > shape[0] or not hasattr(index, "nlist"):
            raise DataError(f"{path}: is of other vectors")
    except (RuntimeError, DataError) as error:
        logger.warning("%s; it is left aside until the next mmpt index makes it again", str(error).splitlines()[0])
        return None
    return index
