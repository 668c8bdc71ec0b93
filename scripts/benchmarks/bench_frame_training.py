"""Measure VIOLET's pre-training step on raw frames: speed and peak memory, plain and with gradient checkpointing.

python scripts/benchmarks/bench_frame_training.py                # both sizes on two cores: ten minutes, 10 GB
python scripts/benchmarks/bench_frame_training.py --sizes tiny

"tiny" is Swin-T with a 4-layer, 256-d BERT on 4 frames of 96 pixels, "base" the published size (Swin-S, BERT-base, 4
frames of 224 pixels). A step is masking, the three objectives with 4 texts for each video, backward and AdamW. Speeds
(clips per second of processor time) of one size are those of one process in which both ways take turns; the memory is
that of a fresh process for each.
"""

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from mmpt.losses.violet import VIOLETLoss
from mmpt.utils.files import write_json
from scripts.benchmarks.frame_step import SIZES, random_clips, violet

__all__ = ["main"]

WAYS = {"plain": False, "gradient_checkpointing": True}
#: Clips of a batch by size, and steps that are timed.
_CLIPS, _ROUNDS = {"tiny": 4, "base": 2}, {"tiny": 3, "base": 2}
_GIB = 2**20  # ru_maxrss counts KiB


class _Training:
    """A model, an optimizer and a batch."""

    def __init__(self, size: str, way: str, clips: int) -> None:
        self.model = violet(size, gradient_checkpointing=WAYS[way]).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=2e-5, betas=(0.9, 0.98), weight_decay=1e-3)
        self.loss, self.batch = VIOLETLoss(), random_clips(size, clips)

    def step(self) -> None:
        self.loss(**self.model(**self.batch)).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def speeds(size: str, clips: int, rounds: int, threads: int) -> dict[str, float]:
    """Return clips per processor second of each way, from the median step; they take turns."""
    torch.set_num_threads(threads)
    trainings = {way: _Training(size, way, clips) for way in WAYS}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds + 1):
        for way, training in trainings.items():
            begin = time.process_time()
            training.step()
            seconds[way].append(time.process_time() - begin)
    return {way: clips / statistics.median(taken[1:]) for way, taken in seconds.items()}


def memory(size: str, way: str, clips: int, threads: int) -> dict[str, float]:
    """Return the GiB that a process takes at the most, and what of that is beyond weights and optimizer's state."""
    torch.set_num_threads(threads)
    training = _Training(size, way, clips)
    for parameter in training.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    training.optimizer.step()  # makes its state
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    training.step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak": peak / _GIB, "step": (peak - before) / _GIB}


def _in_a_process(work: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; return 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="default: both")
    parser.add_argument("--clips", type=int, help="clips of a batch (default: 4 tiny, 2 base)")
    parser.add_argument("--rounds", type=int, help="steps that are timed (default: 3 tiny, 2 base)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    options = parser.parse_args(arguments)
    figures: dict[str, dict[str, dict[str, float]]] = {}
    print(f"{'':<40}{'clips/cpu s':>12}{'speed':>8}{'peak GiB':>10}{'step GiB':>10}{'of plain':>10}")
    for size in options.sizes:
        clips, rounds = options.clips or _CLIPS[size], options.rounds or _ROUNDS[size]
        clips_per_second = _in_a_process(speeds, size, clips, rounds, options.threads)
        figures[size] = {}
        for way in WAYS:
            one = {"clips_per_second": clips_per_second[way], "clips": clips}
            one |= _in_a_process(memory, size, way, clips, options.threads)
            plain = figures[size].setdefault("plain", one)
            figures[size][way] = one
            one["speed"], one["memory"] = clips_per_second[way] / clips_per_second["plain"], one["step"] / plain["step"]
            numbers = (one["speed"], one["peak"], one["step"], one["memory"])
            row = "".join(f"{number:>{width}.2f}" for number, width in zip(numbers, (8, 10, 10, 10), strict=True))
            print(f"{size + ', ' + str(clips) + ' clips, ' + way:<40}{one['clips_per_second']:>12.3f}{row}", flush=True)
    if options.json:
        write_json(options.json, {"threads": options.threads, "sizes": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
