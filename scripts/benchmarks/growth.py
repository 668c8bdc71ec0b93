"""Measure how time and memory grow with batch, length, videos and workers, and draw it: docs/images/growth_*.png.

    python scripts/benchmarks/growth.py                     # all four figures; minutes, on idle cores
    python scripts/benchmarks/growth.py --quick batch
    python scripts/benchmarks/growth.py --list

Each point is a work of ``run.py`` at another size: both ways in fresh processes that take turns. Time is that of a
pass, a whole batch or start. Memory is what a process holds at most beyond interpreter and imports: the one that
computes, the one that starts, or each worker. The numbers of a figure are written beside it as JSON. Exit code 1 if a
point failed; the others are drawn.
"""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.evaluators.figure_style import LIGHT, WIDTH, blank_figure, save_figure, style_axes
from mmpt.utils.files import write_json
from scripts.benchmarks.bench_memory import WORKER_MEMORY
from scripts.benchmarks.bench_start import START_MEMORY
from scripts.benchmarks.measuring import Effort, Session
from scripts.benchmarks.run import MODULES, entries_of

__all__ = ["CURVES", "Curve", "draw", "main", "points"]

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"


class Curve(NamedTuple):
    """A work over the values of one of its sizes.

    Attributes:
        title: of the panels.
        work: its name.
        size: which of its sizes.
        values: of that size; ``quick`` are those of ``--quick``.
        axis: what the size is.
        per: what a pass is.
        others: sizes that stay.
        memory: which of the work's figures is the memory, MiB; None: that of the process.
    """

    title: str
    work: str
    size: str
    values: tuple[int, ...]
    quick: tuple[int, ...]
    axis: str
    per: str
    others: Mapping[str, int] = MappingProxyType({})
    memory: str | None = None


#: Figure -> its curves; each has a panel of time and one of memory.
CURVES: dict[str, tuple[Curve, ...]] = {
    "batch": (
        Curve("VideoCLIP's training step", "training-videoclip", "samples", (16, 32, 48, 64), (4, 8), "pairs", "step"),
    ),
    "length": (
        Curve("Step of 32 pairs", "training-by-length", "words", (15, 30, 60, 120), (9, 12), "words at most", "step"),
        Curve("Captions of 16 videos", "captions", "words", (5, 10, 20, 30), (4, 8), "words each", "batch"),
    ),
    "videos": (
        Curve(
            *(
                "Start on a store",
                "first-batch-clips",
                "videos",
                (16_000, 128_000, 1_000_000),
                (128, 1024),
                "videos",
                "start",
            ),
            memory=START_MEMORY,
        ),
    ),
    "workers": (
        Curve(
            *("Random reads by each worker", "many-reads-clips", "workers", (1, 2, 4), (1, 2), "workers", "pass"),
            others={"videos": 100_000, "reads": 100_000},
            memory=WORKER_MEMORY,
        ),
    ),
}


def points(curve: Curve, effort: Effort) -> list[dict[str, Any]]:
    """Measure a curve; return for each value seconds of a pass and bytes, of both ways, or ``failed``."""
    (entry,) = [entry for entry in entries_of(MODULES) if entry.work.name == curve.work]
    found = []
    for value in curve.quick if effort.quick else curve.values:
        changes = {**({} if effort.quick else curve.others), curve.size: value}
        (result,) = Session(dataclasses.replace(effort, changes=changes)).measure([entry])
        point: dict[str, Any] = {curve.size: value}
        if result.failed:
            point["failed"] = result.failed
        else:
            assert result.ours is not None
            held = result.figures[curve.memory] * 2**20 if curve.memory else result.own
            point |= {"seconds": result.units / result.ours, "bytes": held}
            if result.reference:
                seconds = result.units / result.reference
                point |= {"reference_seconds": seconds, "reference_bytes": result.reference_own}
        print(f"{curve.work} {curve.size}={value}: {point.get('failed') or 'done'}", file=sys.stderr, flush=True)
        found.append(point)
    return found


def draw(measured: Sequence[tuple[Curve, list[dict[str, Any]]]]) -> Any:
    """Return a figure with a row of panels, time and memory, for each curve; logarithmic over orders of magnitude."""
    figure = blank_figure(WIDTH, 3.4 * len(measured))
    figure.patch.set(facecolor="white", alpha=1.0)  # pages may be dark
    rows = figure.subplots(len(measured), 2, squeeze=False)
    for panels, (curve, found) in zip(rows, measured, strict=True):
        found = [point for point in found if "failed" not in point]
        for axes, key, what, scale in (
            (panels[0], "seconds", f"seconds a {curve.per}", 1.0),
            (panels[1], "bytes", curve.memory or "MiB beyond the imports", 2.0**20),
        ):
            style_axes(axes, LIGHT, f"{curve.title}: {'time' if key == 'seconds' else 'memory'}", curve.axis, what)
            for name, prefix, colour in (("MMPT", "", LIGHT.series[0]), ("reference", "reference_", LIGHT.series[1])):
                both = [(p[curve.size], p[prefix + key] / scale) for p in found if prefix + key in p]
                if both:
                    axes.plot(*zip(*both, strict=True), marker="o", color=colour, label=name)
            _scale(axes, [point[curve.size] for point in found])
        if any("reference_seconds" in point for point in found):
            panels[0].legend(frameon=False, labelcolor=LIGHT.text)
    return figure


def _scale(axes: Any, values: Sequence[int]) -> None:
    """Have a tick for each value of the size; both axes logarithmic where the values are orders of magnitude."""
    if values and max(values) >= 50 * min(values):
        axes.set(xscale="log", yscale="log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:,g}" if f"{value:e}"[0] in "25" else "")
        axes.tick_params(which="minor", colors=LIGHT.muted, labelsize=9, length=0)
    else:
        axes.set_ylim(0, 1.1 * max((y for line in axes.lines for y in line.get_ydata()), default=1))
    axes.set_xticks(values, [f"{value:,}" for value in values])
    axes.set_xticks([], minor=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"{', '.join(CURVES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="few small sizes, one short round")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way (3)")
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall", help="as of run.py")
    parser.add_argument("--folder", type=Path, default=IMAGES, help="where figures and numbers go (docs/images)")
    parser.add_argument("--list", action="store_true", help="list the figures")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.figures if name not in CURVES]:
        parser.error(f"no figure is called {unknown[0]!r}: {', '.join(CURVES)}")
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # what the models import tells every detail else
    failed = False
    for name in options.figures or CURVES:
        if options.list:
            print(name, *(f"{curve.work} over {curve.size}: {curve.values}" for curve in CURVES[name]))
            continue
        effort = (
            Effort(1, 0.05, True, options.clock) if options.quick else Effort(options.rounds, 1.0, False, options.clock)
        )
        measured = [(curve, points(curve, effort)) for curve in CURVES[name]]
        failed |= any("failed" in point for _, found in measured for point in found)
        options.folder.mkdir(parents=True, exist_ok=True)
        save_figure(draw(measured), options.folder / f"growth_{name}.png")
        write_json(options.folder / f"growth_{name}.json", {curve.work: found for curve, found in measured})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
