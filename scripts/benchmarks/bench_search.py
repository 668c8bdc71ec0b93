"""Time the index of clips: building, searching against comparing with all, adding, and an add that is killed.

python scripts/benchmarks/bench_search.py                                    # 1,000,000 vectors of 512; minutes
python scripts/benchmarks/bench_search.py --vectors 20000 --dim 64 --exact-up-to 5000

The vectors are like embeddings of clips, not plain noise: topics, videos around a topic, and the clips of a video
around it, each a step of Gaussian noise; a query is a clip and one more step. Memory that is mapped from files and
only cached counts in the peaks too.
"""

import argparse
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.api.search import ClipIndex
from mmpt.api.search.layout import IndexSettings
from mmpt.api.search.nearest import EXACT_UP_TO, build_nearest
from mmpt.api.search.writer import IndexWriter, writing_index
from mmpt.utils.files import write_json

__all__ = ["main"]

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


def _fill(folder: Path, videos: range, dim: int, exact_up_to: int) -> dict[str, float]:
    begin = time.perf_counter()
    settings = IndexSettings("synthetic", "VideoCLIP", "synthetic", dim, 4.0, 2.0, 0, ["/videos"])
    with writing_index(folder, settings) as writer:
        _add(writer, videos, dim)
        written = time.perf_counter()
        built = build_nearest(writer.data, writer.rows, dim, exact_up_to)
    return {"write_seconds": written - begin, "faiss_seconds": time.perf_counter() - written, "built": float(built)}


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


def _search(folder: Path, dim: int, queries: int, exact: bool) -> dict[str, Any]:
    begin = time.perf_counter()
    index = ClipIndex.open(folder)
    opened = time.perf_counter() - begin
    wanted = _queries(len(index) // _CLIPS * _CLIPS, dim, queries)
    call = index.nearest.exact if exact else index.nearest.search
    call(wanted[:1], 10)
    begin = time.perf_counter()
    rows = call(wanted, 10)[1]
    batched = queries / (time.perf_counter() - begin)
    singles = wanted[: 5 if exact else 100]
    begin = time.perf_counter()
    for query in singles:
        call(query[None], 10)
    single = len(singles) / (time.perf_counter() - begin)
    return {"open_seconds": opened, "batched_per_second": batched, "single_per_second": single, "rows": rows.tolist()}


def _in_child(call: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run a call in a fresh process; its result, and the process's peak in GiB."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(False)
    child = context.Process(target=_answer, args=(send, call, arguments))
    child.start()
    send.close()
    found: dict[str, Any] = receive.recv()
    child.join()
    return found


def _answer(send: Any, call: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
    found = call(*arguments)
    send.send(found | {"peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20})


def _killed(folder: Path, videos: range, dim: int) -> dict[str, float]:
    """Kill a child while it adds videos; return how many it had begun, and how many are there."""
    before = len(ClipIndex.open(folder)) // _CLIPS
    child = multiprocessing.get_context("spawn").Process(target=_add_until_killed, args=(folder, videos, dim))
    child.start()
    assert child.pid is not None
    while child.is_alive() and len(ClipIndex.open(folder)) // _CLIPS < before + len(videos) // 2:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    index = ClipIndex.open(folder)
    damaged = sum(1 for _ in index.snapshot.damaged())
    return {"killed_videos": len(videos), "kept_videos": len(index) // _CLIPS - before, "damaged_videos": damaged}


def _rows(figures: dict[str, Any]) -> Iterator[str]:
    for name, value in figures.items():
        yield f"{name:<32} {value:>14,.4f}" if isinstance(value, float) else f"{name:<32} {value:>14,}"


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; return 0, or 1 if something was lost or damaged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--exact-up-to", type=int, default=EXACT_UP_TO, help="rows that get no faiss index")
    parser.add_argument("--folder", help="where the index is made; by default a temporary folder")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        figures = _measure(Path(temporary, "index"), options)
    for way in ("batched", "single"):
        figures[f"{way}_ratio"] = figures[f"search_{way}_per_second"] / figures[f"exact_{way}_per_second"]
    print("\n".join(_rows(figures)))
    if options.json:
        write_json(options.json, figures)
    return 0 if figures["lost_videos"] == 0 and figures["damaged_videos"] == 0 else 1


def _measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    dim, videos = options.dim, max(4, options.vectors // _CLIPS)
    more = max(4, videos // 100)
    figures: dict[str, Any] = {"vectors": videos * _CLIPS, "dim": dim}
    built = _in_child(_fill, folder, range(videos), dim, options.exact_up_to)
    figures |= {f"build_{name}": value for name, value in built.items()}
    ours = _in_child(_search, folder, dim, options.queries, False)
    exact = _in_child(_search, folder, dim, options.queries, True)
    both = zip(ours.pop("rows"), exact.pop("rows"), strict=True)
    figures["recall_at_10"] = float(np.mean([np.isin(right, found).mean() for found, right in both]))
    figures |= {f"search_{name}": value for name, value in ours.items()}
    figures |= {f"exact_{name}": value for name, value in exact.items()}
    added = _in_child(_fill, folder, range(videos, videos + more), dim, options.exact_up_to)
    figures |= {"added_vectors": more * _CLIPS, "add_seconds": added["write_seconds"] + added["faiss_seconds"]}
    after = _in_child(_search, folder, dim, options.queries, False)
    figures |= {f"after_add_{name}": after[name] for name in ("batched_per_second", "single_per_second")}
    figures |= _killed(folder, range(videos + more, videos + 2 * more), dim)
    begin = time.perf_counter()
    _in_child(_fill, folder, range(videos + more, videos + 2 * more), dim, options.exact_up_to)
    figures["again_seconds"] = time.perf_counter() - begin
    figures["lost_videos"] = videos + 2 * more - len(ClipIndex.open(folder).snapshot.videos)
    return figures


if __name__ == "__main__":
    sys.exit(main())
