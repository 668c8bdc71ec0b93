"""Vectors of videos: a pool that averages them over clips, and an index that finds the nearest ones (faiss)."""

import logging
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.extras import require
from mmpt.utils.files import atomic_open, read_json, write_json

__all__ = ["VectorIndex", "VideoVectorPool", "all_cores"]

logger = logging.getLogger(__name__)

# Fewer training vectors per cell than this and faiss' k-means warns that its cells are poor.
POINTS_PER_CELL = 39
#: The fewest queries that a thread searches for at a time: for a few hundred faiss takes ten times as long for each.
#: The rounding depends on it, so it must not depend on the machine.
QUERY_BLOCK = 1024


@contextmanager
def all_cores() -> Iterator[None]:
    """Let searches in the block use all cores of this process's affinity, whatever OMP_NUM_THREADS says.

    For a search that other processes of the node wait for.
    """
    faiss = require("faiss", "retrieval")
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


class VideoVectorPool:
    """Collect one vector per video: the mean over its clips of (video + text) / 2 (VideoCLIP, section 3.3)."""

    def __init__(self, config: Any = None) -> None:
        self._positions: dict[str, int] = {}
        self._sums = np.zeros((0, 0), np.float32)
        self._counts = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._positions)

    def add(self, ids: Sequence[str], video: np.ndarray, text: np.ndarray | None = None) -> None:
        """Add clips: ids of their videos, repeated where a video has several clips, and float (N, H) vectors each.

        With ``text`` a clip's vector is the mean of the two; without, ``video`` is taken as it is.

        Raises:
            DataError: if the numbers or widths disagree, or a vector is not finite; names the video.
        """
        video = np.asarray(video, np.float32)
        text = video if text is None else np.asarray(text, np.float32)
        if video.shape != text.shape or video.ndim != 2 or len(ids) != len(video):
            raise DataError(f"{len(ids)} ids with vectors of shape {video.shape} and {text.shape}")
        self._accumulate(ids, (video + text) / 2, np.ones(len(ids), np.int64))

    def merge(self, ids: Sequence[str], sums: np.ndarray, counts: np.ndarray) -> None:
        """Add what another pool gives as :meth:`state`; clips of a video that both hold are averaged together."""
        self._accumulate(ids, np.asarray(sums, np.float32), np.asarray(counts, np.int64))

    def state(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Return ids, sums over clips (N, H) float32 and numbers of clips (N,) int64: what ranks exchange."""
        count = len(self)
        return list(self._positions), self._sums[:count].copy(), self._counts[:count].copy()

    def vectors(self) -> tuple[list[str], np.ndarray]:
        """Return the ids in the order of their first appearance and their vectors, float32 (N, H)."""
        ids, sums, counts = self.state()
        return ids, sums / counts[:, None]

    def _accumulate(self, ids: Sequence[str], sums: np.ndarray, counts: np.ndarray) -> None:
        if not len(ids):
            return
        finite = np.isfinite(sums).all(1)
        if not finite.all():
            raise DataError(f"video {ids[int(np.argmin(finite))]!r}: its vector is not finite")
        if self._sums.shape[1] not in (0, sums.shape[1]):
            raise DataError(f"vectors of width {sums.shape[1]} in a pool of width {self._sums.shape[1]}")
        rows = np.array([self._positions.setdefault(name, len(self._positions)) for name in ids])
        if len(self) > len(self._sums):
            capacity = max(len(self), 2 * len(self._sums))
            grown = np.zeros((capacity, sums.shape[1]), np.float32)
            grown[: len(self._sums)] = self._sums if self._sums.size else 0
            self._counts = np.concatenate([self._counts, np.zeros(capacity - len(self._counts), np.int64)])
            self._sums = grown
        np.add.at(self._sums, rows, sums)
        np.add.at(self._counts, rows, counts)


class VectorIndex:
    """Nearest vectors by Euclidean distance, with ids.

    Args:
        vectors: float (N, H), N at least 1.
        ids: N strings or integers; of repeated ids the first is kept and the others are counted in the log.
        kind: ``"exact"`` compares with every vector; ``"ivf"`` with those of the nearest ``nprobe`` of ``nlist``
            k-means cells: faster for large corpora, and approximate (:meth:`recall_against_exact`).
        nlist: number of cells; None is 4 sqrt(N), but no cell for fewer than 39 vectors.
        nprobe: cells searched; None is an eighth of them.

    Raises:
        DataError: if there is no vector, or ids and vectors differ in number.
        ConfigError: if ``kind`` is unknown or a number is below 1.
        MissingExtraError: if faiss is not installed.
    """

    def __init__(
        self,
        vectors: np.ndarray,
        ids: Sequence[Any],
        kind: str = "exact",
        nlist: int | None = None,
        nprobe: int | None = None,
    ) -> None:
        vectors = np.asarray(vectors, np.float32)
        if vectors.ndim != 2 or len(vectors) != len(ids) or not len(ids):
            raise DataError(f"an index needs one vector per id and at least one: {vectors.shape}, {len(ids)} ids")
        first = {name: position for position, name in reversed(list(enumerate(ids)))}
        kept = sorted(first.values())
        if len(kept) < len(ids):
            logger.info("vector index: %d of %d ids are repeated and left out", len(ids) - len(kept), len(ids))
            vectors = vectors[kept]
        self.ids: list[Any] = [ids[position] for position in kept]
        self.kind = kind
        self._index = _build(np.ascontiguousarray(vectors), kind, nlist, nprobe)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self._index.d

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the ``k`` nearest of each query (Q, H), or all there are, with as many threads as faiss may use.

        The result does not depend on their number: each thread searches for whole blocks of queries. faiss' own
        threads share a matrix product, whose rounding differs with their number.

        Returns:
            squared distances float32 and positions in ``ids`` int64, both (Q, min(k, N)), nearest first; an IVF
            index whose searched cells hold fewer fills up with position -1.
        """
        faiss = require("faiss", "retrieval")
        queries, k = np.ascontiguousarray(queries, np.float32), max(1, min(k, len(self)))
        blocks = np.array_split(queries, max(1, len(queries) // QUERY_BLOCK))

        def found(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            faiss.omp_set_num_threads(1)  # of this thread
            return self._index.search(block, k)

        with ThreadPoolExecutor(min(faiss.omp_get_max_threads(), len(blocks))) as threads:
            distances, positions = zip(*threads.map(found, blocks), strict=True)
        return np.concatenate(distances), np.concatenate(positions)

    def vectors(self) -> np.ndarray:
        """Return the stored vectors, float32 (N, H), in the order of ``ids``."""
        if self.kind == "ivf":
            self._index.make_direct_map()
        return self._index.reconstruct_n(0, len(self))

    def recall_against_exact(self, k: int, rng: np.random.Generator, samples: int = 1000) -> float:
        """Measure which share of the exact ``k`` nearest of up to ``samples`` stored vectors a search finds; log it."""
        if self.kind == "exact":
            return 1.0
        vectors = self.vectors()
        queries = vectors[rng.choice(len(self), min(samples, len(self)), replace=False)]
        exact = VectorIndex(vectors, range(len(self))).search(queries, k)[1]
        found = self.search(queries, k)[1]
        recall = float(np.mean([np.isin(wanted, got).mean() for wanted, got in zip(exact, found, strict=True)]))
        logger.info(
            "IVF index of %d vectors, %d cells, %d searched: recall@%d %.3f",
            *(len(self), self._index.nlist, self._index.nprobe, k, recall),
        )
        return recall

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``<path>.faiss`` and ``<path>.ids.json``, the ids last, each atomically."""
        faiss = require("faiss", "retrieval")
        with atomic_open(f"{path}.faiss", "wb") as file:
            file.write(faiss.serialize_index(self._index).tobytes())
        write_json(f"{path}.ids.json", {"kind": self.kind, "ids": self.ids}, indent=None)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "VectorIndex":
        """Read what :meth:`save` wrote.

        Raises:
            DataError: if a file is missing or damaged, or the two do not belong together.
        """
        faiss = require("faiss", "retrieval")
        content = read_json(f"{path}.ids.json")
        ids, kind = (content.get(key) if isinstance(content, dict) else None for key in ("ids", "kind"))
        if not isinstance(ids, list) or not all(isinstance(id, str | int) for id in ids) or not isinstance(kind, str):
            raise DataError(f"{path}.ids.json: not the ids of an index; build the index again")
        file = Path(f"{path}.faiss")
        if not file.is_file():
            raise DataError(f"{file}: no such file")
        try:
            index = faiss.deserialize_index(np.frombuffer(file.read_bytes(), np.uint8))
        except RuntimeError as error:
            raise DataError(f"{file}: not a faiss index, or damaged ({str(error).splitlines()[0]})") from error
        if index.ntotal != len(ids):
            raise DataError(f"{file}: holds {index.ntotal} vectors, but {path}.ids.json {len(ids)} ids")
        loaded = cls.__new__(cls)
        loaded.ids, loaded.kind, loaded._index = ids, kind, index
        return loaded


def _build(vectors: np.ndarray, kind: str, nlist: int | None, nprobe: int | None) -> Any:
    faiss = require("faiss", "retrieval")
    count, dim = vectors.shape
    if kind == "exact":
        index = faiss.IndexFlatL2(dim)
    elif kind == "ivf":
        for name, value in (("retri_nlist", nlist), ("retri_nprobe", nprobe)):
            if value is not None and value < 1:
                raise ConfigError(f"{name}: must be at least 1, not {value}")
        cells = min(nlist or round(4 * math.sqrt(count)), max(1, count // POINTS_PER_CELL))
        if nlist and cells < nlist:
            logger.warning("retri_nlist: %d cells are too many for %d vectors, using %d", nlist, count, cells)
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, cells)
        index.nprobe = min(nprobe or math.ceil(cells / 8), cells)
        index.train(vectors)
    else:
        raise ConfigError(f"retri_index: {kind!r} is neither 'exact' nor 'ivf'")
    index.add(vectors)
    return index
