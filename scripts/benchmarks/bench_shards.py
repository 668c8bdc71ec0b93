"""Reads from a warm shard in random order: opened once and kept, against reopened for every sample.

    python scripts/benchmarks/bench_shards.py

In "shard-reads" each clip's bytes are copied into a batch, as a data loader does; "shard-views" only make the array.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from mmpt.utils.shardedtensor import ShardedTensor, ShardedTensorWriter
from scripts.benchmarks.run import run_module
from scripts.benchmarks.work import Run, Work

__all__ = ["WORKS"]

ROWS, DIM = 32, 512
CLIP_BYTES = ROWS * DIM * 2

Reader = Callable[[int], np.ndarray]


def _write(folder: Path, clips: int, **_: Any) -> None:
    rng = np.random.default_rng(0)
    with ShardedTensorWriter(str(folder / "bench"), np.float16, (DIM,), {"tool": "bench_shards"}) as writer:
        for _number in range(clips):
            writer.append(rng.standard_normal((ROWS, DIM), np.float32).astype(np.float16))


def _reopening(folder: Path) -> Reader:
    """Return the naive way: open data and starts for every sample."""

    def read(i: int) -> np.ndarray:
        data = np.load(folder / "bench_data.npy", mmap_mode="r")
        starts = np.load(folder / "bench_starts.npy", mmap_mode="r")
        return data[starts[i] : starts[i + 1]]

    return read


def _kept(folder: Path) -> Reader:
    return ShardedTensor.load(str(folder / "bench")).__getitem__


def _run(opened: Callable[[Path], Reader], copied: bool) -> Callable[..., Run]:
    def make(folder: Path, clips: int, **_: Any) -> Run:
        read, batch = opened(folder), np.empty((ROWS, DIM), np.float16)
        order = np.random.default_rng(1).permutation(clips).tolist()

        def copies() -> np.ndarray:
            for i in order:
                batch[:] = read(i)
            return batch

        def views() -> list[Any]:
            for i in order:
                clip = read(i)
            return clip

        return Run(copies if copied else views, clips, bytes=CLIP_BYTES if copied else 0)

    return make


WORKS = tuple(
    Work(
        name,
        "clips",
        _run(_kept, copied),
        _run(_reopening, copied),
        "shards reopened for every sample",
        _write,
        {"clips": 4096},
        quick={"clips": 1024},
        tiny={"clips": 8},
        least_ratio=8,
    )
    for name, copied in (("shard-reads", True), ("shard-views", False))
)

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
