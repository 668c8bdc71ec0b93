"""The ranks of a retrieval test: by counting in blocks, against sorting every row.

    python scripts/benchmarks/bench_ranking.py

"ranks" takes 10,000 x 10,000 scores, "ranks-large" the embeddings of 50,000 texts and videos, whose scores would take
10 GB: it has no reference but the matrix product, and 4 GiB for all.
"""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from mmpt.evaluators.ranking import ranks, ranks_from_scores
from scripts.benchmarks.child import peak_bytes
from scripts.benchmarks.run import run_module
from scripts.benchmarks.work import Run, Work, WrongResult

__all__ = ["WORKS"]

MOST_BYTES = 4 * 2**30


def ranks_by_sorting(scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rank by sorting every row, the naive way; equal scores as they come."""
    descending = np.sort(-scores, axis=1)
    own = -scores[np.arange(len(scores)), target]
    return np.array([np.searchsorted(row, value, side="right") for row, value in zip(descending, own, strict=True)])


def _pairs(count: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    video = rng.standard_normal((count, dim), dtype=np.float32)
    return video + 4 * rng.standard_normal((count, dim), dtype=np.float32), video


def _from_scores(rank: Callable[..., np.ndarray]) -> Callable[..., Run]:
    def make(folder: Path, size: int, dim: int) -> Run:
        text, video = _pairs(size, dim)
        scores, target = text @ video.T, np.arange(size)
        return Run(lambda: rank(scores, target), size, bytes=4 * size, bound="read")

    return make


def _from_embeddings(folder: Path, size: int, dim: int) -> Run:
    text, video = _pairs(size, dim)

    def call() -> np.ndarray:
        found = ranks(text, video, np.arange(size))
        if peak_bytes() > MOST_BYTES:
            raise WrongResult(f"the process held {peak_bytes() / 2**30:.2f} GiB, 4 are promised")
        return found

    return Run(call, size, flop=2.0 * size * dim)


WORKS = (
    Work(
        "ranks",
        "texts",
        _from_scores(ranks_from_scores),
        _from_scores(ranks_by_sorting),
        "every row sorted",
        sizes={"size": 10_000, "dim": 256},
        quick={"size": 3000},
        tiny={"size": 50, "dim": 8},
        least_ratio=10,
        group="evaluation",
    ),
    Work(
        "ranks-large",
        "texts",
        _from_embeddings,
        sizes={"size": 50_000, "dim": 256},
        quick={"size": 10_000},
        tiny={"size": 50, "dim": 8},
        threads=2,
        group="alone",
    ),
)

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
