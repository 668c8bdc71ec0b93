"""Works of the tests of the harness: light, so that their processes start in no time."""

import os
from pathlib import Path

from scripts.benchmarks.work import Run, Work


def _write(folder: Path, count: int) -> None:
    (folder / "numbers.txt").write_text(" ".join(map(str, range(count))))


def _summing(times: int):
    def make(folder: Path, count: int) -> Run:
        numbers = list(map(int, (folder / "numbers.txt").read_text().split()))

        def call() -> int:
            for _ in range(times - 1):
                sum(numbers)
            return sum(numbers)

        return Run(call, count, bytes=8.0, figures=lambda: {"numbers": len(numbers)})

    return make


def _wrong(folder: Path, count: int) -> Run:
    return Run(lambda: -1, count)


def _dying(folder: Path, count: int) -> Run:
    return Run(lambda: os._exit(7), count)


def _raising(folder: Path, count: int) -> Run:
    raise ValueError("no such thing")


_SIZED = {"prepare": _write, "sizes": {"count": 2000}, "quick": {"count": 500}}
WORKS = (
    Work("sum", "numbers", _summing(1), _summing(20), "again and again", **_SIZED),
    Work("sum-wrong", "numbers", _wrong, _summing(1), "right", **_SIZED),
    Work("sum-dying", "numbers", _dying, **_SIZED),
    Work("sum-raising", "numbers", _raising, **_SIZED),
    Work("sum-slow", "numbers", _summing(20), _summing(1), "once", **_SIZED, least_ratio=3, reference_keeps=True),
    Work("sum-alone", "numbers", _summing(1), **_SIZED, group="alone"),
    Work("sum-named", "numbers", _summing(1), **_SIZED, group="more"),
)
