"""A project as a user launches it on the cluster, and what it leaves behind."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from cluster import SlurmCluster, SlurmError

from mmpt.launch.state import JobState

__all__ = ["REPOSITORY", "LaunchedProject"]

REPOSITORY = Path(__file__).parents[2]
T = TypeVar("T")


class LaunchedProject:
    """The project `project.yaml` in ``folder``, whose jobs write ``run_dirs`` (by job name, below the folder)."""

    def __init__(
        self, folder: Path, cluster: SlurmCluster, config: Mapping[str, Any], run_dirs: Mapping[str, str]
    ) -> None:
        self.folder, self.cluster, self.run_dirs = folder, cluster, run_dirs
        (folder / "project.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=False))

    def launch(self, *flags: str, yaml: str = "project.yaml") -> str:
        """Run locallaunch.py on the project, or on the YAML of one of its jobs, and return what it says."""
        return self._python("locallaunch.py", yaml, *flags)

    def listing(self) -> dict[str, dict[str, Any]]:
        """Return what `mmpt_cli.jobs` says of each job."""
        views = json.loads(self._python("mmpt_cli/jobs.py", "project.yaml", "--json"))
        return {Path(view["job"]).stem: view for view in views}

    def statuses(self) -> dict[str, str]:
        """Return the status of each job."""
        return {job: view["status"] for job, view in self.listing().items()}

    def _python(self, script: str, *arguments: str) -> str:
        path = os.pathsep.join((str(self.folder), str(REPOSITORY)))
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / script), *arguments],
            cwd=self.folder, env=self.cluster.environment | {"PYTHONPATH": path},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run_dir(self, job: str) -> Path:
        """Return the run folder of a job."""
        return self.folder / self.run_dirs[job]

    def slurm_job(self, job: str) -> str:
        """Return a job's number on the cluster."""
        state = JobState.read(self.run_dir(job))
        assert state is not None and state.slurm_job
        return state.slurm_job

    def log(self, job: str) -> str:
        """Return the log of a job, all its runs one after the other."""
        path = self.run_dir(job) / "log.txt"
        return path.read_text() if path.exists() else ""

    def updates(self, job: str) -> list[int]:
        """Return the numbers of the updates that a training has logged, all its runs one after the other."""
        return [int(number) for number in re.findall(r'"num_updates": "(\d+)"', self.log(job))]

    def until(self, what: str, ready: Callable[[], T], timeout: float = 240) -> T:
        """Wait for something; the ends of all logs are in the failure's message."""
        try:
            return self.cluster.until(what, ready, timeout)
        except SlurmError as error:
            raise AssertionError(f"{error}\n{self._printed()}") from None

    def until_state(self, job: str, *states: str, timeout: float = 240) -> dict[str, str]:
        """Wait until Slurm says one of these states of a job; an error at once where it has ended in another."""
        try:
            return self.cluster.wait(self.slurm_job(job), *states, timeout=timeout)
        except SlurmError as error:
            raise AssertionError(f"{job}: {error}\n{self._printed()}") from None

    def until_nothing_runs(self) -> None:
        """Wait until no process of any job is left; Slurm calls a job completed a moment before."""
        self.until("the jobs' processes to be gone", lambda: not self.cluster.processes(of_jobs=True), timeout=60)

    def account(self) -> str:
        """Return how the jobs stand, and what the cluster did with them: what a passed test has to show."""
        lines = [f"{job}: {view}" for job, view in self.listing().items()]
        return "\n".join([*lines, self.cluster.history()])

    def _printed(self) -> str:
        files = [*self.folder.rglob("log.txt"), *self.folder.rglob("*_log.out")]
        return "\n".join(f"== {path}\n{path.read_text(errors='replace')[-2500:]}" for path in files)

    def end(self) -> None:
        """Cancel what is left, and see it go: the next test wants the nodes."""
        going = ("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED")
        for job, state in self.cluster.squeue().items():
            if state in (*going, "PENDING"):
                self.cluster.cancel(job)
        self.until("all jobs to end", lambda: not set(going) & set(self.cluster.squeue().values()), timeout=60)
