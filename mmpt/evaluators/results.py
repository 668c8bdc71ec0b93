"""Results of run folders as records and as a text table."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt.evaluators.setting import FINE_TUNED, ZERO_SHOT, setting_of
from mmpt.utils.errors import DataError
from mmpt.utils.files import read_json

__all__ = [
    "COLUMNS",
    "HEADLINES",
    "Result",
    "aligned",
    "baselines_of",
    "cell_parts",
    "collect_results",
    "columns_of",
    "counted_as",
    "headlines_of",
    "results_json",
    "results_table",
]

logger = logging.getLogger(__name__)

#: Headings of the contrastive objectives of MERLOT and MERLOT Reserve, by their names in metrics.json.
_CONTRASTS = {
    "text_to_image": "text→frame",
    "image_to_text": "frame→text",
    "stuff_to_span": "text span",
    "text_to_audio": "sound",
    "imgs_to_audio": "frame",
}
#: What a table shows of each kind of metric: metrics.json name -> (heading, kind), the kind being "share", "rank",
#: "score" (four decimals, as public tables and the console line have it), "number", "count" or "text".
#: Tables show the kinds of metric in this order.
COLUMNS: dict[str, dict[str, tuple[str, str]]] = {
    "RetrievalMetric": {
        "R1": ("R@1", "share"),
        "R5": ("R@5", "share"),
        "R10": ("R@10", "share"),
        "MR": ("Median R", "rank"),
        "MeanR": ("Mean R", "rank"),
        "v2t_R1": ("v2t R@1", "share"),
    },
    "DiDeMoMetric": {"rank1": ("rank@1", "share"), "rank5": ("rank@5", "share"), "mIoU": ("mIoU", "share")},
    "QAMetric": {"acc": ("accuracy", "share"), "chance": ("chance", "share")},
    "OpenQAMetric": {
        "acc": ("accuracy", "share"),
        "acc5": ("top 5", "share"),
        "acc10": ("top 10", "share"),
        "adjusted_acc": ("adjusted", "share"),
        "majority": ("commonest answer", "share"),
        "unreachable": ("unreachable", "count"),
    },
    "NLGMetric": {
        "Bleu_1": ("BLEU-1", "share"),
        "Bleu_2": ("BLEU-2", "share"),
        "Bleu_3": ("BLEU-3", "share"),
        "Bleu_4": ("BLEU-4", "share"),
        "METEOR": ("METEOR", "share"),
        "ROUGE_L": ("ROUGE-L", "share"),
        "CIDEr": ("CIDEr", "score"),
        "tokenizer": ("tokenizer", "text"),
    },
    "COINActionSegmentationMetric": {
        "frame_acc": ("frame accuracy", "share"),
        "background_share": ("all background", "share"),
        "frame_acc_no_bg": ("in steps", "share"),
        "segment_f1": ("segment F1", "share"),
    },
    "CrossTaskMetric": {
        "recall": ("recall", "share"),
        "recall_chance_ordered": ("in order at random", "share"),
    },
    "StoryOrderingMetric": {
        "spearman": ("Spearman", "score"),
        "pairwise": ("pairs in order", "share"),
        "distance": ("places off", "score"),
        "exact": ("whole stories", "share"),
    },
    "ContrastMetric": {
        f"{name}_{what}": (f"{heading} {'chance' if what == 'chance' else f'R@{what[1:]}'}", "share")
        for name, heading in _CONTRASTS.items()
        for what in ("R1", "R10", "chance")
    },
    "VCRMetric": {"Q_AR": ("Q→AR", "share"), "Q_A": ("Q→A", "share"), "QA_R": ("QA→R", "share")},
    "TVQAMetric": {"acc": ("accuracy", "share"), "chance": ("chance", "share")},
    "ActionAnticipationMetric": {
        f"{part}_acc{top}": (f"{part} top {top or 1}", "share")
        for part in ("action", "verb", "noun")
        for top in ("", "5")
    },
}
#: The numbers that stand for a kind of metric, where those are not its first.
HEADLINES: dict[str, tuple[str, ...]] = {"NLGMetric": ("Bleu_4", "CIDEr")}
#: Shares that need no look at a video, by their name in metrics.json: what a result is to be held against.
_BASELINES = {
    "chance": "chance",
    "majority": "always the commonest answer",
    "background_share": "all background",
    "recall_chance_ordered": "in order at random",
}
#: What ``count`` counts, for kinds of metric whose items are no queries.
_COUNTED = {
    "QAMetric": "questions",
    "OpenQAMetric": "questions",
    "NLGMetric": "clips",
    "COINActionSegmentationMetric": "videos",
    "CrossTaskMetric": "videos",
    "StoryOrderingMetric": "stories",
    "VCRMetric": "questions",
    "TVQAMetric": "questions",
    "ActionAnticipationMetric": "actions",
}


@dataclass(frozen=True)
class Result:
    """One evaluated test: its name, run folder and the content of its ``metrics.json``."""

    name: str
    run_dir: Path
    record: Mapping[str, Any]

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The numbers, main metric first."""
        return self.record["metrics"]

    @property
    def metric(self) -> str:
        """The registered name of the metric."""
        return str(self.record.get("metric", ""))

    @property
    def setting(self) -> str:
        """ "zero-shot", "fine-tuned" or what ``eval.setting`` says; "-" where it is not known."""
        return str(self.record.get("setting") or setting_of(self.record.get("config") or {}))


def headlines_of(result: Result) -> tuple[str, ...]:
    """Return the names of the numbers that stand for a result."""
    named = [name for name in HEADLINES.get(result.metric, ()) if name in result.metrics]
    return tuple(named) or (next(iter(result.metrics)),)


