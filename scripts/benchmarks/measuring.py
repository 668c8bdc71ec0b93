"""Measuring works: both ways in fresh processes that take turns, compared before they are timed."""

import inspect
import json
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scripts.benchmarks.child import Child, ChildFailed, call_in_child, find_work
from scripts.benchmarks.machine import bound, measure_rates
from scripts.benchmarks.work import Work, WrongResult, disagreement

__all__ = ["Effort", "Entry", "Result", "Session", "prepare"]

#: Seconds that the rounds of a work should not exceed, and how many there are anyway.
LONGEST, LEAST = 30.0, 3


@dataclass(frozen=True)
class Entry:
    """A work and the module whose tuple ``WORKS`` has it."""

    module: str
    work: Work


@dataclass(frozen=True)
class Effort:
    """How long and how large: ``rounds`` in which the ways take turns, each for about ``seconds``.

    There are fewer rounds, at least three, where a pass takes so long that they would take more than :data:`LONGEST`.
    """

    rounds: int = 5
    seconds: float = 1.0
    quick: bool = False
    clock: str = "wall"
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Result:
    """What was measured of a work; rates are units per second, memory is in bytes.

    A pass does ``units``. ``ratio`` is the median of the rounds' ratios, in which both ways ran one right after the
    other. ``peak`` is the most that the process held while it worked, ``own`` what of that is beyond interpreter and
    imports. ``failed`` says why there are no figures, ``broken`` which promises were not kept.
    """

    name: str
    unit: str
    group: str
    naive: str
    threads: int
    sizes: dict[str, Any]
    ours: float | None = None
    reference: float | None = None
    ratio: float | None = None
    ratios: list[float] = field(default_factory=list)
    peak: int | None = None
    own: int | None = None
    reference_peak: int | None = None
    reference_own: int | None = None
    units: float = 0.0
    flop: float = 0.0
    bytes: float = 0.0
    bound: float | None = None
    bound_by: str | None = None
    share: float | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    failed: str | None = None
    details: str = ""
    broken: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Return what the history keeps."""
        return {key: value for key, value in asdict(self).items() if key != "details" and value not in (None, [], {})}


def prepare(module: str, name: str, folder: str, sizes: dict[str, Any]) -> None:
    """Write the data of a work; works that ask one writer for one size share it."""
    work = find_work(module, name)
    if work.prepare:
        work.prepare(Path(folder), **_asked(work.prepare, sizes))


def _asked(writer: Callable[..., None], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes that a writer of data takes."""
    taken = inspect.signature(writer).parameters
    return {name: value for name, value in sizes.items() if name in taken}


