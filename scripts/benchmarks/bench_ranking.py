"""Time the ranks of a retrieval test: by counting in blocks, against sorting every row.

python scripts/benchmarks/bench_ranking.py            # 10,000 x 10,000
python scripts/benchmarks/bench_ranking.py --large    # 100,000 x 100,000 too, with its peak memory
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.evaluators.ranking import ranks, ranks_from_scores
from mmpt.utils.files import write_json

__all__ = ["main"]


def ranks_by_sorting(scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rank by sorting every row, the naive way; equal scores as they come."""
    descending = np.sort(-scores, axis=1)
    own = -scores[np.arange(len(scores)), target]
    return np.array([np.searchsorted(row, value, side="right") for row, value in zip(descending, own, strict=True)])


def _timed(what: str, call: Callable[[], np.ndarray], repeats: int = 3) -> tuple[float, np.ndarray]:
    best, result = float("inf"), np.empty(0)
    for _ in range(repeats):
        begin = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - begin)
    print(f"{what:<46} {best:8.3f} s")
    return best, result


def _pairs(count: int, dim: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    video = rng.standard_normal((count, dim), dtype=np.float32)
    return video + 4 * rng.standard_normal((count, dim), dtype=np.float32), video


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; return 0, or 1 if the ways disagree or memory passes 4 GiB."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10_000, help="texts and videos (default 10,000)")
    parser.add_argument("--dim", type=int, default=256, help="width of the embeddings (default 256)")
    parser.add_argument("--large", action="store_true", help="100,000 x 100,000 too; minutes")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    options = parser.parse_args(arguments)
    figures: dict[str, float] = {"size": options.size, "dim": options.dim}
    rng = np.random.default_rng(0)
    if options.large:  # first, so that the peak is its own
        text, video = _pairs(100_000, options.dim, rng)
        label = "100,000 x 100,000 from embeddings, by counting"
        figures["large_seconds"], _ = _timed(label, lambda: ranks(text, video, np.arange(100_000)), 1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        figures["large_peak_gib"] = peak
        print(f"{'peak memory of the process':<46} {peak:8.2f} GiB")
        if peak > 4:
            return 1
        del text, video
    text, video = _pairs(options.size, options.dim, rng)
    target = np.arange(options.size)
    scores = text @ video.T
    size = f"{options.size:,} x {options.size:,}"
    slow, expected = _timed(f"{size} scores, by sorting", lambda: ranks_by_sorting(scores, target), 1)
    fast, counted = _timed(f"{size} scores, by counting", lambda: ranks_from_scores(scores, target))
    whole, _ = _timed(f"{size} from embeddings, by counting", lambda: ranks(text, video, target), 1)
    figures |= {"sorting_seconds": slow, "counting_seconds": fast, "embeddings_seconds": whole, "ratio": slow / fast}
    print(f"{'sorting / counting':<46} {slow / fast:8.1f} x")
    if options.json:
        write_json(options.json, figures)
    return 0 if np.array_equal(expected, counted) else 1


if __name__ == "__main__":
    sys.exit(main())
