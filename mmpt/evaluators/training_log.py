"""Loss curves from the log of a training run, in fairseq's ``json`` and ``simple`` log formats.

A line may carry fairseq's prefix (``date | INFO | train_inner |``) or not. Three kinds of lines count::

    {"epoch": 1, "update": 0.1, "loss": "2.1", ..., "num_updates": "10", ...}    every log interval
    {"epoch": 1, "train_loss": "2.0", ..., "train_num_updates": "100", ...}      end of an epoch
    {"epoch": 1, "valid_loss": "1.9", ..., "valid_num_updates": "100", ...}      validation
"""

import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.utils.errors import DataError

__all__ = ["Curve", "TrainingLog", "read_clock", "read_training_log"]

logger = logging.getLogger(__name__)

_INNER = re.compile(r"epoch (\d+):\s+\d+ / \d+ (.*)$")
_END = re.compile(r"epoch (\d+) \| (?:(\w+) on '([^']+)' subset \| )?(.*)$")


@dataclass(frozen=True)
class Curve:
    """Values over update numbers, ascending: int64 and float64 arrays of one length."""

    updates: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.updates)


@dataclass(frozen=True)
class TrainingLog:
    """What one training run logged: ``inner`` (every log interval), ``epochs`` (means), ``valid``.

    ``train_batch`` and ``valid_batch`` are the usual pairs per batch (fairseq's ``bsz``), None where not logged.
    """

    inner: Curve
    epochs: Curve
    valid: Curve
    damaged_lines: int = 0
    train_batch: int | None = None
    valid_batch: int | None = None

    def __bool__(self) -> bool:
        return bool(len(self.inner) or len(self.epochs) or len(self.valid))


def read_training_log(path: str | os.PathLike[str], key: str = "loss") -> TrainingLog:
    """Read the curves of ``key`` ("loss", "lr" ...) from a log file.

    A run that was stopped and resumed logs some updates twice: the later line counts. Lines of
    other kinds are passed over; statistics lines that were cut off are counted.

    Raises:
        DataError: if there is no such file.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{path}: no such log file")
    points: dict[str, dict[int, float]] = {"inner": {}, "train": {}, "valid": {}}
    sizes: dict[str, list[float]] = {"inner": [], "train": [], "valid": []}
    damaged = 0
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            found = _statistics(line)
            if found is None:
                continue
            if not found:
                damaged += 1
            for kind, update, value in _points(found, key):
                points[kind][update] = value
            for kind, _, value in _points(found, "bsz"):
                sizes[kind].append(value)
    if damaged:
        logger.warning("%s: %d damaged lines of statistics were left out", path, damaged)
    inner, train, valid = (_curve(points[kind]) for kind in ("inner", "train", "valid"))
    return TrainingLog(inner, train, valid, damaged, _usual(sizes["inner"] or sizes["train"]), _usual(sizes["valid"]))


def read_clock(path: str | os.PathLike[str]) -> Curve | None:
    """Return the seconds of the clock, from the start of the training on, over updates; None if they are not known.

    fairseq logs whole seconds, and begins anew where a training is resumed: then they are not known.

    Raises:
        DataError: if there is no such file.
    """
    log = read_training_log(path, "wall")
    clock = _curve(
        {
            int(u): float(v)
            for curve in (log.inner, log.epochs)
            for u, v in zip(curve.updates, curve.values, strict=True)
        }
    )
    return clock if len(clock) and (np.diff(clock.values) >= 0).all() else None


def _usual(sizes: Sequence[float]) -> int | None:
    known = [size for size in sizes if math.isfinite(size)]
    return round(float(np.median(known))) if known else None


def _curve(points: Mapping[int, float]) -> Curve:
    updates = sorted(points)
    return Curve(np.array(updates, dtype=np.int64), np.array([points[update] for update in updates], dtype=np.float64))


def _statistics(line: str) -> dict[str, Any] | None:
    """Return the statistics of a line under the names of the json format; {} if damaged, None if it has none."""
    start = line.find('{"epoch"')
    if start >= 0:
        try:
            return json.loads(line[start:])
        except ValueError:
            return {}
    inner = _INNER.search(line)
    if inner:
        return dict(pair.strip().partition("=")[::2] for pair in inner[2].split(","))
    end = _END.search(line)
    if not end or " " not in end[4]:
        return None
    prefix = end[3] or "train"
    pairs = (pair.strip().partition(" ")[::2] for pair in end[4].split("|"))
    return {f"{prefix}_{name}": value for name, value in pairs}


def _points(statistics: Mapping[str, Any], key: str) -> Iterator[tuple[str, int, float]]:
    """Yield (kind of curve, update, value) of one line; at most one."""
    for kind, prefix in (("inner", ""), ("train", "train_"), ("valid", "valid_")):
        value, update = _number(statistics.get(prefix + key)), _number(statistics.get(f"{prefix}num_updates"))
        if value is not None and update is not None and math.isfinite(update):
            yield kind, int(update), value


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
