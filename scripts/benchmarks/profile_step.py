"""Where the time of a pre-training step goes, part by part: of the published way of computing it, and of ours.

    python scripts/benchmarks/profile_step.py                       # all six systems; two minutes on two idle cores
    python scripts/benchmarks/profile_step.py --systems merlot --samples 4 --size base

Both ways are the steps of ``bench_training.py``, in one process, in turn. Times of a part are the profiler's, by the
clock of the thread that calls, of each part the median of the steps. A part is a kind of operation, wherever it is:
what is computed a second time in the backward pass counts as backward. Freed memory is kept in both, as in trainings.
"""

import argparse
import os
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler tells when it starts

import torch
from torch.profiler import ProfilerActivity, profile

from mmpt.utils.allocator import keep_freed_memory
from scripts.benchmarks.bench_training import SIZES
from scripts.benchmarks.published_step import naive_step, our_step
from scripts.benchmarks.systems import SYSTEMS
from scripts.benchmarks.table import aligned

__all__ = ["PARTS", "main", "part_of", "profiled"]

#: Part -> how the names of its operations begin, ``aten::`` left out; the first that fits counts.
PARTS: dict[str, str] = {
    "attention": r"_?scaled_dot_product|_?(safe_)?softmax|bmm|baddbmm",
    "matrix products": r"(add)?mm|matmul|(mkldnn::)?_?linear|einsum",
    "convolutions": r"(mkldnn|_?slow|thnn)?_?conv|(adaptive_)?(avg|max)_pool",
    "activation": r"gelu|silu|relu|tanh|sigmoid|threshold",
    "normalisation": r"(native_)?(layer|batch|group)_norm|var|rsqrt",
    "dropout": r"bernoulli|(native_)?dropout|rand|bitwise|__and__|[lg][te]\b",
    "loss": r"_?log|nll_loss|exp\b|exp_|max|argmax|scatter|sort",
    "copies": r"_?to\b|_to_copy|copy|clone|cat|index|gather|contiguous|fill|zero|stack|repeat|pad|constant_pad"
    r"|embedding|roll|select_|slice_|masked|empty|new_|full|ones|unfold|im2col|as_strided|flip|resize|take|narrow_copy",
    "sums and products": r"add|mul|div|sub|rsub|sum|mean|where|neg|pow|sqrt|linalg|sin|cos",
}
_ADAM, _REST = "Adam", "rest"
_PASSES = ("forward", "backward")
#: Seconds of (part, pass): the pass is forward or backward, of Adam empty.
Profile = Counter[tuple[str, str]]


def part_of(operation: str) -> str:
    """Return the part of :data:`PARTS` that an operation belongs to, or "rest"."""
    name = operation.removeprefix("aten::")
    return next((part for part, begin in PARTS.items() if re.match(begin, name)), _REST)


def profiled(step: Callable[[], Any]) -> Profile:
    """Profile one call."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    seconds = Profile()
    for event in profiler.events() or ():
        above, names = event, [event.name]
        while (above := above.cpu_parent) is not None:
            names.append(above.name)
        if any(name.startswith("Optimizer.") for name in names):
            key = (_ADAM, "")
        else:
            key = (part_of(event.name), _PASSES[any(name.startswith("autograd::") for name in names)])
        seconds[key] += event.self_cpu_time_total / 1e6
    return seconds


def _clock(step: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def _measure(steps: Sequence[Callable[[], Any]], rounds: int) -> list[tuple[float, Profile]]:
    """Return of each step, all in turn, the median seconds by the clock and those of the parts under the profiler."""
    clocks: list[list[float]] = [[] for _ in steps]
    profiles: list[list[Profile]] = [[] for _ in steps]
    for step in steps:
        step()  # the first step sets up the optimizer
    for _ in range(rounds):
        for step, times, found in zip(steps, clocks, profiles, strict=True):
            times.append(_clock(step))
            found.append(profiled(step))
    merged = []
    for times, found in zip(clocks, profiles, strict=True):
        keys = set().union(*found)
        median = Profile({key: statistics.median(counter[key] for counter in found) for key in keys})
        merged.append((statistics.median(times), median))
    return merged


def _table(published: Profile, ours: Profile) -> str:
    """Return a Markdown table: of each part the milliseconds of both passes, and the share; published, then ours."""
    totals = [sum(found.values()) or 1.0 for found in (published, ours)]
    rows = []
    for part in (*PARTS, _ADAM, _REST):
        row, shares = [part], []
        for found, total in zip((published, ours), totals, strict=True):
            passes = [found[part, name] for name in ("", *_PASSES)]
            shares.append(sum(passes) / total)
            forward = "" if part == _ADAM else f"{1e3 * passes[1]:,.0f}"
            row += [forward, f"{1e3 * (passes[0] + passes[2]):,.0f}", f"{100 * shares[-1]:.0f} %"]
        if max(shares) >= 0.005:
            rows.append(row)
    sums = (
        [sum(v for (_, which), v in found.items() if which == one) for one in _PASSES] for found in (published, ours)
    )
    rows.append(["all but Adam", *(cell for both in sums for cell in (*(f"{1e3 * one:,.0f}" for one in both), ""))])
    return "\n".join(
        aligned(("part", *("published: forward", "backward", "share", "ours: forward", "backward", "share")), rows)
    )


def _profile(name: str, options: argparse.Namespace) -> str:
    """Profile both ways of a system; return what is printed."""
    system, sizes = SYSTEMS[name], SIZES[name]
    size, samples = options.size or sizes["size"], options.samples or sizes["samples"]
    batch = system.batch(size, samples)
    steps = (
        naive_step(system.model(size).train(), system.loss, system.published),
        our_step(system.model(size).train(), system.loss),
    )
    (theirs, before), (seconds, now) = _measure([lambda step=step: step(batch) for step in steps], options.rounds)
    return (
        f"{name}, {size}, {samples} {system.unit}, {options.threads} threads. A step by the clock, without profiler:"
        f" published {1e3 * theirs:,.0f} ms, ours {1e3 * seconds:,.0f} ms, ratio {theirs / seconds:.2f}\n\n"
        f"{_table(before, now)}\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--systems", nargs="*", choices=SYSTEMS, default=list(SYSTEMS), metavar="SYSTEM", help="default: all six")
    add("--size", help="tiny, base, or workload (VideoCLIP, VLM); default: that of bench_training.py")
    add("--samples", type=int, help="of a batch (default: that of bench_training.py)")
    add("--rounds", type=int, default=3, help="steps of each way, of which the median counts (3)")
    add("--threads", type=int, default=2, help="of torch (2)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    for name in options.systems:
        print(_profile(name, options), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
