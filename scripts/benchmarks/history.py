"""The history of benchmark runs: a JSON object per line, and what became slower since the last ones."""

import json
import os
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmpt.utils.errors import DataError

__all__ = ["append", "dropped", "read"]

#: Of this many last runs of a work the median ratio is what a new one is compared with.
RUNS = 5
#: A ratio below this share of it is reported.
LEAST = 0.8


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the records of a history, oldest first; none if there is no file yet.

    Raises:
        DataError: if a line is not a record; names it. The last one may be cut: its run was ended while it wrote.
    """
    if not os.path.exists(path):
        return []
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if not isinstance(record["works"], dict):
                raise TypeError
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) and isinstance(error, json.JSONDecodeError):
                continue
            raise DataError(f"{path}: line {number} is no record of a run. Remove it, or name another file.") from error
        records.append(record)
    return records


def append(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Add a record to a history, which is made if it is missing."""
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    cut = place.exists() and place.stat().st_size and not place.read_bytes().endswith(b"\n")
    with place.open("a", encoding="utf-8") as file:  # one write: runs that end together do not mix their lines
        file.write("\n" * bool(cut) + json.dumps(record, sort_keys=True) + "\n")


def dropped(record: Mapping[str, Any], earlier: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return, in words, which ratios of a record fell by more than a fifth of the median of the last runs.

    Compared are runs at the same sizes, quick or not, by the same clock, on the same processor with as many cores.
    """
    same = ("cpu", "cores", "clock", "quick")
    alike = [old for old in earlier if all(old.get(key) == record.get(key) for key in same)]
    found = []
    for name, work in record["works"].items():
        if work.get("ratio") is None:
            continue
        others = [old["works"].get(name, {}) for old in alike]
        ratios = [one["ratio"] for one in others if one.get("ratio") and one.get("sizes") == work.get("sizes")][-RUNS:]
        if ratios and work["ratio"] < LEAST * statistics.median(ratios):
            usual = statistics.median(ratios)
            found.append(f"{name}: ratio {work['ratio']:.2f}, {usual:.2f} is the median of the last {len(ratios)} runs")
    return found