class Session:
    """A run of the benchmarks: data that works share is written once, the machine's rates are measured once."""

    def __init__(self, effort: Effort, say: Callable[[str], None] = lambda text: None) -> None:
        self.effort, self.say = effort, say
        self.rates: dict[int, dict[str, float]] = {}
        self._folders: dict[str, str] = {}

    def measure(self, entries: Iterable[Entry]) -> Iterable[Result]:
        """Yield the result of each work, failures included."""
        with tempfile.TemporaryDirectory(prefix="mmpt_bench_") as place:
            for entry in entries:
                yield self._result(entry, Path(place))

    def machine(self, threads: int) -> dict[str, float]:
        """Return the machine's rates on so many threads."""
        if threads not in self.rates:
            self.say(f"the machine's rates, {threads} thread{'s' * (threads > 1)}")
            seconds = min(1.0, self.effort.seconds)
            self.rates[threads] = call_in_child(
                measure_rates, threads, seconds, clock=self.effort.clock, threads=threads
            )
        return self.rates[threads]

    def _result(self, entry: Entry, place: Path) -> Result:
        work, sizes = entry.work, entry.work.sized(self.effort.quick, self.effort.changes)
        result = Result(work.name, work.unit, work.group, work.naive, work.threads, sizes)
        try:
            self._measure(entry, sizes, self._data(entry, sizes, place), result)
        except ChildFailed as error:
            result.failed, result.details = str(error).strip().splitlines()[0], error.details
        except WrongResult as error:
            result.failed = f"wrong result: {error}"
        if not result.failed and not self.effort.quick and not self.effort.changes:
            result.broken = _broken(work, result)
        return result

    def _data(self, entry: Entry, sizes: dict[str, Any], place: Path) -> str:
        writer = entry.work.prepare
        asked = _asked(writer, sizes) if writer else {}
        named = [getattr(writer, name, "") for name in ("__module__", "__qualname__")]
        key = json.dumps([named, asked], sort_keys=True)
        if key not in self._folders:
            folder = Path(tempfile.mkdtemp(dir=place))
            if writer:
                self.say("preparing data")
                call_in_child(prepare, entry.module, entry.work.name, str(folder), sizes)
            self._folders[key] = str(folder)
        return self._folders[key]

    def _measure(self, entry: Entry, sizes: dict[str, Any], folder: str, result: Result) -> None:
        work, effort = entry.work, self.effort
        sides = ["ours"] + ["reference"] * (work.reference is not None)
        with ExitStack() as stack:
            children: dict[str, Child] = {}
            found: dict[str, Any] = {}
            passed: dict[str, float] = {}
            for side in sides:
                self.say(f"first pass, {side}")
                arguments = (entry.module, work.name, side, folder, sizes, work.threads)
                children[side] = stack.enter_context(Child(arguments, work.threads))
                found[side], passed[side] = children[side].ask("check", effort.seconds)
            compared = len(sides) == 2 and work.tolerance is not None
            if compared and (where := disagreement(found["ours"], found["reference"], work.tolerance or 0.0)):
                raise WrongResult(where)
            taken: dict[str, list[float]] = {side: [] for side in sides}
            rounds = _rounds(effort, sum(passed.values()))
            for number in range(rounds):
                for side in sides if number % 2 == 0 else sides[::-1]:
                    self.say(f"round {number + 1} of {rounds}, {side}")
                    wall, busy = children[side].ask("go")
                    taken[side].append(busy if effort.clock == "processor" else wall)
            memory = {side: child.ask("memory") for side, child in children.items()}
            cost = children["ours"].ask("cost")
        result.ours = 1 / statistics.median(taken["ours"])
        (result.peak, result.own), result.figures = memory["ours"], cost["figures"]
        if len(sides) == 2:
            result.reference = 1 / statistics.median(taken["reference"])
            result.ratios = [slow / fast for fast, slow in zip(taken["ours"], taken["reference"], strict=True)]
            result.ratio = statistics.median(result.ratios)
            result.reference_peak, result.reference_own = memory["reference"]
        self._compare_with_physics(work, cost, result)

    def _compare_with_physics(self, work: Work, cost: dict[str, Any], result: Result) -> None:
        result.units, result.flop, result.bytes = cost["units"], cost["flop"], cost["bytes"]
        if not (result.flop or result.bytes):
            return
        rates = self.machine(work.threads)
        result.bound = bound(rates, cost["bound"], result.flop, result.bytes)
        moving = bound(rates, cost["bound"], 0.0, result.bytes)
        result.bound_by = cost["bound"] if moving is not None and moving == result.bound else "matmul"
        assert result.ours is not None and result.bound is not None
        result.share = result.ours / result.bound


def _rounds(effort: Effort, passes: float) -> int:
    """Return how many rounds there are room for, of passes of both ways that take so many seconds."""
    return max(min(effort.rounds, LEAST), min(effort.rounds, int(LONGEST // max(passes, 1e-9))))


def _broken(work: Work, result: Result) -> list[str]:
    """Return the promises that a result does not keep."""
    broken = []
    if work.least_ratio and result.ratio is not None and result.ratio < work.least_ratio:
        broken.append(f"{result.ratio:.2f} times as fast as the reference, {work.least_ratio:g} are promised")
    if work.most_memory and result.peak and result.reference_peak:
        share = result.peak / result.reference_peak
        if share > work.most_memory:
            broken.append(f"{share:.2f} of the reference's memory, {work.most_memory:g} are promised")
    if work.most_seconds and result.ours and 1 / result.ours > work.most_seconds:
        broken.append(f"{1 / result.ours:.2f} s, {work.most_seconds:g} are promised")
    return broken
