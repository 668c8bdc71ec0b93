"""The dynamic program that places the steps of a task in a video, against plain loops over its definition.

python scripts/benchmarks/bench_localization.py
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from mmpt.evaluators.step_localization import ordered_frames
from scripts.benchmarks.run import run_module
from scripts.benchmarks.work import Run, Work

__all__ = ["WORKS"]


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


def _run(place: Callable[[np.ndarray], Any]) -> Callable[..., Run]:
    def make(folder: Path, frames: int, steps: int) -> Run:
        cost = np.random.default_rng(0).standard_normal((frames, steps))
        return Run(lambda: np.asarray(place(cost)), frames, bytes=8 * steps)

    return make


WORKS = (
    Work(
        "step-localization",
        "seconds of video",
        _run(ordered_frames),
        _run(ordered_frames_by_loops),
        "a Python loop over steps and seconds",
        sizes={"frames": 2000, "steps": 20},
        quick={"frames": 400},
        tiny={"frames": 30, "steps": 3},
        least_ratio=100,
        group="evaluation",
    ),
)

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
