"""The run folders of a project, or those named on the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["RunFolders", "folders_of"]


@dataclass(frozen=True)
class RunFolders:
    """Folders of tests and of trainings; ``names`` gives the job name of a folder where it is known."""

    tests: list[Path]
    trainings: list[Path]
    names: Mapping[str, str] = field(default_factory=dict)


def folders_of(project: str | None, overrides: Sequence[str], runs: Sequence[str]) -> RunFolders:
    """Return the run folders of a project's jobs, or those below ``runs``.

    Raises:
        ConfigError: if the project file is wrong.
        DataError: if a folder of ``runs`` does not exist.
    """
    if project is None:
        return _below(runs)
    from mmpt.launch.project import expand_project

    jobs = expand_project(project, overrides).jobs
    names = {str(job.run_dir): Path(job.name).stem for job in jobs}
    tests = [job.run_dir for job in jobs if job.kind == "predict"]
    return RunFolders(tests, [job.run_dir for job in jobs if job.kind == "train"], names)


def _modified(file: Path) -> float:
    return file.stat().st_mtime


def _below(runs: Sequence[str]) -> RunFolders:
    from mmpt.utils.errors import DataError

    for run in runs:
        if not Path(run).is_dir():
            raise DataError(f"--runs: there is no folder {run}")
    logs = [log.parent for run in runs for log in sorted(Path(run).rglob("log.txt"), key=_modified)]
    trainings = [folder for folder in logs if not (folder / "metrics.json").exists()]
    return RunFolders([Path(run) for run in runs], trainings)
