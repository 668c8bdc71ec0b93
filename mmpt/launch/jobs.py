"""The jobs of a project as they stand: state, progress, results; and how to end them. Local ones and those on Slurm."""

import contextlib
import datetime
import os
import signal
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmpt.launch.project import Job
from mmpt.launch.slurm_queue import QueuedJob, SlurmError, cancel, queued
from mmpt.launch.state import LOG_FILE, JobState, is_locked, log_tail
from mmpt.utils.errors import DataError, MMPTError

__all__ = ["JobView", "cancel_jobs", "jobs_table", "look_at", "wait_for"]

_UNDER_WAY = ("pending", "running")
#: How long a launcher has to stop what it runs, beyond the time that it gives its jobs.
_SECONDS_TO_CANCEL = 30.0


@dataclass
class JobView:
    """One job as it stands. ``status`` is that of its state file, put right by what runs or is queued.

    ``note`` says why, or where; ``progress`` is the epoch, update and loss of a training; ``metrics`` those of a test.
    """

    job: Job
    state: JobState | None
    status: str
    note: str = ""
    progress: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        """Whether it runs or waits in a queue."""
        return self.status in ("pending", "running", "requeued")

    @property
    def where(self) -> str:
        """The machine, or the job's number on the cluster."""
        if self.state is None:
            return ""
        if self.state.slurm_job:
            return f"slurm {self.state.slurm_job}"
        return f"{self.state.host} {self.state.pid}" if self.state.pid else self.state.host

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        state = self.state
        return {
            "job": self.job.name,
            "status": self.status,
            "note": self.note,
            "progress": self.progress,
            "metrics": self.metrics,
            "run_dir": str(self.job.run_dir),
            "slurm_job": state.slurm_job if state else "",
            "restarts": state.restarts if state else 0,
            "seconds": state.seconds if state else 0.0,
            "returncode": state.returncode if state else None,
        }

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of its log."""
        return log_tail(self.job.run_dir / LOG_FILE, lines)


def look_at(jobs: Sequence[Job]) -> list[JobView]:
    """Look at jobs: their run folders, the processes of this machine, and the queue of the cluster if one is needed."""
    states = {job.name: JobState.read(job.run_dir) for job in jobs}
    ids = [state.slurm_job for state in states.values() if state and state.slurm_job and state.status != "completed"]
    queue: dict[str, QueuedJob] | None = None
    problem = ""
    try:
        queue = queued(ids)
    except SlurmError as error:
        problem = str(error)
    views = []
    for job in jobs:
        status, note = _status(job, states[job.name], queue, problem)
        views.append(JobView(job, states[job.name], status, note, _progress(job), _metrics(job)))
    return views


def _status(job: Job, state: JobState | None, queue: dict[str, QueuedJob] | None, problem: str) -> tuple[str, str]:
    if state is None:
        return "not run", ""
    known = (queue or {}).get(state.slurm_job)
    if state.status not in _UNDER_WAY and (known is None or known.over):
        code = f"exit code {state.returncode}" if state.status == "failed" else ""
        return state.status, code
    if state.slurm_job:  # what failed with its node may be in the queue again
        return _status_on_slurm(_fresh(job, state) if known is not None and known.over else state, known, problem)
    if is_locked(job.run_dir):
        return "running", ""
    if state.host and state.host != socket.gethostname():
        return "running", f"on {state.host}, as of its last word"
    return "interrupted", "its process is gone; the same command goes on from its last checkpoint"


def _fresh(job: Job, state: JobState) -> JobState:
    """Return the state as it is now: the job may have ended between the look at its folder and that at the queue."""
    return JobState.read(job.run_dir) or state


def _status_on_slurm(state: JobState, known: QueuedJob | None, problem: str) -> tuple[str, str]:
    if problem:
        return state.status, problem
    restarts = f"restart {state.restarts}" if state.restarts else ""
    if known is None:
        return "interrupted", f"Slurm knows it no longer; what it said last: {_logs_of(state)}"
    if known.over:
        if state.status not in _UNDER_WAY:
            return state.status, ""
        if known.state == "COMPLETED":
            return "completed", "Slurm says so; its folder does not yet"
        return (
            "cancelled" if known.state == "CANCELLED" else "interrupted",
            f"Slurm says {known.state}; {_logs_of(state)}",
        )
    if known.state == "PENDING":
        again = "requeued" if state.started else "pending"
        return again, ", ".join(filter(None, [known.reason, restarts]))
    return "running", ", ".join(filter(None, [f"on {known.nodes}" if known.nodes else "", restarts]))


def _logs_of(state: JobState) -> str:
    return f"slurm/{state.slurm_job}/ in its run folder"


def _progress(job: Job) -> str:
    """Say how far a training is; "" for other jobs and where nothing is logged yet."""
    if job.kind != "train" or not (job.run_dir / LOG_FILE).exists():
        return ""
    from mmpt.evaluators.training_log import read_training_log

    log = read_training_log(job.run_dir / LOG_FILE)
    parts = []
    for name, curve in (("loss", log.inner if len(log.inner) else log.epochs), ("valid", log.valid)):
        if len(curve):
            parts.append(f"update {curve.updates[-1]} {name} {curve.values[-1]:.3f}")
    return ", ".join(parts)


def _metrics(job: Job) -> dict[str, Any]:
    if job.kind != "predict":
        return {}
    from mmpt.evaluators.results import collect_results, headlines_of

    results, _ = collect_results([job.run_dir], {str(job.run_dir): job.name})
    return {name: result.metrics[name] for result in results for name in headlines_of(result)}


def jobs_table(views: Iterable[JobView]) -> str:
    """Return a table: job, state, where, for how long, and how far it is or what it reached."""
    from mmpt.evaluators.results import aligned

    rows = [("job", "state", "where", "since", "progress")]
    for view in views:
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in view.metrics.items())
        rows.append(
            (view.job.name.removesuffix(".yaml"), view.status, view.where, _since(view.state),
             "; ".join(filter(None, [view.progress, metrics, view.note])))
        )  # fmt: skip
    return aligned(rows)


def _since(state: JobState | None) -> str:
    if state is None or not state.started:
        return ""
    begun = state.started[:16].replace("T", " ")
    if state.status in _UNDER_WAY:
        seconds = (datetime.datetime.now() - datetime.datetime.fromisoformat(state.started)).total_seconds()
    else:
        seconds = state.seconds
    return f"{begun}, {datetime.timedelta(seconds=round(seconds))}"


def cancel_jobs(views: Sequence[JobView]) -> list[str]:
    """End the jobs that run or wait; return a line on each.

    A local job is ended through its launcher, so that this one starts no other; if the launcher is gone, its process
    group is. Trainings save first, if they do so in time. One that cannot be ended does not keep the others from it.

    Raises:
        MMPTError: after all, if one could not be ended; says which, and what was cancelled.
    """
    lines, problems = [], []
    for view in views:
        if view.state is None or not view.active:
            continue
        try:
            lines.append(_cancel_on_slurm(view) if view.state.slurm_job else _cancel_local(view.job, view.state))
        except MMPTError as error:
            problems.append(str(error))
    if problems:
        raise MMPTError("\n".join(problems + lines))
    return lines


def _cancel_on_slurm(view: JobView) -> str:
    state = view.state
    assert state is not None
    cancel(state.slurm_job)
    if view.status != "running":  # no process of its own is there to write it
        state.status = "cancelled"
        state.write(view.job.run_dir)
    return f"{view.job.name}: job {state.slurm_job} cancelled"


def _cancel_local(job: Job, state: JobState) -> str:
    if state.host and state.host != socket.gethostname():
        raise DataError(f"{job.name}: runs on {state.host}; cancel it there")
    for number, name, seconds in (
        (signal.SIGTERM, "launcher", _SECONDS_TO_CANCEL),
        (signal.SIGKILL, "launcher", 1.0),
        (signal.SIGKILL, "pid", _SECONDS_TO_CANCEL),
    ):
        target = getattr(state, name)
        if not target:
            continue
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(target, number) if name == "pid" else os.kill(target, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not is_locked(job.run_dir):
                ended = ", and with it its launcher, which begins no other job" if name == "launcher" else ""
                return f"{job.name}: cancelled{ended}"
            time.sleep(0.1)
    raise DataError(f"{job.name}: process {state.pid} has not ended; end it by hand")


def wait_for(jobs: Sequence[Job], seconds: float = 10.0) -> list[JobView]:
    """Wait until no job runs or is queued, looking every so many seconds; return how they stand then."""
    views = look_at(jobs)
    while any(view.active for view in views):
        time.sleep(seconds)
        views = look_at(jobs)
    return views
