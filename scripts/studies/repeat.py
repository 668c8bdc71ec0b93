"""What the studies share: projects repeated over seeds, and mean and spread as a table's cell."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from mmpt.launch.project import expand_project
from mmpt_cli.launch import main as launch

__all__ = ["cell", "run_dir", "run_seed"]


def run_dir(project_dir: str) -> Path:
    """Return the folder of the runs of a project."""
    return Path("runs") / project_dir


def run_seed(project: str, project_dir: str, seed: int, settings: Sequence[str] = ()) -> int:
    """Run the trainings and tests of a project (no scripts) with one training seed; return the launcher's exit code.

    ``settings`` are further overrides. What was completed before is not repeated.
    """
    jobs = [job for job in expand_project(project).jobs if job.kind != "script"]
    overrides = [f"project_dir={project_dir}", *settings]
    if not any(item.startswith("run_task=") for item in settings):
        overrides.append(f"run_task=[{', '.join(job.name for job in jobs)}]")
    overrides += [f"task_group.{job.group}.fairseq.common.seed={seed}" for job in jobs if job.kind == "train"]
    return launch([project, "--quiet", *(word for item in overrides for word in ("-o", item))])


def cell(values: Sequence[float], digits: int = 1) -> str:
    """Return "mean ± standard deviation (every value)"; a single value alone."""
    listed = ", ".join(f"{value:.{digits}f}" for value in values)
    if len(values) < 2:
        return listed
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f} ({listed})"
