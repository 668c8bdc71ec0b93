"""Systems compared: every test of every training of a folder of runs, as a leaderboard with intervals.

A training is known by the folder of its checkpoint, ``../<system>``, and by its seed; a test by its own folder,
``<system>/<test>``. Nothing but run folders is read.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from omegaconf import DictConfig, OmegaConf

from mmpt.evaluators.intervals import bootstrap_interval, t_interval
from mmpt.evaluators.qa_predictor import read_answers
from mmpt.evaluators.ranking import ranks_from_scores
from mmpt.evaluators.results import Result, aligned, baselines_of
from mmpt.evaluators.retrieval_files import read_scored, scores_of
from mmpt.evaluators.training_log import TrainingLog, read_clock, read_training_log
from mmpt.utils.errors import DataError
from mmpt.utils.files import read_json, resolve_path
from mmpt.utils.weight_files import read_training_checkpoint

__all__ = [
    "Cell",
    "Comparison",
    "Training",
    "build_comparison",
    "cost_rows",
    "interval_text",
    "leaderboard",
    "leaderboard_json",
    "shown",
]

logger = logging.getLogger(__name__)

#: What a leaderboard shows of a kind of metric: name -> (heading, whether it is a share).
_SHOWN: dict[str, dict[str, tuple[str, bool]]] = {
    "RetrievalMetric": {"R1": ("R@1", True), "R5": ("R@5", True), "MR": ("median rank", False)},
    "QAMetric": {"acc": ("accuracy", True)},
}


@dataclass(frozen=True)
class Training:
    """One training: its system and seed, resolved settings, what it took and what it logged.

    ``seconds`` and ``processor_seconds`` are those of the whole job, ``wall`` those of the training without the imports
    before it, by its log, None where they are not known; ``parameters`` is the number of weights in its checkpoint,
    ``workers`` that of processes that trained.
    """

    system: str
    seed: int | None
    folder: Path
    config: DictConfig
    seconds: float | None = None
    processor_seconds: float | None = None
    parameters: int | None = None
    log: TrainingLog | None = None
    wall: float | None = None
    workers: int = 1

    @property
    def updates(self) -> int | None:
        """How many updates its log tells of; None where there is none."""
        curves = (self.log.inner, self.log.epochs) if self.log else ()
        return max((int(curve.updates[-1]) for curve in curves if len(curve)), default=None)


@dataclass(frozen=True)
class Cell:
    """One number of one system over its seeds: all values, and two 95% intervals of their mean.

    ``over_items`` takes the trainings as they are and draws the items of the test anew (of each item the mean over the
    seeds counts); None where a number is no mean of items, or there are no predictions.
    """

    values: tuple[float, ...]
    over_seeds: tuple[float, float] | None
    over_items: tuple[float, float] | None

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return float(np.mean(self.values))


@dataclass
class Comparison:
    """Everything that a leaderboard is made of.

    ``cells`` is system -> (test, metric name) -> cell; ``columns`` those pairs in order, with heading and whether they
    are shares; ``chance`` what guessing gives in a column; ``tests`` system -> test -> results of its seeds;
    ``reasons`` why cells are empty.
    """

    trainings: list[Training]
    tests: dict[str, dict[str, list[Result]]]
    columns: dict[tuple[str, str], tuple[str, bool]]
    cells: dict[str, dict[tuple[str, str], Cell]]
    chance: dict[tuple[str, str], float]
    reasons: list[str] = field(default_factory=list)

    @property
    def systems(self) -> list[str]:
        """The systems, the best of the first column first."""
        first = next(iter(self.columns), None)
        known = [system for system in self.cells if first in self.cells[system]]
        better = sorted(known, key=lambda system: -self.cells[system][first].mean)  # type: ignore[index]
        return better + [system for system in self.cells if system not in known]

    def of(self, system: str) -> list[Training]:
        """Return the trainings of a system."""
        return [training for training in self.trainings if training.system == system]


def build_comparison(results: Sequence[Result]) -> Comparison:
    """Group results by the training whose checkpoint they test.

    Raises:
        DataError: if none of them is a test of a training's run folder.
    """
    trainings: dict[Path, Training] = {}
    tests: dict[str, dict[str, list[Result]]] = {}
    reasons = []
    for result in results:
        path = (result.record.get("checkpoint") or {}).get("path")
        folder = Path(str(path)).parent if path else None
        if folder is None or not (resolve_path(folder) / "config.yaml").is_file():
            reasons.append(f"{result.name}: not the test of a training whose run folder is there")
            continue
        if folder not in trainings:
            trainings[folder] = _read_training(folder)
        tests.setdefault(trainings[folder].system, {}).setdefault(result.run_dir.name, []).append(result)
    if not trainings:
        raise DataError("there is nothing to compare: no test names the checkpoint of a training whose run is there")
    columns: dict[tuple[str, str], tuple[str, bool]] = {}
    cells: dict[str, dict[tuple[str, str], Cell]] = {system: {} for system in tests}
    chance: dict[tuple[str, str], float] = {}
    for system, own in tests.items():
        for test, found in own.items():
            for name, (heading, share) in _SHOWN.get(found[0].metric, {}).items():
                columns.setdefault((test, name), (f"{test} {heading}", share))
                cells[system][test, name] = _cell(found, name, share, reasons)
                level = _chance(found[0], name)
                if level is not None:
                    chance[test, name] = level
    for system, test in ((system, test) for system in tests for test in {test for test, _ in columns}):
        seeds = len(tests[system].get(test, ()))
        trained = sum(training.system == system for training in trainings.values())
        if seeds < trained:
            reasons.append(f"{system}: {seeds} of {trained} trainings have a result in {test}")
    ordered = sorted(trainings.values(), key=lambda one: (one.system, one.seed is None, one.seed))
    return Comparison(ordered, tests, columns, cells, chance, list(dict.fromkeys(reasons)))


def _read_training(folder: Path) -> Training:
    place = resolve_path(folder)
    config = OmegaConf.load(place / "config.yaml")
    assert isinstance(config, DictConfig)
    seed = OmegaConf.select(config, "fairseq.common.seed")
    state = read_json(place / "job.json") if (place / "job.json").is_file() else {}
    file = place / "log.txt"
    log = read_training_log(file) if file.is_file() else None
    clock = read_clock(file) if file.is_file() else None
    return Training(
        folder.name,
        None if seed is None else int(seed),
        folder,
        config,
        state.get("seconds") or None,
        state.get("processor_seconds") or None,
        _parameters(place / "checkpoint_last.pt"),
        log,
        float(clock.values[-1]) if clock else None,
        int(state.get("workers") or 1),
    )


def _parameters(checkpoint: Path) -> int | None:
    """Count the weights of a checkpoint; what is shared counts once."""
    if not checkpoint.is_file():
        return None
    state = read_training_checkpoint(checkpoint)["model"]
    places = {
        (tensor.untyped_storage().data_ptr(), tensor.storage_offset()): tensor.numel() for tensor in state.values()
    }
    return sum(places.values())


def _cell(found: Sequence[Result], name: str, share: bool, reasons: list[str]) -> Cell:
    values = tuple(float(result.metrics[name]) for result in found)
    items = None
    if share:
        try:
            rows = [_items(result, name) for result in found]
            if len({len(row) for row in rows}) == 1:
                items = bootstrap_interval(np.mean(rows, axis=0))
        except DataError as error:
            reasons.append(f"{found[0].name}: no interval over items: {error}")
    return Cell(values, t_interval(values, (0.0, 1.0) if share else (1.0, math.inf)), items)  # no rank is below 1


def _items(result: Result, name: str) -> npt.NDArray[np.float64]:
    """Return what each item of a test adds to a share, 0 or 1 (items,)."""
    if result.metric == "QAMetric":
        return np.array([record["correct"] for record in read_answers(result.run_dir / "predictions.json")], np.float64)
    arrays = read_scored(result.run_dir)
    target = np.asarray(arrays["target"], np.int64)
    found = ranks_from_scores(scores_of(arrays, np.arange(len(target))), target)
    return (found <= int(name[1:])).astype(np.float64)


def _chance(result: Result, name: str) -> float | None:
    candidates = result.metrics.get("candidates")
    if candidates and name.startswith("R"):
        return min(1.0, int(name[1:]) / candidates)
    if candidates:
        return (candidates + 1) / 2
    return baselines_of(result.metrics).get("chance")


def shown(value: float, share: bool) -> str:
    """Return a number as the leaderboard has it, shares in percent."""
    return f"{100 * value:.1f}" if share else f"{value:.1f}"


def interval_text(interval: tuple[float, float] | None, share: bool) -> str:
    """Return an interval in the unit of :func:`shown`; "-" for none."""
    return "-" if interval is None else f"{shown(interval[0], share)} to {shown(interval[1], share)}"


def leaderboard(comparison: Comparison) -> str:
    """Return a text table: a line for each system and number, with both intervals and every seed's value."""
    rows = [["number", "system", "mean", "95% over seeds (t)", "95% over items (bootstrap)", "each seed"]]
    for column, (heading, share) in comparison.columns.items():
        for system in comparison.systems:
            cell = comparison.cells[system].get(column)
            if cell is None:
                rows.append([heading, system, "-", "-", "-", ""])
                continue
            each = ", ".join(shown(value, share) for value in cell.values)
            intervals = (interval_text(cell.over_seeds, share), interval_text(cell.over_items, share))
            rows.append([heading, system, shown(cell.mean, share), *intervals, each])
        if column in comparison.chance:
            rows.append([heading, "(chance)", shown(comparison.chance[column], share), "-", "-", ""])
    notes = [f"note: {reason}" for reason in comparison.reasons]
    return "\n".join([aligned(rows), "", aligned(cost_rows(comparison)), *notes])


