"""Memory over many reads: what a loader's two processes hold after a million reads, beyond what they began with.

    python scripts/benchmarks/bench_memory.py

Each worker reads items of a store of a million videos (``bench_start.py``) in random order, copying their bytes. The
figures are the private memory of a worker (``Private_Dirty`` and ``Private_Clean`` of smaps_rollup less what is mapped
from files and only cached) after a tenth of the reads, and at the end.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from mmpt.store.features import ShardedFeatureStore
from mmpt.store.frame_store import FrameStore
from scripts.benchmarks.bench_start import PER_SHARD, write_many_clips, write_many_frames
from scripts.benchmarks.run import run_module
from scripts.benchmarks.work import Run, Work

__all__ = ["WORKER_MEMORY", "WORKS", "anonymous_bytes", "growth"]

#: A figure of these works: the most that a worker holds.
WORKER_MEMORY = "a worker's own memory, MiB"


def anonymous_bytes() -> int:
    """Return the memory of this process that is its own: what it wrote, or copied of its parent's."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines[1:])
    return int(found["Private_Dirty"].split()[0]) * 1024


def growth(read: Callable[[int], Any], items: int, reads: int) -> tuple[int, int]:
    """Return the own memory after a tenth of random reads, and what it grew by in the others."""
    order = np.random.default_rng(0).integers(0, items, reads)
    first = reads // 10
    for index in order[:first].tolist():
        read(index)
    before = anonymous_bytes()
    for begin in range(first, reads, 10_000):
        for index in order[begin : begin + 10_000].tolist():
            read(index)
    return before, anonymous_bytes() - before


def _clips(folder: Path, videos: int) -> Callable[[int], Any]:
    store = ShardedFeatureStore(str(folder), "train")
    return lambda index: store.read(index // PER_SHARD, index % PER_SHARD).astype(np.float32)


def _frames(folder: Path, videos: int) -> Callable[[int], Any]:
    store = FrameStore(str(folder / "store"))
    ids = store.ids
    return lambda index: store[ids[index]][0].tobytes()


def _worker(send: Any, read: Callable[[int], Any], items: int, reads: int) -> None:
    begin = time.perf_counter()
    send.send((*growth(read, items, reads), time.perf_counter() - begin))


def _reading(opened: Callable[[Path, int], Callable[[int], Any]]) -> Callable[..., Run]:
    def make(folder: Path, videos: int, reads: int, workers: int) -> Run:
        read, found = opened(folder, videos), {}
        fork = multiprocessing.get_context("fork")  # as a loader makes its workers

        def call() -> float:
            pipes = [fork.Pipe(False) for _ in range(workers)]
            children = [fork.Process(target=_worker, args=(send, read, videos, reads)) for _, send in pipes]
            for child in children:
                child.start()
            answers = [receive.recv() for receive, _ in pipes]
            for child in children:
                child.join()
            found[WORKER_MEMORY] = max(own for own, _, _ in answers) / 2**20
            found["growth over the last nine tenths, MiB"] = max(grown for _, grown, _ in answers) / 2**20
            return max(seconds for _, _, seconds in answers)

        return Run(call, reads * workers, own_clock=True, figures=lambda: found)

    return make


WORKS = tuple(
    Work(
        f"many-reads-{kind}",
        "reads",
        _reading(opened),
        prepare=write,
        sizes={"videos": 1_000_000, "reads": 1_000_000, "workers": 2},
        quick={"videos": 20_000, "reads": 50_000},
        tiny={"videos": 50, "reads": 1000, "workers": 1},
        threads=2,
        group="alone",
    )
    for kind, write, opened in (("clips", write_many_clips, _clips), ("frames", write_many_frames, _frames))
)

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
