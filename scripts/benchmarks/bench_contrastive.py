"""Contrastive learning over many workers, and GradCache: time, and the memory that torch's allocator holds at most.

    python scripts/benchmarks/bench_contrastive.py
    python scripts/benchmarks/bench_contrastive.py grad-cache -o rows=32

The reference of the loss gathers the vectors with their gradients and computes all global x global scores on every
worker; more workers than one are pretended (:class:`PretendedWorkers`). The reference of GradCache is the step of the
whole batch. The bytes below the table are counted (torch.profiler with profile_memory): exact, the same in each run.
"""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

import mmpt.utils.distributed
from mmpt.losses.contrastive import MMContraLoss
from mmpt.utils.distributed import gather_rows, world
from scripts.benchmarks.run import run_module
from scripts.benchmarks.videoclip_step import random_pairs, videoclip
from scripts.benchmarks.work import Run, Work

__all__ = ["WORKS", "PretendedWorkers", "loss_memory", "peak_bytes"]

MIB = 2**20


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the most bytes that are allocated on the CPU at any time during a call, beyond those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def naive_loss(pooled_video: Tensor, pooled_text: Tensor) -> Tensor:
    """Return the loss of all pairs of all workers, computed whole on each of them."""
    video, text = gather_rows(pooled_video)[0], gather_rows(pooled_text)[0]
    scores, targets = text @ video.T, torch.arange(len(video))
    return F.cross_entropy(scores, targets) + F.cross_entropy(scores.T, targets)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "per worker": MMContraLoss(),
    "local x global": MMContraLoss(global_negatives=True),
    "naive": naive_loss,
}


def loss_memory(local: int, width: int) -> dict[str, int]:
    """Return the peak of each form of the loss, forward and backward, with ``local`` pairs on this worker."""
    generator = torch.Generator().manual_seed(world()[0])

    def step(loss_fn: Callable[..., Tensor]) -> None:
        loss_fn(pooled_video=video, pooled_text=text).backward()

    peaks = {}
    for name, loss_fn in LOSSES.items():
        video, text = (torch.randn(local, width, generator=generator).requires_grad_() for _ in range(2))
        peaks[name] = peak_bytes(partial(step, loss_fn))
    return peaks


class PretendedWorkers:
    """A stand-in for torch.distributed in which every worker has this one's rows: the memory of one worker of many."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __enter__(self) -> None:
        self.real = mmpt.utils.distributed.dist
        mmpt.utils.distributed.dist = SimpleNamespace(  # type: ignore[assignment]
            is_available=lambda: True,
            is_initialized=lambda: True,
            get_rank=lambda: 0,
            get_world_size=lambda: self.workers,
            all_gather=lambda parts, own: [part.copy_(own) for part in parts],
            reduce_scatter=lambda summed, parts: summed.copy_(parts[0]),
        )

    def __exit__(self, *raised: Any) -> None:
        mmpt.utils.distributed.dist = self.real


def _process(rank: int, workers: int, folder: str, sizes: list[int], width: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting{workers}", rank=rank, world_size=workers)
    measured = [loss_memory(local, width) for local in sizes]
    if rank == 0:
        torch.save(measured, f"{folder}/{workers}.pt")
    dist.barrier()
    dist.destroy_process_group()


def real_workers(workers: int, sizes: list[int], width: int) -> list[dict[str, int]]:
    """Return :func:`loss_memory` of each size, as the first of so many gloo processes measures it."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_process, (workers, folder, sizes, width), nprocs=workers)
        return torch.load(f"{folder}/{workers}.pt", weights_only=True)


def _global_loss(kind: str) -> Callable[..., Run]:
    def make(folder: Path, workers: int, local: int, width: int) -> Run:
        generator = torch.Generator().manual_seed(0)
        video, text = (torch.randn(local, width, generator=generator).requires_grad_() for _ in range(2))

        def call() -> None:
            video.grad = text.grad = None
            with PretendedWorkers(workers):
                LOSSES[kind](pooled_video=video, pooled_text=text).backward()

        def figures() -> dict[str, Any]:
            with PretendedWorkers(workers):
                peaks = loss_memory(local, width)
            return {f"{name}, MiB": peak / MIB for name, peak in peaks.items()}

        return Run(call, local, flop=2 * 3 * 2.0 * local * workers * width, figures=figures)

    return make


def _real_workers(folder: Path, workers: int, local: int, width: int) -> Run:
    found: dict[str, Any] = {}

    def call() -> None:
        peaks = real_workers(workers, [local], width)[0]
        found.update({f"{name}, MiB": peak / MIB for name, peak in peaks.items()})

    return Run(call, local, figures=lambda: found)


def _grad_cache(cached: bool) -> Callable[..., Run]:
    def make(folder: Path, pairs: int, rows: int, layers: int) -> Run:
        model = videoclip(max(1, layers // 2), num_hidden_layers=layers, grad_cache_rows=rows if cached else None)
        batch = random_pairs(pairs)
        for parameter in model.parameters():  # the gradients of the parameters are there whatever the way
            parameter.grad = torch.zeros_like(parameter)

        def step() -> None:
            MMContraLoss()(**model(**batch)).backward()

        return Run(step, pairs, figures=lambda: {"the step, MiB": peak_bytes(step) / MIB}, counted=True)

    return make


WORKS = (
    Work(
        "global-loss",
        "pairs",
        _global_loss("local x global"),
        _global_loss("naive"),
        "all scores of all workers on each",
        sizes={"workers": 16, "local": 256, "width": 768},
        quick={"workers": 8, "local": 128},
        tiny={"workers": 2, "local": 8, "width": 8},
        tolerance=None,
        group="training",
    ),
    Work(
        "global-loss-processes",
        "pairs",
        _real_workers,
        sizes={"workers": 4, "local": 256, "width": 768},
        quick={"workers": 2, "local": 128},
        tiny={"workers": 1, "local": 8, "width": 8},
        group="more",
    ),
    Work(
        "grad-cache",
        "pairs",
        _grad_cache(True),
        _grad_cache(False),
        "the whole batch at once",
        sizes={"pairs": 128, "rows": 8, "layers": 6},
        quick={"pairs": 32},
        tiny={"pairs": 4, "rows": 2, "layers": 2},
        threads=2,
        tolerance=None,
        group="more",
        reference_keeps=True,
    ),
)

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