def cost_rows(comparison: Comparison) -> list[list[str]]:
    """Return what each system cost, headings first; a point is a percent of the first share above chance."""
    first = next(((column, known) for column, known in comparison.columns.items() if known[1]), None)
    point = f"processor s per point of {first[1][0]}" if first else "processor s per point"
    rows = [["system", "trainings", "parameters", "seconds", "processor seconds", "updates", point]]
    for system in comparison.systems:
        own = comparison.of(system)
        spent = _mean([one.processor_seconds for one in own])
        gained = None
        if first and first[0] in comparison.cells[system]:
            gained = 100 * (comparison.cells[system][first[0]].mean - comparison.chance.get(first[0], 0.0))
        per_point = f"{spent / gained:.1f}" if spent is not None and gained and gained > 0 else "-"
        updates = sorted({one.updates for one in own if one.updates is not None})
        numbers = (_mean([one.parameters for one in own]), _mean([one.seconds for one in own]), spent)
        texts = ["-" if number is None else f"{number:,.0f}" for number in numbers]
        rows.append([system, str(len(own)), *texts, ", ".join(map(str, updates)) or "-", per_point])
    return rows


def _mean(values: Sequence[float | int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def leaderboard_json(comparison: Comparison) -> dict[str, Any]:
    """Return the leaderboard as plain data."""

    def of_system(system: str) -> Mapping[str, Any]:
        cells = comparison.cells[system]
        own = comparison.of(system)
        return {
            "numbers": {
                f"{test}/{name}": {
                    "mean": cell.mean,
                    "values": list(cell.values),
                    "over_seeds": cell.over_seeds,
                    "over_items": cell.over_items,
                }
                for (test, name), cell in cells.items()
            },
            "seeds": [one.seed for one in own],
            "parameters": _mean([one.parameters for one in own]),
            "seconds": [one.seconds for one in own],
            "processor_seconds": [one.processor_seconds for one in own],
        }

    chance = {f"{test}/{name}": value for (test, name), value in comparison.chance.items()}
    systems = {system: of_system(system) for system in comparison.systems}
    return json.loads(json.dumps({"systems": systems, "chance": chance, "notes": comparison.reasons}))