def collect_results(
    run_dirs: Iterable[str | os.PathLike[str]], names: Mapping[str, str] | None = None
) -> tuple[list[Result], list[Path]]:
    """Read the results of run folders.

    Args:
        run_dirs: folders that hold a ``metrics.json`` themselves or, where they are not named, somewhere below.
        names: test name of a folder, by its path; default is the end of the path.

    Returns:
        ``(results, folders without one)``. Results are ordered by kind of metric as in :data:`COLUMNS`; within
        one, tests of one test set are neighbours, zero-shot before fine-tuned, and else keep the order of the folders.

    Raises:
        DataError: if a metrics.json is damaged.
    """
    results: list[Result] = []
    missing: list[Path] = []
    for run_dir in map(Path, run_dirs):
        direct = run_dir / "metrics.json"
        exact = direct.is_file() or str(run_dir) in (names or {})
        files = [direct] * direct.is_file() if exact else sorted(run_dir.rglob("metrics.json"))
        if not files:
            missing.append(run_dir)
        found = []
        for file in files:
            record = read_json(file)
            if not isinstance(record, dict) or not isinstance(record.get("metrics"), dict) or not record["metrics"]:
                raise DataError(f"{file}: holds no metrics; run the test again")
            name = (names or {}).get(str(file.parent)) or _name_of(file.parent)
            found.append(Result(name, file.parent, record))
        # what is only found below a folder has no order of its own: oldest first
        results += sorted(found, key=lambda result: str(result.record.get("date")))
    return _ordered(results), missing


def _ordered(results: Sequence[Result]) -> list[Result]:
    """Order results alike, whether their folders come in the order of a file, of a run or of their dates."""
    kinds = list(dict.fromkeys([*COLUMNS, *(result.metric for result in results)]))
    test_sets = list(dict.fromkeys(map(_test_set, results)))
    settings = {ZERO_SHOT: 0, FINE_TUNED: 1}

    def place(result: Result) -> tuple[int, int, int]:
        return kinds.index(result.metric), test_sets.index(_test_set(result)), settings.get(result.setting, 2)

    return sorted(results, key=place)


def _test_set(result: Result) -> str:
    config = result.record.get("config")
    dataset = config.get("dataset") if isinstance(config, Mapping) else None
    return str(dataset.get("test_path")) if isinstance(dataset, Mapping) else ""


def _name_of(folder: Path) -> str:
    parts = folder.parts[:-1] if folder.name == "eval" and len(folder.parts) > 1 else folder.parts
    return "/".join(parts[-2:])


def cell_parts(metrics: Mapping[str, Any], name: str, kind: str) -> tuple[str, tuple[str, str] | None]:
    """Return a metric as tables show it, and the ends of its 95% interval if it has one; shares in percent."""
    value = metrics.get(name)
    if value is None:
        return "-", None
    if kind in ("text", "count"):
        return str(value), None
    if kind != "share":
        return format(value, {"rank": ".1f", "score": ".4f"}.get(kind, ".4g")), None
    interval = metrics.get(f"{name}_ci")
    return f"{100 * value:.1f}", (f"{100 * interval[0]:.1f}", f"{100 * interval[1]:.1f}") if interval else None


def _cell(metrics: Mapping[str, Any], name: str, kind: str) -> str:
    value, interval = cell_parts(metrics, name, kind)
    return f"{value} [{interval[0]}, {interval[1]}]" if interval else value


def columns_of(*results: Result) -> dict[str, tuple[str, str]]:
    """Return the columns of results of one kind of metric: those that any of them has a number for.

    For a kind of the user's own, all plain numbers of the first result. ``skipped``, the number of items that were
    left out of a test, is a column where that happened.
    """
    skipped = any(result.metrics.get("skipped") for result in results)
    known = COLUMNS.get(results[0].metric)
    if known is None:
        columns = {name: (name, "number") for name, value in results[0].metrics.items() if isinstance(value, float)}
    else:
        columns = {name: column for name, column in known.items() if any(name in r.metrics for r in results)}
    return columns | ({"skipped": ("skipped", "count")} if skipped else {})


def baselines_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return what guessing gives (shares), by what to call it: of the metrics, those that measure no model."""
    return {title: metrics[name] for name, title in _BASELINES.items() if metrics.get(name) is not None}


def counted_as(metric: str) -> str:
    """Return what ``count`` counts under a kind of metric."""
    return _COUNTED.get(metric, "queries")


def results_table(results: Sequence[Result], missing: Sequence[str | os.PathLike[str]] = ()) -> str:
    """Return a text table of every test's metrics, one block per kind of metric.

    Shares are percent, with their 95% interval in brackets.
    """
    blocks = []
    for metric in dict.fromkeys(result.metric for result in results):
        group = [result for result in results if result.metric == metric]
        columns = columns_of(*group)
        rows = [["test", "setting", *(heading for heading, _ in columns.values()), counted_as(metric)]]
        for result in group:
            cells = [_cell(result.metrics, name, kind) for name, (_, kind) in columns.items()]
            rows.append([result.name, result.setting, *cells, str(result.metrics.get("count", "-"))])
        blocks.append(aligned(rows))
    if missing:
        blocks.append("no result yet: " + ", ".join(str(name) for name in missing))
    return "\n\n".join(blocks) if blocks else "no results"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return a text table of cells; the first row has the headings, which are underlined."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def results_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the results as plain data: name, setting, folder, metrics, checkpoint."""
    return [
        {
            "name": result.name,
            "setting": result.setting,
            "run_dir": str(result.run_dir),
            "metric": result.metric,
            "metrics": dict(result.metrics),
            "checkpoint": result.record.get("checkpoint"),
        }
        for result in results
    ]
