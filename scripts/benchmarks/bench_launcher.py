"""Time the expansion of every shipped project, imports left out.

    python scripts/benchmarks/bench_launcher.py

Prints, per project, its jobs and the median seconds of expanding it, checking every key against the schema and
building every job's command. The goal is under a second for the largest.
"""

import argparse
import json
import logging
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmpt.launch.graph import stages
from mmpt.launch.local import Runner
from mmpt.launch.project import expand_project, is_project
from mmpt.utils.config import read_yaml

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="timed expansions of each project (default 5)")
    parser.add_argument("--json", type=Path, help="append the result to this file, one JSON object per line")
    arguments = parser.parse_args(argv)
    logging.getLogger("mmpt").setLevel(logging.WARNING)  # the corrections of every expansion are no result
    runner = Runner()
    expand_and_command("projects/retri/videoclip.yaml", runner)  # imports what the classes and flags need
    results = {}
    for name, path in shipped_projects().items():
        seconds, jobs = [], 0
        for _ in range(arguments.repeat):
            begin = time.perf_counter()
            jobs = expand_and_command(path, runner)
            seconds.append(time.perf_counter() - begin)
        results[name] = {"jobs": jobs, "seconds": statistics.median(seconds)}
        print(f"{name:20} {jobs:3} jobs  {results[name]['seconds']:.3f} s")
    largest = max(results.values(), key=lambda result: result["jobs"])
    print(f"largest project: {largest['jobs']} jobs in {largest['seconds']:.3f} s (goal: under 1 s)")
    if arguments.json:
        with arguments.json.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"benchmark": "launcher", **results}) + "\n")
    return 0


def shipped_projects() -> dict[str, str]:
    """Return the path of every project file below projects/, from the repository's root, by its name without ending."""
    folder = ROOT / "projects"
    files = sorted(path for path in folder.rglob("*.yaml") if is_project(read_yaml(path)))
    return {str(path.relative_to(folder).with_suffix("")): str(path.relative_to(ROOT)) for path in files}


def expand_and_command(path: str, runner: Runner) -> int:
    """Expand a project, order its jobs and build their commands; return how many jobs it has."""
    project = expand_project(path)
    for stage in stages(project):
        for job in stage:
            runner.command(job)
    return len(project.jobs)


if __name__ == "__main__":
    sys.exit(main())
