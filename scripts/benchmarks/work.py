"""What a benchmark declares: works, each done our way and a naive way on the same data.

A module ``bench_*.py`` has a tuple ``WORKS``. ``python scripts/benchmarks/run.py`` measures those of all modules, and
each module run by itself its own (:mod:`scripts.benchmarks.run`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["GROUPS", "Run", "Work", "WrongResult", "disagreement"]

#: Name -> heading of its rows; "more" is measured when it is named, or with ``--all``.
GROUPS = {
    "data": "Data path",
    "training": "Training step",
    "evaluation": "Evaluation and search",
    "feeding": "Loader with one worker (ours) against the training step that it feeds (reference)",
    "alone": "Without a reference",
    "more": "Named works",
}


class WrongResult(AssertionError):
    """The two ways do not give the same, or a promise about the result is not kept."""


@dataclass
class Run:
    """One way of a work, ready to go: what a fresh process made of the prepared data.

    Attributes:
        call: one pass. What its first call returns is compared with that of the other way.
        units: done by a pass.
        bytes: that a unit cannot but move: what it reads and what it hands over, whichever is more.
        flop: operations of a unit; a work of models leaves it, and ``counted`` says so.
        counted: the operations of a pass are counted by torch (:func:`scripts.benchmarks.flops.count`).
        bound: which of the machine's rates limits it: ``copy`` or ``read`` (bytes), ``matmul`` (operations).
        own_clock: ``call`` returns the seconds it took, as it starts processes whose start is not to count.
        figures: further figures of the work, by name, after all passes.
        check: gives what is compared, where that is not what a pass returns.
    """

    call: Callable[[], Any]
    units: float
    bytes: float = 0.0
    flop: float = 0.0
    counted: bool = False
    bound: str = "copy"
    own_clock: bool = False
    figures: Callable[[], Mapping[str, Any]] | None = None
    check: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Work:
    """Something that takes time, done two ways.

    Attributes:
        name: as the command line has it.
        unit: what is counted, in the plural.
        ours: makes our way from the folder of prepared data and the sizes, in a process of its own.
        reference: makes the naive way; None where there is none.
        naive: the reference in words.
        prepare: writes the data that both ways read, in a process of its own.
        sizes: keywords of all three; ``quick`` and ``tiny`` replace some for ``--quick`` and for tests.
        threads: of each process.
        tolerance: by how much numbers of the two results may differ, relative and absolute; None: nothing is compared.
        least_ratio: speed over the reference that is promised at full size.
        most_memory: peak memory over that of the reference's process that is promised at full size.
        most_seconds: of a unit, promised at full size.
        group: of :data:`GROUPS`.
        reference_keeps: the reference is a way of ours, and keeps the memory that it frees as ours does.
    """

    name: str
    unit: str
    ours: Callable[..., Run]
    reference: Callable[..., Run] | None = None
    naive: str = ""
    prepare: Callable[..., None] | None = None
    sizes: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)
    tiny: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    tolerance: float | None = 0.0
    least_ratio: float | None = None
    most_memory: float | None = None
    most_seconds: float | None = None
    group: str = "data"
    reference_keeps: bool = False

    def way(self, side: str) -> Callable[[Path], Run]:
        """Return the maker of ``ours`` or ``reference``."""
        maker = self.ours if side == "ours" else self.reference
        assert maker is not None
        return maker

    def sized(self, quick: bool = False, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the sizes, those of ``--quick`` if asked, then those of ``changes`` that the work has."""
        own = {key: value for key, value in (changes or {}).items() if key in self.sizes}
        return {**self.sizes, **(self.quick if quick else {}), **own}


def disagreement(ours: Any, reference: Any, tolerance: float, place: str = "result") -> str | None:
    """Return where two results differ, None if nowhere; mappings, sequences, arrays and numbers are looked into."""
    if isinstance(ours, Mapping) and isinstance(reference, Mapping):
        if ours.keys() != reference.keys():
            return f"{place}: the keys are {sorted(ours)} and {sorted(reference)}"
        pairs = [(f"{place}[{key!r}]", ours[key], reference[key]) for key in ours]
    elif isinstance(ours, list | tuple) and isinstance(reference, list | tuple):
        if len(ours) != len(reference):
            return f"{place}: {len(ours)} and {len(reference)} elements"
        pairs = [(f"{place}[{k}]", a, b) for k, (a, b) in enumerate(zip(ours, reference, strict=True))]
    else:
        return _leaf(ours, reference, tolerance, place)
    return next((found for where, a, b in pairs if (found := disagreement(a, b, tolerance, where))), None)


def _leaf(ours: Any, reference: Any, tolerance: float, place: str) -> str | None:
    if isinstance(ours, str | bytes) or isinstance(reference, str | bytes) or ours is None or reference is None:
        return None if ours == reference else f"{place}: {str(ours)[:60]!r} and {str(reference)[:60]!r}"
    left, right = np.asarray(ours), np.asarray(reference)
    if left.shape != right.shape:
        return f"{place}: shapes {left.shape} and {right.shape}"
    if left.dtype.kind not in "fc" and right.dtype.kind not in "fc" and not tolerance:
        same = np.array_equal(left, right)
    else:
        same = np.allclose(left, right, rtol=tolerance, atol=tolerance, equal_nan=True)
    if same:
        return None
    gap = np.abs(left.astype(np.float64) - right.astype(np.float64)).max()
    return f"{place}: differs by up to {gap:.3g}, where {tolerance:g} is allowed"
