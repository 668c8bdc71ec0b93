"""The expansion of every shipped project, imports left out: keys checked, and the command of every job.

    python scripts/benchmarks/bench_launcher.py

The goal is a second for the largest project; its jobs and seconds are the figures below the table.
"""

import logging
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.launch.graph import stages
from mmpt.launch.local import Runner
from mmpt.launch.project import expand_project, is_project
from mmpt.utils.config import read_yaml
from scripts.benchmarks.run import run_module
from scripts.benchmarks.work import Run, Work

__all__ = ["WORKS", "shipped_projects"]

ROOT = Path(__file__).resolve().parents[2]


def shipped_projects() -> dict[str, str]:
    """Return the path of every project file below projects/, from the repository's root, by its name without ending."""
    folder = ROOT / "projects"
    files = sorted(path for path in folder.rglob("*.yaml") if is_project(read_yaml(path)))
    return {str(path.relative_to(folder).with_suffix("")): str(path.relative_to(ROOT)) for path in files}


def _jobs(path: str, runner: Runner) -> int:
    """Expand a project, order its jobs and build their commands; return how many jobs it has."""
    project = expand_project(path)
    for stage in stages(project):
        for job in stage:
            runner.command(job)
    return len(project.jobs)


def _expanding(folder: Path, projects: int) -> Run:
    logging.getLogger("mmpt").setLevel(logging.WARNING)  # the corrections of every expansion are no result
    runner, paths = Runner(), list(shipped_projects().values())[: projects or None]
    taken: dict[str, list[float]] = {path: [] for path in paths}
    jobs = {path: _jobs(path, runner) for path in paths}  # imports what the classes and flags need

    def call() -> None:
        for path in paths:
            begin = time.perf_counter()
            _jobs(path, runner)
            taken[path].append(time.perf_counter() - begin)

    def figures() -> dict[str, Any]:
        largest = max(jobs, key=lambda path: jobs[path])
        return {"largest": largest, "its jobs": jobs[largest], "its seconds": statistics.median(taken[largest])}

    return Run(call, sum(jobs.values()), figures=figures)


WORKS = (
    Work(
        "project-expansion",
        "jobs",
        _expanding,
        sizes={"projects": 0},
        quick={"projects": 4},
        tiny={"projects": 1},
        group="alone",
    ),
)

if __name__ == "__main__":
    sys.exit(run_module(__file__, __doc__))
