"""The index of clips: searching it against comparing with all, building it, adding to it, and an add that is killed.

    python scripts/benchmarks/bench_search.py
    python scripts/benchmarks/bench_search.py -o vectors=1000000            # what docs/search.md tells; minutes

The vectors are like embeddings of clips, not plain noise: topics, videos around a topic, and the clips of a video
around it, each a step of Gaussian noise; a query is a clip and one more step. "index-killed" kills a process that adds
videos (kill -9) and adds them again: it fails if one is lost or damaged.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from mmpt.api.search import ClipIndex
from mmpt.api.search.layout import IndexSettings
from mmpt.api.search.nearest import EXACT_UP_TO, build_nearest
from mmpt.api.search.writer import IndexWriter, writing_index
from mmpt.utils.files import read_json, write_json
from scripts.benchmarks.run import run_module
from scripts.benchmarks.work import Run, Work, WrongResult

__all__ = ["WORKS"]

_CLIPS = 500  # of a video
_TOPICS, _SPREAD = 500, (0.8, 0.6)  # of videos around a topic, and of clips around a video
_STEP = 0.5  # of a query from its clip


def clips_of(video: int, dim: int) -> np.ndarray:
    """Return the vectors (500, dim) float32 of a video, by its number."""
    topics = np.random.default_rng(0).standard_normal((_TOPICS, dim), dtype=np.float32)
    rng = np.random.default_rng(1 + video)
    middle = topics[rng.integers(_TOPICS)] + _SPREAD[0] * rng.standard_normal(dim, dtype=np.float32)
    return np.asarray(middle + _SPREAD[1] * rng.standard_normal((_CLIPS, dim), dtype=np.float32))


def _add(writer: IndexWriter, videos: range, dim: int) -> None:
    starts = 2.0 * np.arange(_CLIPS)
    for video in videos:
        writer.add(f"0:{video:07d}.mp4", starts, starts + 4, clips_of(video, dim), [], {"size": 0, "mtime_ns": 0})


def _fill(folder: Path, videos: range, dim: int) -> dict[str, float]:
    """Add videos to an index; return the seconds of writing, and of what faiss builds."""
    begin = time.perf_counter()
    settings = IndexSettings("synthetic", "VideoCLIP", "synthetic", dim, 4.0, 2.0, 0, ["/videos"])
    with writing_index(folder, settings) as writer:
        _add(writer, videos, dim)
        written = time.perf_counter()
        build_nearest(writer.data, writer.rows, dim, EXACT_UP_TO)
    return {"seconds to write": written - begin, "seconds of faiss": time.perf_counter() - written}


def _add_until_killed(folder: Path, videos: range, dim: int) -> None:
    with writing_index(folder) as writer:
        for video in videos:
            _add(writer, range(video, video + 1), dim)


def _queries(rows: int, dim: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    videos = rng.integers(0, rows // _CLIPS, count)
    chosen = np.stack([clips_of(int(video), dim)[rng.integers(_CLIPS)] for video in videos])
    chosen += _STEP * rng.standard_normal(chosen.shape, dtype=np.float32)
    return np.asarray(chosen / np.linalg.norm(chosen, axis=1, keepdims=True))


def _build(folder: Path, vectors: int, dim: int) -> None:
    found = _fill(folder / "index", range(max(4, vectors // _CLIPS)), dim)
    write_json(folder / "built.json", found)


def _searching(exact: bool, single: bool) -> Callable[..., Run]:
    def make(folder: Path, vectors: int, dim: int, queries: int) -> Run:
        index = ClipIndex.open(folder / "index")
        wanted = _queries(len(index), dim, queries)
        search = index.nearest.exact if exact else index.nearest.search
        batches = list(wanted[:, None]) if single else [wanted]

        def call() -> np.ndarray:
            return np.concatenate([search(batch, 10)[1] for batch in batches])

        def figures() -> dict[str, Any]:
            right, found = index.nearest.exact(wanted, 10)[1], call()
            recall = float(np.mean([np.isin(one, other).mean() for one, other in zip(right, found, strict=True)]))
            return {"vectors": len(index), "recall of the 10 nearest": recall} | read_json(folder / "built.json")

        return Run(call, queries, figures=figures)

    return make


@contextmanager
def _adding(folder: Path, videos: range, dim: int) -> Iterator[Any]:
    """Have a child add videos; it is killed at the end."""
    child = multiprocessing.get_context("spawn").Process(target=_add_until_killed, args=(folder, videos, dim))
    child.start()
    try:
        yield child
    finally:
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()


def _killed(folder: Path, videos: int, dim: int) -> Run:
    kept = {}

    def call() -> float:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            index = Path(place) / "index"
            _fill(index, range(videos), dim)
            begin = time.perf_counter()
            with _adding(index, range(videos, 2 * videos), dim) as child:
                while child.is_alive() and len(ClipIndex.open(index)) // _CLIPS < videos + videos // 2:
                    time.sleep(0.02)
            opened = ClipIndex.open(index)
            kept["videos kept of those begun"] = len(opened) // _CLIPS - videos
            damaged = sum(1 for _ in opened.snapshot.damaged())
            _fill(index, range(videos, 2 * videos), dim)
            there = len(ClipIndex.open(index).snapshot.videos)
            if damaged or there != 2 * videos:
                raise WrongResult(f"{damaged} videos are damaged, {2 * videos - there} are lost")
            return time.perf_counter() - begin

    return Run(call, videos, own_clock=True, figures=lambda: kept)


_COMMON: dict[str, Any] = {"sizes": {"vectors": 100_000, "dim": 512, "queries": 200}, "threads": 2, "tolerance": None}
WORKS = (
    *(
        Work(
            f"search-{name}",
            "queries",
            _searching(False, name == "single"),
            _searching(True, name == "single"),
            "every vector compared",
            _build,
            **{**_COMMON, "sizes": _COMMON["sizes"] | {"queries": queries}},
            quick={"vectors": 70_000, "dim": 64, "queries": 20},
            tiny={"vectors": 2000, "dim": 8, "queries": 4},
            least_ratio=3,
            group="evaluation",
        )
        for name, queries in (("batched", 200), ("single", 20))
    ),
    Work(
        "index-killed",
        "videos",
        _killed,
        sizes={"videos": 20, "dim": 512},
        quick={"videos": 8, "dim": 64},
        tiny={"videos": 4, "dim": 8},
        tolerance=None,
        group="alone",
    ),
)

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
