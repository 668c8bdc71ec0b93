"""VideoCLIP's training step through fairseq's trainer: on two cores as threads or as processes, against one thread.

    python scripts/benchmarks/bench_scaling.py -o pairs=128

Each process trains on its own pairs: 2 processes take twice as many an update as one (weak scaling). A turn starts the
processes anew; the seconds are those of the steps alone, the first not counted.
"""

import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.distributed as dist

from mmpt.losses.contrastive import MMContraLoss
from scripts.benchmarks.fairseq_trainer import make_trainer
from scripts.benchmarks.run import run_module
from scripts.benchmarks.videoclip_step import random_pairs, videoclip
from scripts.benchmarks.work import Run, Work

__all__ = ["WORKS"]


class Setting(NamedTuple):
    """One way of running the step; negatives of the own worker, or of all."""

    workers: int
    threads: int
    everyone: bool = False


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


def step_seconds(setting: Setting, pairs: int, steps: int) -> list[float]:
    """Return the seconds of each step, in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_process, (setting, folder, pairs, steps), nprocs=setting.workers)
        return torch.load(f"{folder}/seconds.pt", weights_only=True)


def _training(setting: Setting) -> Callable[..., Run]:
    def make(folder: Path, pairs: int, steps: int) -> Run:
        def call() -> float:
            return statistics.median(step_seconds(setting, pairs, steps))

        return Run(call, pairs * setting.workers, own_clock=True)

    return make


WORKS = tuple(
    Work(
        f"scaling-{name}",
        "pairs",
        _training(setting),
        _training(Setting(1, 1)),
        "one process on one thread",
        sizes={"pairs": 32, "steps": 3},
        quick={"pairs": 8, "steps": 1},
        tiny={"pairs": 2, "steps": 1},
        tolerance=None,
        group="more",
    )
    for name, setting in (
        ("threads", Setting(1, 2)),
        ("processes", Setting(2, 1)),
        ("processes-global", Setting(2, 1, everyone=True)),
    )
)

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
