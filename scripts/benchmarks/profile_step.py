"""Where the time of a pre-training step goes, part by part: of the published way of computing it, and of ours.

    python scripts/benchmarks/profile_step.py                       # all six systems; five minutes on two idle cores
    python scripts/benchmarks/profile_step.py --systems merlot --samples 4 --size base

Both ways are the steps of ``bench_training.py``, of one process, in turn. Seconds are those of the profiler, which are the
clock's on the thread that calls: what its helpers do meanwhile is in them. A part is a kind of operation, wherever it
happens: what is computed a second time in the backward pass counts as backward.
"""

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch.profiler import ProfilerActivity, profile

from scripts.benchmarks.bench_training import SIZES
from scripts.benchmarks.published_step import naive_step, our_step
from scripts.benchmarks.systems import SYSTEMS

__all__ = ["PARTS", "main", "part_of", "profiled"]

#: Part -> how the names of its operations begin (after ``aten::``); the first that fits counts.
PARTS: dict[str, tuple[str, ...]] = {
    "attention": ("_scaled_dot_product", "scaled_dot_product", "bmm", "baddbmm", "_softmax", "softmax", "_safe_softmax"),
    "matrix products": ("mm", "addmm", "linear", "matmul", "mkldnn::_linear", "_linear", "einsum"),
    "convolutions": ("conv", "_conv", "slow_conv", "mkldnn_conv", "_slow_conv", "thnn_conv"),
    "activation": ("gelu", "silu", "relu", "tanh", "sigmoid", "threshold_backward"),
    "normalisation": ("native_layer_norm", "layer_norm", "native_batch_norm", "batch_norm", "native_group_norm"),
    "dropout": ("bernoulli", "native_dropout", "dropout", "random_", "rand", "bitwise", "__and__", "lt", "ge", "gt", "le"),
    "loss": ("_log_softmax", "log_softmax", "nll_loss", "logsumexp", "exp", "max", "argmax", "scatter", "log", "sort"),
    "copies": (
        *("copy_", "clone", "cat", "index", "gather", "contiguous", "fill_", "zero_", "zeros", "stack", "repeat", "pad"),
        *("constant_pad", "embedding", "roll", "select_backward", "slice_backward", "masked", "_to_copy", "to", "empty"),
        *("new_", "full", "ones", "unfold", "im2col", "as_strided", "flip", "resize", "expand", "take", "narrow_copy"),
    ),
    "sums and products": ("add", "mul", "div", "sub", "sum", "mean", "where", "neg", "pow", "sqrt", "rsub", "linalg"),
}
_ADAM, _REST = "Adam", "rest"
_PASSES = ("forward", "backward")


def part_of(operation: str) -> str:
    """Return the part of :data:`PARTS` that an operation belongs to, or "rest"."""
    name = operation.removeprefix("aten::")
    return next((part for part, begins in PARTS.items() if name.startswith(begins)), _REST)


def profiled(step: Callable[[], Any]) -> Counter[tuple[str, str]]:
    """Profile one call; return the seconds of (part, pass): the pass is forward or backward, of Adam empty."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    seconds: Counter[tuple[str, str]] = Counter()
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


def _measure(steps: Sequence[Callable[[], Any]], rounds: int) -> list[tuple[float, Counter[tuple[str, str]]]]:
    """Return of each step, all in turn, the median seconds by the clock and those of the parts under the profiler."""
    clocks: list[list[float]] = [[] for _ in steps]
    profiles: list[list[Counter[tuple[str, str]]]] = [[] for _ in steps]
    for step in steps:
        step()  # the first step sets up the optimizer
    for _ in range(rounds):
        for step, times, found in zip(steps, clocks, profiles, strict=True):
            times.append(_clock(step))
            found.append(profiled(step))
    merged = []
    for times, found in zip(clocks, profiles, strict=True):
        keys = set().union(*found)
        median = Counter({key: statistics.median(counter[key] for counter in found) for key in keys})
        merged.append((statistics.median(times), median))
    return merged


def _table(published: Counter[tuple[str, str]], ours: Counter[tuple[str, str]]) -> str:
    """Return a Markdown table: of each part the seconds of both passes and the share, published and ours."""
    lines = ["| part | published: forward | backward | share | ours: forward | backward | share |", "|---" * 7 + "|"]
    totals = [sum(found.values()) or 1.0 for found in (published, ours)]
    for part in (*PARTS, _ADAM, _REST):
        cells, some = [], False
        for found, total in zip((published, ours), totals, strict=True):
            passes = [found[part, name] for name in _PASSES]
            whole = sum(passes) + found[part, ""]
            some |= whole >= 0.005 * total
            cells += [f"{passes[0]:.3f}", f"{passes[1]:.3f}"] if part != _ADAM else ["", f"{whole:.3f}"]
            cells.append(f"{whole / total:.1%}")
        if some:
            lines.append(f"| {part} | {' | '.join(cells)} |")
    sums = [[f"{sum(v for (_, which), v in f.items() if which == name):.3f}" for name in _PASSES] for f in (published, ours)]
    lines.append(f"| all but Adam | {' | '.join(sums[0])} | | {' | '.join(sums[1])} | |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="*", choices=SYSTEMS, default=list(SYSTEMS), metavar="SYSTEM", help="all six")
    parser.add_argument("--size", help="tiny, base, or workload (VideoCLIP, VLM); default: that of bench_training.py")
    parser.add_argument("--samples", type=int, help="of a batch (default: that of bench_training.py)")
    parser.add_argument("--rounds", type=int, default=3, help="steps of each way; medians count (3)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (2)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    for name in options.systems:
        system, sizes = SYSTEMS[name], SIZES[name]
        size, samples = options.size or sizes["size"], options.samples or sizes["samples"]
        batch = system.batch(size, samples)
        published = naive_step(system.model(size).train(), system.loss, system.published)
        ours = our_step(system.model(size).train(), system.loss)
        (theirs, before), (seconds, now) = _measure([lambda: published(batch), lambda: ours(batch)], options.rounds)  # noqa: B023
        print(f"\n{name}, {size}, {samples} {system.unit}, {options.threads} threads; by the clock: published", end=" ")
        print(f"{theirs:.3f} s, ours {seconds:.3f} s, ratio {theirs / seconds:.2f}\n\n{_table(before, now)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
