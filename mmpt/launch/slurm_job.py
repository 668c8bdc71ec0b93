"""A job as it runs on a cluster: one call of :class:`ClusterJob` in each task that Slurm starts.

The first task keeps the state and the log of the run folder. When Slurm announces that the job must go (``SIGUSR2``,
ahead of its time limit or at preemption), the training saves and leaves, and the first task has the job queued again.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from mmpt.launch.commands import build_command, printable
from mmpt.launch.layout import Layout, Machine
from mmpt.launch.preparation import begin, conclude, settle_aside
from mmpt.launch.processes import Processes, job_environment
from mmpt.launch.project import Job
from mmpt.launch.slurm_place import Place, world_of
from mmpt.launch.state import CONFIG_FILE, LOG_FILE, JobFailed, JobState, identities, locked, log_tail, started_in
from mmpt.utils.config import read_yaml
from mmpt.utils.errors import ConfigError
from mmpt.utils.extras import require
from mmpt.utils.files import read_json, write_json
from mmpt.utils.signals import LEFT_EARLY

__all__ = ["SUBMITTED_FILE", "ClusterJob"]

#: The settings of a job that waits in the queue, below its run folder.
SUBMITTED_FILE = "slurm/submitted.yaml"
#: A node that failed may hold the lock of the run folder for as long as its file system takes to notice.
_SECONDS_FOR_A_LOCK = 180.0
#: How long the first task waits for Slurm to end the job.
_SECONDS_TO_END = 3600.0
#: After another worker has failed: the first one may hang in what they would have done together.
_SECONDS_AFTER_A_FAILURE = 10.0


@dataclass
class ClusterJob:
    """Run one job of a project, as one of its tasks; what is pickled into the queue.

    ``after`` maps the names of its forerunners to their run folders. ``gpus`` per node are what it was promised,
    ``seconds`` the time until the signal ahead of the limit.
    """

    name: str
    path: str
    kind: str
    run_dir: str
    gpus: int
    after: dict[str, str] = field(default_factory=dict)
    force_flag: str = ""
    seconds: int = 0

    def checkpoint(self) -> Any:
        """Return what runs when the job is queued again: the same, which goes on from its checkpoint."""
        return require("submitit", "slurm").helpers.DelayedSubmission(self)

    def __call__(self) -> str:
        """Run this task's part to its end and return the status of the job.

        Raises:
            JobFailed: if the job fails; its successors then never start.
        """
        run = _Run(self, Place.here())
        try:
            return run.as_first() if run.place.rank == 0 else run.as_other()
        except Exception as error:
            run.note_failure(error)
            raise


class _Run:
    """One task of a running job: its command, and what signals make of it."""

    def __init__(self, part: ClusterJob, place: Place) -> None:
        self.part, self.place, self.run_dir = part, place, Path(part.run_dir)
        self.processes = Processes()
        self.received: set[signal.Signals] = set()
        self.begun = time.monotonic()
        self._requeue: Any = signal.getsignal(signal.SIGUSR2)  # submitit's, which has the job queued again
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._pass_on)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.received.add(signal.Signals(number))
        self.processes.signal(signal.Signals(number))
        if number == signal.SIGTERM:
            timer = threading.Timer(_SECONDS_AFTER_A_FAILURE, self._end_if_another_failed)
            timer.daemon = True
            timer.start()

    def _end_if_another_failed(self) -> None:
        if self._failures():
            self.processes.signal(signal.SIGKILL)

    def as_other(self) -> str:
        """Run this worker; leave what there is to say about the job to the first one."""
        log = self.place.file(self.run_dir, f"worker{self.place.rank}").with_suffix(".txt")
        code = self._run(self._command(self._job()), log)
        if self._asked_to_leave(code):
            return "left"
        if code != 0:
            self._report(code, log_tail(log))
            raise SystemExit(code if code > 0 else 128 - code)
        return "completed"

    def as_first(self) -> str:
        """Run this worker and keep the state of the run folder."""
        job = self._job()
        with locked(job.run_dir, _SECONDS_FOR_A_LOCK) as lock:
            settle_aside(job, job.name, "the last run ended")
            state = self._state(job)
            state.command = self._command(job)
            log_start = begin(job, state)
            state.write(job.run_dir)
            print(f"{job.name}: {printable(state.command)}", flush=True)
            started = time.monotonic()
            try:
                state.returncode = self._run(state.command, job.run_dir / LOG_FILE, keep=(lock,))
                self._blame_others(state)
            finally:
                state.seconds = round(state.seconds + time.monotonic() - started, 1)
                conclude(job, state)
                settle_aside(job, job.name, "ended")
            leaves = self._asked_to_leave(state.returncode)
            if leaves:
                self._leave(state)
        if leaves:
            return _wait_for_the_end()
        if state.returncode != 0:
            raise JobFailed(job, state.returncode, log_start)
        return state.status

    def note_failure(self, error: Exception) -> None:
        """See to it that the run folder tells of an error, also of one before the command began."""
        if self.place.rank > 0:
            self._report(1, f"    {error}")
            return
        state = JobState.read(self.run_dir) or JobState("pending")
        if state.status in ("pending", "running"):
            state.status, state.returncode, state.slurm_job = "failed", 1, self.place.job_id
            state.write(self.run_dir)
        if not isinstance(error, JobFailed):
            with (self.run_dir / LOG_FILE).open("a", encoding="utf-8") as log:
                log.write(f"error: {error}\n")

    def _job(self) -> Job:
        part = self.part
        config = read_yaml(self.run_dir / SUBMITTED_FILE)
        return Job(part.name, Path(part.path), config, part.kind, self.run_dir)

    def _state(self, job: Job) -> JobState:
        state = JobState.read(job.run_dir) or JobState("pending")
        state.inputs, state.workers = identities(job), self.place.workers
        state.slurm_job, state.restarts = self.place.job_id, self.place.restarts
        state.after = {name: started_in(Path(folder)) for name, folder in self.part.after.items()}
        state.host = socket.gethostname()
        return state

    def _command(self, job: Job) -> list[str]:
        gpus, place = self.part.gpus, self.place
        machine = Machine.here() if gpus else Machine(0)  # torch is not imported to count none
        if gpus and not machine.gpus:
            raise ConfigError(
                f"{job.name}: {gpus} GPU(s) per node were asked for; torch finds none on {socket.gethostname()}"
            )
        built = build_command(job, job.run_dir / CONFIG_FILE, Layout(place.workers, place.nodes, started=True), machine)
        for note in built.notes if place.rank == 0 else ():
            print(f"  note: {note}", flush=True)
        return [*built.argv, *([self.part.force_flag] if self.part.force_flag else [])]

    def _run(self, command: list[str], log: Path, keep: tuple[int, ...] = ()) -> int:
        environment = job_environment(gpus=self.part.gpus)
        cores = int(os.environ.get("SLURM_CPUS_PER_TASK") or 0)
        environment.setdefault("OMP_NUM_THREADS", str(cores or max(1, (os.cpu_count() or 1) // self.place.per_node)))
        log.parent.mkdir(parents=True, exist_ok=True)
        meeting = self.place.file(self.run_dir, "meeting").with_suffix(".json")
        try:
            if self.place.workers > 1:
                environment |= world_of(self.place, meeting, lambda: bool(self.received))
            if self.received:  # before there was a command to tell
                return -min(self.received)
            return self.processes.run(command, environment, log, keep=keep)
        finally:
            if self.place.rank == 0:
                meeting.unlink(missing_ok=True)

    def _asked_to_leave(self, code: int | None) -> bool:
        """Tell whether the command ended because of a signal to the job: it saved, or had nothing to save."""
        return code == LEFT_EARLY or (bool(self.received) and code in {-number for number in self.received})

    def _report(self, code: int, tail: str) -> None:
        said = {"rank": self.place.rank, "host": socket.gethostname(), "code": code, "tail": tail}
        write_json(self.place.file(self.run_dir, f"failed{self.place.rank}").with_suffix(".json"), said)

    def _failures(self) -> list[dict[str, Any]]:
        pattern = self.place.file(self.run_dir, "failed*").with_suffix(".json")
        return [read_json(path) for path in sorted(pattern.parent.glob(pattern.name))]

    def _blame_others(self, state: JobState) -> None:
        """Take over the exit code of another worker that failed, and note what it said: this one ended with it."""
        if self.place.workers == 1 or state.returncode in (0, LEFT_EARLY):
            return
        deadline = time.monotonic() + 2.0
        while not (failures := self._failures()) and time.monotonic() < deadline:
            time.sleep(0.1)
        for failure in failures:
            state.returncode = int(failure["code"])
            with (self.run_dir / LOG_FILE).open("a", encoding="utf-8") as log:
                log.write(f"error: worker {failure['rank']} on {failure['host']} failed with exit code ")
                log.write(f"{failure['code']}; the end of its log:\n{failure['tail']}\n")

    def _leave(self, state: JobState) -> None:
        """Say what becomes of a job that was asked to go, and have it queued again unless it is cancelled.

        Raises:
            JobFailed: if it needs more time than it may have, and cannot save.
        """
        timed_out = time.monotonic() - self.begun >= 0.9 * self.part.seconds
        if self.part.kind == "predict" and timed_out and signal.SIGUSR2 in self.received:
            state.status = "failed"
            state.write(self.run_dir)
            raise ConfigError(
                f"{self.part.name}: a test begins anew when it is interrupted, and needs more than slurm.time"
            )
        cancelled = signal.SIGTERM in self.received and signal.SIGUSR2 not in self.received
        state.status = "cancelled" if cancelled else "pending"
        state.write(self.run_dir)
        if not cancelled:
            self._queue_again(state)

    def _queue_again(self, state: JobState) -> None:
        """Let submitit queue the job again, which ends this task; else the batch script does, told by the exit code."""
        try:
            self._requeue(signal.SIGUSR2, None)
        except (OSError, subprocess.SubprocessError) as error:  # no scontrol here, or no munge: a container
            print(f"{self.part.name}: left to the batch script to queue it again ({error})", flush=True)
            sys.exit(LEFT_EARLY)
        except Exception:  # its time limit has been reached too often, or Slurm refuses
            state.status = "cancelled"
            state.write(self.run_dir)
            raise


def _wait_for_the_end() -> str:
    """Wait for Slurm to end the job: if its first task went by itself, Slurm would take it for done.

    It ends a cancelled one within its KillWait, and queues a preempted one again at the end of the GraceTime.
    """
    deadline = time.monotonic() + _SECONDS_TO_END
    while time.monotonic() < deadline:
        time.sleep(1)
    sys.exit(LEFT_EARLY)
