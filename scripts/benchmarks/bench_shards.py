"""Measure shard reads in clips/s: opened once and kept, against reopened for every sample.

    python scripts/benchmarks/bench_shards.py
    python scripts/benchmarks/bench_shards.py --clips 4096 --seconds 2 --json shards.json

Both read the same warm file in the same process, in the same random order. The ratio that counts is that of
reading: each clip's bytes are copied into a batch, as a data loader does. "view" only makes the array.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from mmpt.utils.files import write_json
from mmpt.utils.shardedtensor import ShardedTensor, ShardedTensorWriter

__all__ = ["main", "measure"]

ROWS, DIM = 32, 512
TARGET = 8.0

Reader = Callable[[int], np.ndarray]


def measure(read: Reader, order: list[int], seconds: float, copy: bool) -> float:
    """Return the clips read per second; goes round ``order`` until ``seconds`` have passed."""
    batch = np.empty((ROWS, DIM), np.float16)
    done, begin = 0, time.perf_counter()
    while True:
        for i in order:
            clip = read(i)
            if copy:
                batch[:] = clip
        done += len(order)
        passed = time.perf_counter() - begin
        if passed >= seconds:
            return done / passed


def _reopening_reader(prefix: str) -> Reader:
    """Return the naive reference: open data and starts for every sample."""

    def read(i: int) -> np.ndarray:
        data = np.load(f"{prefix}_data.npy", mmap_mode="r")
        starts = np.load(f"{prefix}_starts.npy", mmap_mode="r")
        return data[starts[i] : starts[i + 1]]

    return read


def _write_shard(prefix: str, clips: int) -> None:
    rng = np.random.default_rng(0)
    with ShardedTensorWriter(prefix, np.float16, (DIM,), {"tool": "bench_shards"}) as writer:
        for _ in range(clips):
            writer.append(rng.standard_normal((ROWS, DIM), np.float32).astype(np.float16))


def _report(prefix: str, clips: int, seconds: float) -> dict[str, float]:
    order = np.random.default_rng(1).permutation(clips).tolist()
    begin = time.perf_counter()
    shard = ShardedTensor.load(prefix)
    for i in order:
        shard[i]
    first_touch = clips / (time.perf_counter() - begin)
    naive = _reopening_reader(prefix)
    if any(not np.array_equal(shard[i], naive(i)) for i in order[:50]):
        raise AssertionError("the two readers disagree")
    rates = {
        "clips": clips,
        "first_touch_verified": first_touch,
        "reopened": measure(naive, order[:1000], seconds, True),
        "opened_once": measure(shard.__getitem__, order, seconds, True),
        "reopened_view": measure(naive, order[:1000], seconds, False),
        "opened_once_view": measure(shard.__getitem__, order, seconds, False),
    }
    rates["ratio"] = rates["opened_once"] / rates["reopened"]
    rates["ratio_view"] = rates["opened_once_view"] / rates["reopened_view"]
    return rates


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; exit code 1 if reading is not at least 8 times as fast when opened once."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clips", type=int, default=4096, help="clips in the shard, 32 KiB each (default 4096)")
    parser.add_argument("--seconds", type=float, default=1.0, help="least time per measurement (default 1)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        prefix = os.path.join(folder, "bench")
        _write_shard(prefix, options.clips)
        rates = _report(prefix, options.clips, options.seconds)
    print(f"{'clips/s, 32 x 512 fp16, warm':<30} {'reopened':>10} {'opened once':>12} {'ratio':>7}")
    for label, suffix in (("read into a batch", ""), ("view", "_view")):
        print(
            f"{label:<30} {rates['reopened' + suffix]:>10,.0f} {rates['opened_once' + suffix]:>12,.0f}"
            f" {rates['ratio' + suffix]:>6.1f}x"
        )
    print(f"{'first read, checksums included':<30} {'':>10} {rates['first_touch_verified']:>12,.0f}")
    if options.json:
        write_json(options.json, rates)
    return 0 if rates["ratio"] >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
