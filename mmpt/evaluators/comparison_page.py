"""The sections of a report that compare systems: leaderboard, cost, and on what terms."""

import functools
import html
from collections.abc import Sequence
from typing import Any

from mmpt.evaluators import page
from mmpt.evaluators.comparison import Comparison, cost_rows, interval_text, shown
from mmpt.evaluators.equal_terms import Term, terms_of, terms_table
from mmpt.evaluators.figure_style import LIGHT, WIDTH, Theme, blank_figure, style_axes

__all__ = ["comparison_figures", "comparison_sections", "leaderboard_chart"]

_OVER_SEEDS = "The interval over seeds is Student's t of the trainings: had they been repeated with other seeds."
_OVER_ITEMS = (
    "That over items draws the items of the test anew (bootstrap, 10,000 times, of each item the mean over the seeds): "
    "had other items been tested."
)


def comparison_sections(comparison: Comparison) -> list[str]:
    """Return the sections as HTML."""
    terms = terms_of(comparison)
    return [
        _board(comparison),
        page.section(
            "Cost",
            "Means over the trainings. Seconds of the machine, and of its processors, are those of the whole training "
            "job; parameters are all weights of the checkpoint, with heads that a test does not use.",
            _table(cost_rows(comparison)),
        ),
        _terms(terms, comparison.systems),
    ]


def comparison_figures(comparison: Comparison) -> dict[str, Any]:
    """Return name -> figure."""
    return {"leaderboard": leaderboard_chart(comparison)}


def leaderboard_chart(comparison: Comparison, theme: Theme = LIGHT) -> Any:
    """Draw a panel for each share: the mean of every system, its seeds as dots, its interval over items, and chance."""
    columns = [(column, heading) for column, (heading, share) in comparison.columns.items() if share]
    systems = comparison.systems[::-1]
    figure = blank_figure(WIDTH, 0.45 * len(systems) + 1.3)
    for position, (column, heading) in enumerate(columns):
        axes = figure.add_subplot(1, len(columns), position + 1)
        for place, system in enumerate(systems):
            cell = comparison.cells[system].get(column)
            if cell is None:
                continue
            if cell.over_items is not None:
                axes.plot([100 * end for end in cell.over_items], [place] * 2, color=theme.series[0], linewidth=2)
            axes.scatter([100 * value for value in cell.values], [place] * len(cell.values), s=14, color=theme.muted)
            axes.scatter([100 * cell.mean], [place], s=46, color=theme.series[0], zorder=3)
        if column in comparison.chance:
            axes.axvline(100 * comparison.chance[column], color=theme.text, linestyle=":", linewidth=1)
        axes.set_yticks(range(len(systems)), systems if position == 0 else [""] * len(systems))
        axes.set_ylim(-0.6, len(systems) - 0.4)
        axes.set_xlim(left=0)
        style_axes(axes, theme, heading, "%", "", grid="x")
    return figure


def _board(comparison: Comparison) -> str:
    parts = []
    for column, (heading, share) in comparison.columns.items():
        rows = []
        for system in comparison.systems:
            cell = comparison.cells[system].get(column)
            if cell is None:
                rows.append([html.escape(system), "-", "-", "-", ""])
                continue
            each = ", ".join(shown(value, share) for value in cell.values)
            intervals = (interval_text(cell.over_seeds, share), interval_text(cell.over_items, share))
            rows.append([html.escape(system), f"<b>{shown(cell.mean, share)}</b>", *intervals, each])
        if column in comparison.chance:
            rows.append(["chance", shown(comparison.chance[column], share), "", "", ""])
        headings = [heading, "mean", "95% over seeds", "95% over items", "each seed"]
        parts.append(page.table(headings, rows, left=1))
    notes = "".join(f"<p class=note>{html.escape(reason)}</p>" for reason in comparison.reasons)
    drawn = page.chart(functools.partial(leaderboard_chart, comparison), "mean of every system, with intervals")
    note = f"Shares in percent. {_OVER_SEEDS} {_OVER_ITEMS} Two seeds make the first very wide."
    return page.section("Leaderboard", note, drawn, *parts, notes)


def _terms(terms: Sequence[Term], systems: Sequence[str]) -> str:
    held = [term for term in terms if term.expected]
    others = [term for term in terms if not term.expected]
    broken = [term.name for term in held if term.broken]
    verdict = (
        f"NOT EQUAL, though it should be: {', '.join(broken)}. What stands above compares more than the objectives."
        if broken
        else "All of it is equal."
    )
    reasons = "".join(
        f"<li>{html.escape(term.name)}: {html.escape(term.why)}{' (here it is equal)' if term.equal else ''}</li>"
        for term in others
    )
    return page.section(
        "On what terms",
        "Read from the settings of every training and test, the lists that they name, and their logs.",
        f"<h3>To be held equal</h3><p class=note>{html.escape(verdict)}</p>",
        _table(terms_table(held, systems), left=3),
        "<h3>Not equal, and why</h3>",
        f"<ul>{reasons}</ul>",
        _table(terms_table(others, systems), left=3),
    )


def _table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    return page.table(rows[0], [[html.escape(cell) for cell in row] for row in rows[1:]], left=left)
