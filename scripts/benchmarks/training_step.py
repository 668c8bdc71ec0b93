"""What benchmarks of a training step share: speed with all ways in turn, peak memory in a fresh process for each."""

import argparse
import functools
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from mmpt.utils.files import write_json

__all__ = ["WAYS", "Work", "measure"]

#: The ways to train that are compared, and whether they recompute activations.
WAYS = {"plain": False, "gradient_checkpointing": True}
_GIB = 2**20  # ru_maxrss counts KiB


class Work(NamedTuple):
    """A training to measure.

    Attributes:
        model: makes the model, given whether it recomputes activations.
        loss: of the model's outputs.
        batch: makes a batch of so many samples.
        samples: of a batch.
        rounds: steps that are timed.
        unit: what a sample is.
    """

    model: Callable[[bool], nn.Module]
    loss: Callable[..., torch.Tensor]
    batch: Callable[[int], Mapping[str, Any]]
    samples: int
    rounds: int
    unit: str


class _Training:
    """A model, an optimizer and a batch."""

    def __init__(self, work: Work, way: str, samples: int) -> None:
        self.model = work.model(WAYS[way]).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=2e-5, betas=(0.9, 0.98), weight_decay=1e-3)
        self.loss, self.batch = work.loss, work.batch(samples)

    def step(self) -> None:
        self.loss(**self.batch, **self.model(**self.batch)).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def _speeds(work: Work, samples: int, rounds: int, threads: int) -> dict[str, float]:
    """Return samples per processor second of each way, from the median step; they take turns."""
    torch.set_num_threads(threads)
    trainings = {way: _Training(work, way, samples) for way in WAYS}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds + 1):
        for way, training in trainings.items():
            begin = time.process_time()
            training.step()
            seconds[way].append(time.process_time() - begin)
    return {way: samples / statistics.median(taken[1:]) for way, taken in seconds.items()}


def _memory(work: Work, way: str, samples: int, threads: int) -> dict[str, float]:
    """Return the GiB that a process takes at the most, and what of that is beyond weights and optimizer's state."""
    torch.set_num_threads(threads)
    training = _Training(work, way, samples)
    for parameter in training.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    training.optimizer.step()  # makes its state
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    training.step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak": peak / _GIB, "step": (peak - before) / _GIB}


def _in_a_process(call: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call, arguments)


def _of(call: Callable[..., dict[str, float]], works: Callable[[], Mapping[str, Work]], name: str, *rest: Any) -> Any:
    return call(works()[name], *rest)


def measure(
    description: str | None, works: Callable[[], Mapping[str, Work]], arguments: Sequence[str] | None = None
) -> int:
    """Parse a command line, measure the works that it names and print a table; return 0.

    Args:
        description: the text of ``--help``.
        works: makes the trainings by name; called in each process, so it is a function of a module.
        arguments: of the command line.
    """
    known = works()
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=known, default=list(known), metavar="SIZE", help="default: all")
    parser.add_argument("--samples", "--clips", type=int, help="samples of a batch (default: by size)")
    parser.add_argument("--rounds", type=int, help="steps that are timed (default: by size)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    options = parser.parse_args(arguments)
    figures: dict[str, dict[str, dict[str, float]]] = {}
    print(f"{'':<52}{'per cpu s':>10}{'speed':>8}{'peak GiB':>10}{'step GiB':>10}{'of plain':>10}")
    for size in options.sizes:
        work = known[size]
        samples, rounds = options.samples or work.samples, options.rounds or work.rounds
        run = functools.partial(_in_a_process, _of)
        per_second = run(_speeds, works, size, samples, rounds, options.threads)
        figures[size] = {}
        for way in WAYS:
            one = {"samples_per_second": per_second[way], "samples": samples}
            one |= run(_memory, works, size, way, samples, options.threads)
            plain = figures[size].setdefault("plain", one)
            figures[size][way] = one
            one["speed"] = per_second[way] / per_second["plain"]
            one["memory"] = one["step"] / plain["step"] if plain["step"] else float("nan")  # too small to be seen
            numbers = (one["speed"], one["peak"], one["step"], one["memory"])
            row = "".join(f"{number:>{width}.2f}" for number, width in zip(numbers, (8, 10, 10, 10), strict=True))
            print(f"{f'{size}, {samples} {work.unit}, {way}':<52}{per_second[way]:>10.3f}{row}", flush=True)
    if options.json:
        write_json(options.json, {"threads": options.threads, "sizes": figures})
    return 0
