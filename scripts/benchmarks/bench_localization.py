"""Time the dynamic program that places the steps of a task in a video, against plain loops over its definition.

python scripts/benchmarks/bench_localization.py            # 2,000 frames, 20 steps
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.evaluators.step_localization import ordered_frames
from mmpt.utils.files import write_json

__all__ = ["main"]


def ordered_frames_by_loops(cost: np.ndarray) -> list[int]:
    """Choose one frame per step in order, the naive way: every step at every frame after every earlier frame."""
    frames, steps = cost.shape
    values = cost.tolist()
    totals = [row[0] for row in values]
    before: list[list[int]] = []
    for step in range(1, steps):
        current, chosen = [float("inf")] * frames, [-1] * frames
        for frame in range(step, frames):
            for earlier in range(step - 1, frame):
                if totals[earlier] + values[frame][step] < current[frame]:
                    current[frame] = totals[earlier] + values[frame][step]
                    chosen[frame] = earlier
        totals = current
        before.append(chosen)
    path = [totals.index(min(totals))]
    for chosen in reversed(before):
        path.append(chosen[path[-1]])
    return path[::-1]


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; return 0, or 1 if the ways disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2000, help="frames of the video (default 2,000)")
    parser.add_argument("--steps", type=int, default=20, help="steps of the task (default 20)")
    parser.add_argument("--repeats", type=int, default=50, help="runs of the fast way, of which the mean (default 50)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    options = parser.parse_args(arguments)
    cost = np.random.default_rng(0).standard_normal((options.frames, options.steps))
    begin = time.perf_counter()
    for _ in range(options.repeats):
        fast = ordered_frames(cost)
    vectorised = (time.perf_counter() - begin) / options.repeats
    begin = time.perf_counter()
    slow = ordered_frames_by_loops(cost)
    loops = time.perf_counter() - begin
    print(f"{options.frames:,} frames, {options.steps} steps")
    print(f"{'plain loops':<24} {loops:12.6f} s")
    print(f"{'vectorised':<24} {vectorised:12.6f} s")
    print(f"{'ratio':<24} {loops / vectorised:12.1f} x")
    if options.json:
        figures = {"frames": options.frames, "steps": options.steps}
        write_json(options.json, {**figures, "loops_seconds": loops, "vectorised_seconds": vectorised})
    return 0 if fast.tolist() == slow else 1


if __name__ == "__main__":
    sys.exit(main())
