"""Time VideoCLIP's training step through fairseq's trainer: 1 process on 1 and on 2 threads, 2 processes on one each.

python scripts/benchmarks/bench_scaling.py                           # two minutes on 2 cores
python scripts/benchmarks/bench_scaling.py --pairs 128 --steps 5     # the reference step of docs/scaling.md
python scripts/benchmarks/bench_scaling.py --json FILE

Each process trains on its own pairs: 2 processes take twice as many an update as one (weak scaling). The settings take
turns, step by step in rounds, so that another load on the machine meets all of them; the figures are medians.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.distributed as dist

from mmpt.losses.contrastive import MMContraLoss
from mmpt.utils.files import write_json
from scripts.benchmarks.fairseq_trainer import make_trainer
from scripts.benchmarks.videoclip_step import random_pairs, videoclip

__all__ = ["main"]


class Setting(NamedTuple):
    """One way of running the step; negatives of the own worker, or of all."""

    workers: int
    threads: int
    everyone: bool = False

    def __str__(self) -> str:
        if self.workers == 1:
            return f"1 process, {self.threads} thread{'s' * (self.threads > 1)}"
        return f"{self.workers} processes, {'global' if self.everyone else 'per-worker'} negatives"


SETTINGS = (Setting(1, 1), Setting(1, 2), Setting(2, 1), Setting(2, 1, everyone=True))


def _process(rank: int, setting: Setting, folder: str, pairs: int, steps: int) -> None:
    warnings.simplefilter("ignore")  # fairseq's, of its own settings
    torch.set_num_threads(setting.threads)
    if setting.workers > 1:
        meeting = f"file://{folder}/meeting"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=setting.workers)
    loss_fn = MMContraLoss(global_negatives=setting.everyone)
    trainer = make_trainer(videoclip(), loss_fn, setting.workers, rank)
    seconds = []
    for number in range(steps + 1):  # the first warms up
        batch = random_pairs(pairs, seed=number * setting.workers + rank)
        begin = time.perf_counter()
        trainer.train_step([batch])
        seconds.append(time.perf_counter() - begin)
    if rank == 0:
        torch.save(seconds[1:], f"{folder}/seconds.pt")
    if setting.workers > 1:
        dist.barrier()
        dist.destroy_process_group()


def run(setting: Setting, pairs: int, steps: int) -> list[float]:
    """Return the seconds of each step, in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_process, (setting, folder, pairs, steps), nprocs=setting.workers)
        return torch.load(f"{folder}/seconds.pt", weights_only=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; return 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=32, help="pairs of a process (default 32)")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a round (default 3)")
    parser.add_argument("--rounds", type=int, default=2, help="how often each setting takes its turn (default 2)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    options = parser.parse_args(arguments)
    print(f"{options.pairs} pairs a process; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    seconds: dict[Setting, list[float]] = {setting: [] for setting in SETTINGS}
    for _ in range(options.rounds):
        for setting in SETTINGS:
            seconds[setting] += run(setting, options.pairs, options.steps)
    figures: list[dict[str, Any]] = []
    print(f"\n{'':<46}{'s a step':>10}{'pairs/s':>10}{'x 1 thread':>12}{'x 2 threads':>13}")
    for setting, taken in seconds.items():
        median = statistics.median(taken)
        speed = setting.workers * options.pairs / median
        figures.append({"setting": str(setting), **setting._asdict(), "seconds": taken, "pairs_per_second": speed})
    for figure in figures:
        speed, median = figure["pairs_per_second"], statistics.median(figure["seconds"])
        ratios = [speed / figures[reference]["pairs_per_second"] for reference in (0, 1)]
        print(f"{figure['setting']:<46}{median:>10.2f}{speed:>10.1f}{ratios[0]:>12.2f}{ratios[1]:>13.2f}")
    if options.json:
        write_json(options.json, {"pairs": options.pairs, "figures": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
