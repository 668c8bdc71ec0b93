"""The table of a run, as Markdown that is aligned for the terminal too."""

from collections.abc import Iterable, Sequence
from typing import Any

from scripts.benchmarks.machine import RATES
from scripts.benchmarks.measuring import Result
from scripts.benchmarks.work import GROUPS

__all__ = ["HEAD", "aligned", "number", "rates_table", "results_table"]

HEAD = ("work", "unit", "ours/s", "reference/s", "ratio", "peak MiB (own)", "reference MiB (own)", "bound/s", "share")
_BOUND = {"matmul": "compute", "copy": "copy", "read": "read"}


def number(value: float | None) -> str:
    """Return a number with three digits that count, and separators of thousands; nothing for None."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-4 else f"{value:.1e}"


def _memory(peak: int | None, own: int | None) -> str:
    return "" if peak is None else f"{peak / 2**20:,.0f} ({(own or 0) / 2**20:,.0f})"


def _row(result: Result) -> list[str]:
    if result.failed:
        return [result.name, result.unit, "failed", *[""] * 6]
    return [
        result.name,
        result.unit,
        number(result.ours),
        number(result.reference),
        "" if result.ratio is None else f"{result.ratio:.2f}" if result.ratio < 100 else f"{result.ratio:,.0f}",
        _memory(result.peak, result.own),
        _memory(result.reference_peak, result.reference_own),
        f"{number(result.bound)} {_BOUND[result.bound_by]}" if result.bound_by else "",
        f"{100 * result.share:.3g} %" if result.share is not None else "",
    ]


def aligned(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table whose columns stand below each other; numbers to the right."""
    rows = [list(row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    left = [k < 2 for k in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = (c.ljust(w) if to_left else c.rjust(w) for c, w, to_left in zip(cells, widths, left, strict=True))
        return "| " + " | ".join(padded) + " |"

    rule = (f"{'-' * (width + 1)}{'-' if to_left else ':'}" for width, to_left in zip(widths, left, strict=True))
    return [line(head), f"|{'|'.join(rule)}|", *map(line, rows)]


def results_table(results: Iterable[Result]) -> list[str]:
    """Return the lines of the table, works of a group together under a row with its name, and figures below."""
    by_group: dict[str, list[Result]] = {group: [] for group in GROUPS}
    for result in results:
        by_group[result.group].append(result)
    rows: list[list[str]] = []
    for group, members in by_group.items():
        if members:
            rows += [[f"**{GROUPS[group]}**", *[""] * (len(HEAD) - 1)], *map(_row, members)]
    lines = aligned(HEAD, rows)
    figures = [result for members in by_group.values() for result in members if result.figures]
    if figures:
        lines += [
            "",
            *(f"* {one.name}: {', '.join(_figure(*pair) for pair in one.figures.items())}" for one in figures),
        ]
    return lines


def _figure(name: str, value: Any) -> str:
    return f"{name} {number(value) if isinstance(value, int | float) and not isinstance(value, bool) else value}"


def rates_table(rates: dict[int, dict[str, float]]) -> list[str]:
    """Return the lines of the machine's own rates by number of threads."""
    counts = sorted(rates)
    head = ["the machine, in this run", "unit", *(f"{count} thread{'s' * (count > 1)}" for count in counts)]
    rows = []
    for name, text in RATES.items():
        unit, what = text.split(", ", 1)
        rows.append([what, f"G{unit}", *(f"{rates[count][name] / 1e9:,.1f}" for count in counts)])
    return aligned(head, rows)
