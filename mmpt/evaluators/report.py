"""One self-contained HTML page about a project's runs, made from what lies in the run folders alone.

Read are ``metrics.json`` and the predictions of the tests and ``log.txt`` of the trainings; video files only for
the pictures of the examples.
"""

import datetime
import functools
import html
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mmpt
from mmpt.evaluators import page
from mmpt.evaluators.base import NothingEvaluated
from mmpt.evaluators.comparison import Comparison, build_comparison
from mmpt.evaluators.comparison_page import comparison_figures, comparison_sections
from mmpt.evaluators.figure_style import to_bytes
from mmpt.evaluators.figures import loss_curves
from mmpt.evaluators.gallery import Thumbnails
from mmpt.evaluators.results import (
    HEADLINES,
    Result,
    baselines_of,
    cell_parts,
    collect_results,
    columns_of,
    counted_as,
)
from mmpt.evaluators.retrieval_view import RetrievalView, read_retrieval, retrieval_figures, retrieval_sections
from mmpt.evaluators.setting import FINE_TUNED, UNKNOWN
from mmpt.evaluators.task_views import TaskView, task_sections, view_of
from mmpt.evaluators.training_log import TrainingLog, read_training_log
from mmpt.utils.errors import DataError
from mmpt.utils.files import atomic_open

__all__ = ["Report", "build_report", "render", "write_figures", "write_report"]

logger = logging.getLogger(__name__)

_TILES = 8


@dataclass
class Report:
    """Everything on the page."""

    title: str
    results: list[Result]
    missing: list[Path] = field(default_factory=list)
    logs: dict[str, TrainingLog] = field(default_factory=dict)
    views: list[RetrievalView] = field(default_factory=list)
    task_views: list[TaskView] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    pictures: bool = False
    comparison: Comparison | None = None


def build_report(
    title: str,
    tests: Sequence[str | os.PathLike[str]],
    trainings: Sequence[str | os.PathLike[str]] = (),
    names: Mapping[str, str] | None = None,
    videos: str | os.PathLike[str] | None = None,
    compare: bool = False,
) -> Report:
    """Read run folders.

    Args:
        title: heading of the page.
        tests: folders of tests, see :func:`collect_results`.
        trainings: folders of trainings, each with a ``log.txt``; those without one are passed over.
        names: job name of a folder, by its path.
        videos: folder of video files, for pictures of the examples.
        compare: the tests are of several systems, or of several seeds of one: the page begins with a leaderboard, and
            says on what terms they are compared.

    Raises:
        NothingEvaluated: if no test has a result yet.
        DataError: if a metrics.json or a log is damaged. Other files that are missing or damaged are ``problems``.
    """
    results, missing = collect_results(tests, names)
    if not results:
        raise NothingEvaluated(f"{title}: no test has a metrics.json yet; run the project first")
    report = Report(title, results, missing, pictures=videos is not None)
    report.comparison = build_comparison(results) if compare else None
    for folder in map(Path, trainings):
        if (folder / "log.txt").is_file():
            log = read_training_log(folder / "log.txt")
            if log:
                report.logs[(names or {}).get(str(folder)) or folder.name] = log
        else:
            report.problems.append(f"{folder} has no log.txt, so no loss curve")
    thumbnails = Thumbnails(videos) if videos else None
    for result in results:
        _add_view(report, result, thumbnails)
    if thumbnails and thumbnails.failed:
        first, reason = next(iter(thumbnails.failed.items()))
        report.problems.append(f"{len(thumbnails.failed)} videos have no picture (first: {first}, {reason})")
    return report


def _add_view(report: Report, result: Result, thumbnails: Thumbnails | None) -> None:
    """Add what is shown of a test beyond its metrics; say what is missing where that cannot be read."""
    try:
        if result.metric == "RetrievalMetric":
            report.views.append(read_retrieval(result, thumbnails))
        elif (view := view_of(result, thumbnails)) is not None:
            report.task_views.append(view)
    except DataError as error:
        report.problems.append(f"no examples of {result.name}: {error}")


def write_report(report: Report, path: str | os.PathLike[str]) -> None:
    """Write the page, atomically."""
    with atomic_open(path) as file:
        file.write(render(report))


def write_figures(report: Report, folder: str | os.PathLike[str]) -> list[Path]:
    """Write every figure of the report as a PNG, for documents; return their paths."""
    drawn: dict[str, Any] = {"loss_curves": loss_curves(report.logs)} if report.logs else {}
    drawn |= comparison_figures(report.comparison) if report.comparison else {}
    drawn |= retrieval_figures(report.views, report.pictures)
    for view in report.task_views:
        drawn |= view.figures()
    paths = []
    for name, figure in drawn.items():
        paths.append(Path(folder) / f"{name}.png")
        with atomic_open(paths[-1], "wb") as file:
            file.write(to_bytes(figure, "png"))
    return paths


