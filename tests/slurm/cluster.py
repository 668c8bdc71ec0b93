"""A Slurm cluster of two nodes on this host, for the time of a `with` block: own daemons, ports, key and folder.

munged, slurmctld and one slurmd per node run in the foreground as children of this process. Every process of the
cluster, the jobs' too, carries the path of its slurm.conf in its environment: by that it is found again, so that a node
can be killed with all that runs on it and nothing outlives the block.
"""

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from configuration import write_configuration
from processes import kill_all, processes_with

__all__ = ["NODES", "PROGRAMS", "SPARE_NODE", "SlurmCluster", "SlurmError"]

NODES = ("n1", "n2")
#: A node that is down until a test starts it.
SPARE_NODE = "n3"
#: The programs that must be there; Debian's packages slurmctld, slurmd, slurm-client and munge bring them.
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "setpriv")
_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
_ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "DEADLINE"}
_START_SECONDS = 60.0
T = TypeVar("T")


class SlurmError(RuntimeError):
    """The cluster, or a job in it, did not do what was waited for."""


class SlurmCluster:
    """Two nodes and a spare one; partition `low`, whose jobs those of the partition `high` preempt, is the default."""

    def __init__(self) -> None:
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> "SlurmCluster":
        if missing := [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]:
            raise SlurmError(f"{', '.join(missing)} not found: `make test-slurm` installs Slurm, or says how to")
        with contextlib.ExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="mmpt-slurm-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            stack.callback(self._end_processes)
            self._start()
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    @property
    def conf(self) -> Path:
        """The cluster's slurm.conf."""
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment with the cluster in it, for subprocesses; a cluster around it is left out."""
        outside = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH", "SRUN"))}
        return outside | {"SLURM_CONF": str(self.conf), "PATH": _PATH}

    # -- commands ----------------------------------------------------------------------------------------------------

    def run(self, *argv: str, check: bool = True, timeout: float = 60) -> str:
        """Run one of Slurm's commands; returns its output, raises SlurmError where it fails."""
        done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode:
            raise SlurmError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def squeue(self) -> dict[str, str]:
        """Return the state of every job that the controller remembers."""
        lines = self.run("squeue", "--noheader", "--states=all", "--format=%A %T").split("\n")
        return dict(line.split() for line in lines if line)

    def job(self, job: str) -> dict[str, str]:
        """Return what `scontrol show job` says, by field; an empty dictionary for a job unknown."""
        return _fields(self.run("scontrol", "--oneliner", "show", "job", job, check=False))

    def nodes(self) -> dict[str, str]:
        """Return the state of each node, such as IDLE, MIXED or DOWN*."""
        lines = self.run("scontrol", "--oneliner", "show", "node").splitlines()
        return {fields["NodeName"]: fields["State"] for fields in map(_fields, lines) if "NodeName" in fields}

    def sbatch(self, script: str, *flags: str) -> str:
        """Submit a batch script; returns the job's number."""
        path = self.folder / f"script{time.monotonic_ns()}.sh"
        path.write_text(script)
        return self.run("sbatch", "--parsable", f"--output={self.folder}/%j.log", *flags, str(path)).strip()

    def log(self, job: str) -> str:
        """Return the output of a job of `sbatch`."""
        path = self.folder / f"{job}.log"
        return path.read_text() if path.exists() else ""

    def leave_minutes(self, job: str, minutes: int) -> None:
        """Set the time limit of a job so that it has between so many minutes, from now on, and one less."""
        hours, past, _ = self.job(job)["RunTime"].rpartition("-")[2].split(":")
        self.run("scontrol", "update", f"JobId={job}", f"TimeLimit={60 * int(hours) + int(past) + minutes}")

    def cancel(self, job: str) -> None:
        """Cancel a job."""
        self.run("scancel", job)

    # -- waiting -----------------------------------------------------------------------------------------------------

    def until(self, what: str, ready: Callable[[], T], timeout: float = 120) -> T:
        """Ask until `ready` returns something true, and return that; SlurmError with the queue when time is up."""
        end = time.monotonic() + timeout
        while not (found := ready()):
            if time.monotonic() > end:
                raise SlurmError(f"waited {timeout:.0f} s for {what}\n{self.describe()}")
            time.sleep(0.25)
        return found

    def wait(self, job: str, *states: str, timeout: float = 120) -> dict[str, str]:
        """Wait until the job is in one of the states; returns its fields. Fails at once where it ended in another."""

        def reached() -> dict[str, str]:
            fields = self.job(job)
            state = fields.get("JobState", "")
            if state in _ENDED - set(states) and not fields.get("Reason", "").startswith("BeginTime"):
                raise SlurmError(f"job {job} is {state}, expected {' or '.join(states)}\n{self.describe()}")
            return fields if state in states else {}

        return self.until(f"job {job} to be {' or '.join(states)}", reached, timeout)

    def describe(self) -> str:
        """Return nodes, jobs and the ends of the daemons' logs, for a failure's message."""
        try:
            jobs = "\n".join(f"{job}: {_brief(self.job(job))}" for job in self.squeue())
            state = f"nodes: {self.nodes()}\n{jobs}"
        except (SlurmError, subprocess.SubprocessError) as error:
            state = str(error)
        logs = "\n".join(f"{path.name}:\n{_tail(path)}" for path in sorted(self.folder.glob("*.log")))
        return f"{state}\n{logs}"

    def history(self) -> str:
        """Return what the controller has noted of jobs: submitted, started, signalled, queued again, ended."""
        lines = (self.folder / "slurmctld.log").read_text(errors="replace").splitlines()
        telling = re.compile(
            r"submit_batch_job|Allocate|Started|[Rr]equeu|_job_complete|preempt|kill_dependent|Nodes? "
        )
        return "\n".join(line for line in lines if telling.search(line))

    # -- nodes -------------------------------------------------------------------------------------------------------

    def start_node(self, name: str) -> None:
        """Start a node's slurmd, and wait until the controller counts on it.

        A node that comes back within a minute of its death is told to end what ran on it by job number: a job that is
        back under its old number dies of it. Elsewhere requeued jobs wait for longer (cred_expire); start another node.
        """
        self._daemon(f"slurmd {name}", ["slurmd", "-D", "-N", name], {"SLURMD_NODENAME": name})
        self.until(f"node {name} to be up", lambda: self.is_up(name), _START_SECONDS)

    def kill_node(self, name: str) -> None:
        """SIGKILL a node's slurmd and all that runs on it, as when its power fails."""
        self._kill_all(f"SLURMD_NODENAME={name}")
        if f"slurmd {name}" in self._daemons:
            self._daemons.pop(f"slurmd {name}").wait()

    def processes(self, of_jobs: bool = False) -> list[int]:
        """Return the ids of the processes of this cluster that run, or only of those that jobs have started."""
        marks = {f"SLURM_CONF={self.conf}"} | ({"SLURM_JOB_ID"} if of_jobs else set())
        return processes_with(marks)

    def is_up(self, name: str) -> bool:
        """Tell whether the controller counts on a node."""
        return self.nodes().get(name, "") in ("IDLE", "MIXED", "ALLOCATED")

    # -- start and end -----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self.folder.chmod(0o755)
        for name in ("munge", "state", *(f"spool/{node}" for node in (*NODES, SPARE_NODE))):
            (self.folder / name).mkdir(parents=True, mode=0o755)
        key = self.folder / "munge" / "key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        write_configuration(self.folder, (*NODES, SPARE_NODE))
        munge = self.folder / "munge"
        files = [f"--{name}-file={munge / name}" for name in ("key", "pid", "seed", "log")]
        self._daemon("munged", ["munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *files])
        self.until("munged's socket", (munge / "socket").exists, _START_SECONDS)
        self._daemon("slurmctld", ["slurmctld", "-D", "-c"])
        self.until("slurmctld to answer", lambda: "UP" in self.run("scontrol", "ping", check=False), _START_SECONDS)
        for node in NODES:
            self.start_node(node)

    def _daemon(self, name: str, argv: list[str], environment: Mapping[str, str] | None = None) -> None:
        """Start a daemon that dies with this process, out of reach of the terminal's Ctrl-C."""
        with (self.folder / f"{name.replace(' ', '.')}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *argv],
                env=self.environment | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _end_processes(self) -> None:
        self._kill_all()
        for daemon in self._daemons.values():
            daemon.kill()
            daemon.wait()

    def _kill_all(self, *marks: str) -> None:
        if left := kill_all({f"SLURM_CONF={self.conf}", *marks}):
            raise SlurmError(f"processes {left} of the Slurm cluster in {self.folder} cannot be killed")


def _fields(line: str) -> dict[str, str]:
    """Split scontrol's `Name=value Name=value`; a value may hold spaces."""
    return {name: value.strip() for name, value in re.findall(r"(\S+?)=(.*?)(?=\s\S+?=|$)", line.strip())}


def _brief(fields: Mapping[str, str]) -> str:
    names = ("JobName", "JobState", "Reason", "Dependency", "Requeue", "Restarts", "ExitCode", "NodeList")
    return " ".join(f"{name}={fields[name]}" for name in names if name in fields)


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
