"""A job as it runs on a cluster: one call of :class:`ClusterJob` in each task that Slurm starts.

The first task keeps the state and the log of the run folder. When Slurm announces that the job must go (``SIGUSR2``,
ahead of its time limit or at preemption), the training saves and leaves, and the first task has the job queued again.
"""

import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from mmpt.launch.commands import build_command, printable
from mmpt.launch.layout import Layout, Machine
from mmpt.launch.preparation import begin, conclude, settle_aside
from mmpt.launch.processes import Processes, job_environment
from mmpt.launch.project import Job
from mmpt.launch.state import CONFIG_FILE, LOG_FILE, JobFailed, JobState, identities, locked, started_in
from mmpt.utils.config import read_yaml
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import write_json
from mmpt.utils.signals import LEFT_EARLY

__all__ = ["ClusterJob", "Place"]

logger = logging.getLogger(__name__)

#: A node that failed may hold the lock of the run folder for as long as its file system takes to notice.
_SECONDS_FOR_A_LOCK = 180.0
#: How long a task waits for the others: to be there at the start, and for Slurm to end it at the end.
_SECONDS_TO_MEET = 600.0
_SECONDS_TO_END = 3600.0


@dataclass(frozen=True)
class Place:
    """Where a task stands in its job: ``run`` is the job's id with the number of its restarts."""

    rank: int
    workers: int
    local_rank: int
    nodes: int
    job_id: str
    restarts: int

    @classmethod
    def here(cls) -> "Place":
        """Read it from the environment that submitit knows (of Slurm, or of its own local executor)."""
        from mmpt.utils.extras import require

        task = require("submitit", "slurm").JobEnvironment()
        restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        return cls(task.global_rank, task.num_tasks, task.local_rank, task.num_nodes, task.job_id, restarts)


@dataclass
class ClusterJob:
    """Run one job of a project, as one of its tasks; what is pickled into the queue.

    ``after`` maps the names of its forerunners to their run folders. ``gpus`` per node are what it was promised.
    """

    name: str
    path: str
    kind: str
    run_dir: str
    gpus: int
    after: dict[str, str] = field(default_factory=dict)
    force_flag: str = ""

    def checkpoint(self) -> Any:
        """Return what runs when the job is queued again: the same, which goes on from its checkpoint."""
        from mmpt.utils.extras import require

        return require("submitit", "slurm").helpers.DelayedSubmission(self)

    def __call__(self) -> str:
        """Run this task's part to its end and return the status of the job.

        Raises:
            JobFailed: if the job fails; its successors then never start.
        """
        place = Place.here()
        job = Job(
            self.name, Path(self.path), read_yaml(Path(self.run_dir) / CONFIG_FILE), self.kind, Path(self.run_dir)
        )
        run = _Run(job, place, self._command(job, place), self.after)
        return run.as_first() if place.rank == 0 else run.as_other()

    def _command(self, job: Job, place: Place) -> list[str]:
        machine = Machine.here() if self.gpus else Machine(0)  # torch is not imported to count none
        if self.gpus and not machine.gpus:
            raise ConfigError(
                f"{self.name}: {self.gpus} GPU(s) per node were asked for; torch finds none on {socket.gethostname()}"
            )
        built = build_command(job, job.run_dir / CONFIG_FILE, Layout(place.workers, place.nodes, started=True), machine)
        for note in built.notes if place.rank == 0 else ():
            print(f"  note: {note}", flush=True)
        return [*built.argv, *([self.force_flag] if self.force_flag else [])]