def render(report: Report) -> str:
    """Return the page as HTML."""
    body = [f"<h1>{html.escape(report.title)}</h1>", _summary(report)]
    body += comparison_sections(report.comparison) if report.comparison else [_tiles(report)]
    body.append(_results(report))
    if report.logs:
        drawn = page.chart(functools.partial(loss_curves, report.logs), "loss over updates")
        note = (
            "Training loss at every log interval (faint: raw, strong: running mean) and loss on held-out videos. "
            "A pair competes with the others of its batch, so losses of different batch sizes are not comparable: "
            "where they lie far apart, the held-out loss has a scale of its own, at the right."
        )
        body.append(page.section("Training", note, drawn))
    body += [*retrieval_sections(report.views, report.pictures), *task_sections(report.task_views)]
    body.append(_settings(report))
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    notes = "".join(f"<br>{html.escape(problem)}" for problem in report.problems)
    return page.page(report.title, body, f"MMPT {mmpt.__version__}, {date}{notes}")


def _summary(report: Report) -> str:
    """Say in a line what was evaluated, and when."""
    days = sorted({str(result.record["date"])[:10] for result in report.results if result.record.get("date")})
    parts = [_counted(len(report.results), "test")]
    if report.logs:
        parts.append(_counted(len(report.logs), "training run"))
    if days:
        parts.append("measured " + days[0] + (f" to {days[-1]}" if len(days) > 1 else ""))
    text = ", ".join(parts)
    if not report.pictures and (report.views or any(view.pictured for view in report.task_views)):
        text += ". The examples have no pictures: --videos DIR, the folder of the videos, adds them."
    return f"<p class=note>{html.escape(text)}</p>"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _tiles(report: Report) -> str:
    tiles = []
    for result in report.results[:_TILES]:
        columns = columns_of(result)
        names = [name for name in HEADLINES.get(result.metric, ()) if name in result.metrics]
        main, *more = names or [next(iter(result.metrics))]
        heading, kind = columns.get(main, (main, "number"))
        shown = cell_parts(result.metrics, main, kind)[0] + ("<small> %</small>" if kind == "share" else "")
        beside = [f"{columns[name][0]} {cell_parts(result.metrics, name, columns[name][1])[0]}" for name in more]
        parts = [heading, *beside, *([] if result.setting == UNKNOWN else [result.setting])]
        label = html.escape(", ".join(parts))
        tiles.append(
            f"<div class=tile><div class=value>{shown}</div><div class=label>{label}</div>"
            f"<div class=aside>{html.escape(_aside(result))}</div></div>"
        )
    return f"<div class=tiles>{''.join(tiles)}</div>"


def _aside(result: Result) -> str:
    """Say which test it is, how large, and what guessing would give."""
    facts = [result.name]
    if "count" in result.metrics:
        facts.append(f"{result.metrics['count']} {counted_as(result.metric)}")
    if "candidates" in result.metrics:
        candidates = result.metrics["candidates"]
        facts.append(f"{candidates} videos, chance {100 / candidates:.2g} %")
    facts += [f"{title} {100 * value:.1f} %" for title, value in baselines_of(result.metrics).items()]
    return " · ".join(facts)


def _results(report: Report) -> str:
    tables = []
    for metric in dict.fromkeys(result.metric for result in report.results):
        group = [result for result in report.results if result.metric == metric]
        columns = columns_of(*group)
        rows = [_result_row(result, columns) for result in group]
        headings = ["test", "setting", *(heading for heading, _ in columns.values()), counted_as(metric)]
        tables.append(page.table(headings, rows))
    note = "Shares in percent with their 95% interval."
    if report.views:
        note += " Equal scores count against the query. Text to video unless marked v2t."
    if report.missing:
        note += f" Not evaluated yet: {', '.join(map(str, report.missing))}."
    return page.section("Results", note, *tables)


def _result_row(result: Result, columns: Mapping[str, tuple[str, str]]) -> list[str]:
    tuned = " tuned" if result.setting == FINE_TUNED else ""
    cells = [html.escape(result.name), f'<span class="badge{tuned}">{html.escape(result.setting)}</span>']
    for name, (_, kind) in columns.items():
        value, interval = cell_parts(result.metrics, name, kind)
        value = html.escape(value)
        cells.append(f"{value}<span class=ci>{interval[0]} – {interval[1]}</span>" if interval else value)
    return [*cells, str(result.metrics.get("count", "-"))]


def _settings(report: Report) -> str:
    parts = []
    for result in report.results:
        record = result.record
        checkpoint = record.get("checkpoint") or {}
        facts = (
            f"checkpoint <code>{html.escape(str(checkpoint.get('path')))}</code>, "
            f"SHA-256 <code>{html.escape(str(checkpoint.get('sha256')))}</code><br>"
            f"measured {html.escape(str(record.get('date')))} with MMPT {html.escape(str(record.get('version')))}, "
            f"predictor {html.escape(str(record.get('predictor')))}, metric {html.escape(result.metric)}"
        )
        config = html.escape(json.dumps(record.get("config", {}), indent=2, ensure_ascii=False))
        summary = f"<summary>{html.escape(result.name)}</summary>"
        parts.append(f"<details>{summary}<p class=note>{facts}</p><pre>{config}</pre></details>")
    return page.section("Settings", "What was measured: checkpoint and full config of every test.", *parts)
