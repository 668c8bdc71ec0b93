"""Write the project that gives every system the same wall time, from the logs of one that gave the same updates.

    python locallaunch.py projects/compare_rates.yaml             # tells how long an update takes
    python scripts/comparison/equal_time.py --runs runs/compare_rates --minutes 3 \\
        --output projects/compare_equal_time.yaml
    python locallaunch.py projects/compare_equal_time.yaml

Each system is allowed the updates that it makes in that time, from its first logged one on, and its schedule ends with
them: a training that a clock cuts off would end at whatever rate it had reached, and could not be repeated. Measure on
the machine that is to train, with nothing beside it.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.evaluators.results import aligned
from mmpt.evaluators.training_log import read_clock
from mmpt.utils.errors import DataError, MMPTError
from mmpt.utils.files import atomic_open

__all__ = ["main", "seconds_per_update"]

#: fairseq logs whole seconds: of fewer than these the rate could be off by more than a twentieth.
_SHORTEST = 20.0
_PROJECT = "projects/compare.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--runs", type=Path, required=True, help="folder of finished trainings, <runs>/seed<seed>/<system>/log.txt")
    add("--minutes", type=float, required=True, help="wall time of every training")
    add("--output", type=Path, required=True, help="project file to write; its name names the folder of its runs")
    add("--project", default=_PROJECT, help="what it includes (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if not arguments.minutes > 0:
        parser.error(f"--minutes: {arguments.minutes:g} is not a time")
    try:
        rates = seconds_per_update(arguments.runs)
    except MMPTError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    updates = {system: max(1, round(60 * arguments.minutes / rate)) for system, rate in rates.items()}
    with atomic_open(arguments.output) as file:
        file.write(_project(arguments, updates))
    rows = [[system, f"{rates[system]:.3f}", f"{updates[system]:,}"] for system in updates]
    print(aligned([["system", "seconds per update", f"updates in {arguments.minutes:g} minutes"], *rows]))
    print(f"written: {arguments.output}")
    return 0


def seconds_per_update(runs: Path) -> dict[str, float]:
    """Return system -> wall seconds per update, with what validation takes, the median over the seeds.

    Raises:
        DataError: if there is no log, or one is of so short a training that it does not tell.
    """
    rates: dict[str, list[float]] = {}
    for log in sorted(runs.glob("seed*/*/log.txt")):
        clock = read_clock(log)
        if clock is None:
            raise DataError(
                f"{log}: no clock that runs through; a training that was resumed does not tell, train it anew"
            )
        lasted = float(clock.values[-1] - clock.values[0])
        if lasted < _SHORTEST:
            raise DataError(
                f"{log}: its updates are logged over {lasted:g} seconds, and {_SHORTEST:g} are needed to tell how long "
                "one takes; train anew, and longer (-o fairseq.optimization.max_update=...)"
            )
        rates.setdefault(log.parent.name, []).append(lasted / float(clock.updates[-1] - clock.updates[0]))
    if not rates:
        raise DataError(f"{runs}: no seed<seed>/<system>/log.txt in it; run the project with equal updates first")
    return {system: float(np.median(own)) for system, own in rates.items()}


def _project(arguments: argparse.Namespace, updates: Mapping[str, int]) -> str:
    name, project = arguments.output.stem, arguments.output.as_posix()
    groups: dict[str, Any] = {
        system: {"fairseq": {"optimization": {"max_update": allowed}}} for system, allowed in updates.items()
    }
    told = f" --project {arguments.project}" if arguments.project != _PROJECT else ""
    groups["report"] = {"args": {"positional": [project], "output": f"runs/{name}/report.html"}}
    body = {"includes": arguments.project, "project_dir": name, "task_group": groups}
    return (
        f"# {arguments.project} with {arguments.minutes:g} minutes of wall time for each training, not equal updates:\n"
        "# as many as fitted into that on one machine. For another machine write this file anew,"
        " from trainings there (docs/comparison.md):\n"
        f"#   python scripts/comparison/equal_time.py --runs {arguments.runs} --minutes {arguments.minutes:g}"
        f" --output {project}{told}\n"
        f"#   python locallaunch.py {project}\n" + yaml.safe_dump(body, sort_keys=False)
    )


if __name__ == "__main__":
    sys.exit(main())