class _Run:
    """One task of a running job: its command, and what signals make of it."""

    def __init__(self, job: Job, place: Place, command: list[str], after: Mapping[str, str]) -> None:
        self.job, self.place, self.command, self.after = job, place, command, after
        self.processes = Processes()
        self.received: set[signal.Signals] = set()
        self._requeue: Any = signal.getsignal(signal.SIGUSR2)  # submitit's, which has the job queued again
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._pass_on)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.received.add(signal.Signals(number))
        self.processes.signal(signal.Signals(number))

    def as_other(self) -> str:
        """Run this worker; leave what there is to say about the job to the first one."""
        code = self._run()
        if self._asked_to_leave(code):
            return "left"
        if code != 0:
            raise SystemExit(code if code > 0 else 128 - code)
        return "completed"

    def as_first(self) -> str:
        """Run this worker and keep the state of the run folder."""
        job = self.job
        with locked(job.run_dir, _SECONDS_FOR_A_LOCK) as lock:
            settle_aside(job, job.name, "the last run ended")
            state = JobState.read(job.run_dir) or JobState("pending")
            state.inputs = identities(job)
            state.command, state.workers = self.command, self.place.workers
            state.slurm_job, state.restarts = self.place.job_id, self.place.restarts
            state.after = {name: started_in(Path(folder)) for name, folder in self.after.items()}
            log_start = begin(job, state)
            state.host = socket.gethostname()
            state.write(job.run_dir)
            print(f"{job.name}: {printable(self.command)}", flush=True)
            started = time.monotonic()
            try:
                state.returncode = self._run(job.run_dir / LOG_FILE, keep=(lock,))
            finally:
                state.seconds = round(state.seconds + time.monotonic() - started, 1)
                conclude(job, state)
                settle_aside(job, job.name, "ended")
            if self._asked_to_leave(state.returncode):
                state.status = "pending" if signal.SIGUSR2 in self.received else "cancelled"
                state.write(job.run_dir)
        if self._asked_to_leave(state.returncode):
            if signal.SIGUSR2 in self.received:
                self._queue_again(state)
            return _wait_for_the_end()
        if state.returncode != 0:
            raise JobFailed(job, state.returncode, log_start)
        return state.status

    def _run(self, log: Path | None = None, keep: tuple[int, ...] = ()) -> int:
        environment = job_environment()
        meeting: Path | None = None
        if self.place.workers > 1:
            meeting = self.job.run_dir / "slurm" / f"meeting_{self.place.job_id}_{self.place.restarts}.json"
            environment |= _world(self.place, meeting)
        per_node = max(1, self.place.workers // self.place.nodes)
        environment.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // per_node)))
        try:
            return self.processes.run(self.command, environment, log, keep=keep)
        finally:
            if meeting is not None and self.place.rank == 0:
                meeting.unlink(missing_ok=True)

    def _asked_to_leave(self, code: int | None) -> bool:
        """Tell whether the command ended because of a signal to the job: it saved, or had nothing to save."""
        return code == LEFT_EARLY or (bool(self.received) and code in {-number for number in self.received})

    def _queue_again(self, state: JobState) -> None:
        """Let submitit queue the job again, which ends this task; else say in its state that it is over."""
        handler: Callable[[int, FrameType | None], Any] = self._requeue
        try:
            handler(signal.SIGUSR2, None)
        except Exception:  # its time limit has been reached too often, or Slurm refuses
            state.status = "cancelled"
            state.write(self.job.run_dir)
            raise


def _world(place: Place, meeting: Path) -> dict[str, str]:
    """Return what torch.distributed reads; the first task chooses the port, and tells the others by a file."""
    if place.rank == 0:
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        write_json(meeting, {"address": _address(), "port": port})
    told = _read_when_there(meeting)
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    values = (place.rank, place.workers, place.local_rank, told["address"], told["port"])
    return dict(zip(names, map(str, values), strict=True))


def _address() -> str:
    """Return the address of this machine as Slurm knows it; names of nodes need not resolve."""
    return os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or socket.gethostname()


def _read_when_there(meeting: Path) -> dict[str, Any]:
    deadline = time.monotonic() + _SECONDS_TO_MEET
    while time.monotonic() < deadline:
        try:
            return json.loads(meeting.read_text(encoding="utf-8"))
        except FileNotFoundError:
            time.sleep(0.2)
    raise DataError(
        f"{meeting}: the first worker has not come within {_SECONDS_TO_MEET:.0f} s. Is the run folder shared by the "
        "nodes?"
    )


def _wait_for_the_end() -> str:
    """Wait for Slurm to end the job: if its first task went by itself, Slurm would take it for done.

    It ends a cancelled one within its KillWait, and queues a preempted one again at the end of the GraceTime.
    """
    deadline = time.monotonic() + _SECONDS_TO_END
    while time.monotonic() < deadline:
        time.sleep(1)
    sys.exit(LEFT_EARLY)
