"""Measure the peak memory of contrastive learning: of the loss across workers, and of GradCache.

python scripts/benchmarks/bench_contrastive.py                  # two minutes
python scripts/benchmarks/bench_contrastive.py --json FILE

Counted are the bytes that torch's CPU allocator holds at most between the vectors and their gradients (torch.profiler
with profile_memory): exact, and the same in each run. "naive" is the usual other way: gather the vectors with their
gradients, and compute the whole global x global loss on every worker.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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
from mmpt.models.videoclip import MMFusionSeparate
from mmpt.utils.distributed import gather_rows, world
from mmpt.utils.files import write_json
from scripts.benchmarks.videoclip_step import random_pairs, videoclip

__all__ = ["main", "peak_bytes"]

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


def grad_cache(pairs: int, rows: list[int]) -> Iterator[dict[str, Any]]:
    """Yield peak and seconds of one training step of ``pairs`` pairs, whole and with ``model.grad_cache_rows``."""
    for limit in (None, *rows):
        model: MMFusionSeparate = videoclip(grad_cache_rows=limit)
        batch = random_pairs(pairs)

        def step(model: MMFusionSeparate = model, batch: dict[str, Tensor] = batch) -> None:
            MMContraLoss()(**model(**batch)).backward()

        for parameter in model.parameters():  # the gradients of the parameters are there whatever the way
            parameter.grad = torch.zeros_like(parameter)
        peak = peak_bytes(step)
        begin = time.perf_counter()
        step()
        yield {"pairs": pairs, "rows": limit, "peak": peak, "seconds": time.perf_counter() - begin}


def _print_losses(rows: list[dict[str, Any]]) -> None:
    print(f"\n{'workers':<22}{'pairs each':>11}{'all pairs':>11}" + "".join(f"{name + ', MiB':>22}" for name in LOSSES))
    for row in rows:
        where = f"{row['workers']} {'processes' if row['real'] else 'pretended'}"
        peaks = "".join(f"{row['peaks'][name] / MIB:>22.1f}" for name in LOSSES)
        print(f"{where:<22}{row['local']:>11}{row['workers'] * row['local']:>11}{peaks}")


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; return 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=768, help="width of the vectors (default 768)")
    parser.add_argument("--local", type=int, nargs="+", default=[256, 512], help="pairs of a worker (256 512)")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4], help="gloo processes (1 2 4)")
    parser.add_argument("--pretended", type=int, nargs="*", default=[2, 4, 8, 16, 32], help="workers (2 4 8 16 32)")
    parser.add_argument("--pairs", type=int, default=128, help="pairs of the GradCache step (default 128; 0: none)")
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 8], help="model.grad_cache_rows (32 8)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for workers in options.workers:
        measured = real_workers(workers, options.local, options.width)
        rows += [
            {"workers": workers, "real": True, "local": local, "peaks": peaks}
            for local, peaks in zip(options.local, measured, strict=True)
        ]
    for workers in options.pretended:
        with PretendedWorkers(workers):
            peaks = loss_memory(options.local[0], options.width)
        rows.append({"workers": workers, "real": False, "local": options.local[0], "peaks": peaks})
    _print_losses(rows)
    cached: list[dict[str, Any]] = []
    print(f"\n{'model.grad_cache_rows':<24}{'peak, MiB':>12}{'ratio':>8}{'seconds':>10}   ({options.pairs} pairs)")
    for row in grad_cache(options.pairs, options.rows) if options.pairs else ():
        cached.append(row)
        ratio = row["peak"] / cached[0]["peak"]
        print(f"{row['rows'] or 'null':<24}{row['peak'] / MIB:>12.1f}{ratio:>8.2f}{row['seconds']:>10.2f}", flush=True)
    if options.json:
        write_json(options.json, {"width": options.width, "losses": rows, "grad_cache": cached})
    return 0


if __name__ == "__main__":
    sys.exit(main())
