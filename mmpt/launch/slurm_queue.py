"""What a Slurm cluster says of jobs, by ``squeue`` and ``scontrol``: they work without accounting, unlike ``sacct``."""

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from mmpt.utils.errors import MMPTError

__all__ = ["QueuedJob", "SlurmError", "cancel", "queued"]

_SECONDS = 60
_ENDED = frozenset(
    ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL")
)


class SlurmError(MMPTError):
    """Report a command of Slurm's that is not there or fails; gives what it said."""


@dataclass(frozen=True)
class QueuedJob:
    """A job that Slurm still knows: ``state`` in its words (PENDING, RUNNING, ..), ``reason`` why it waits."""

    job_id: str
    state: str
    reason: str
    nodes: str

    @property
    def over(self) -> bool:
        """Whether it has ended (Slurm keeps it for some minutes) and will not begin again."""
        return self.state in _ENDED


def queued(ids: Iterable[str]) -> dict[str, QueuedJob]:
    """Return what Slurm says of jobs, by id; those it has forgotten are left out.

    Raises:
        SlurmError: if Slurm is not there, or does not answer.
    """
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    # All of one's own: asked for ids of which it has forgotten one, squeue names no other.
    listed = _call("squeue", "--me", "--noheader", "--states=all", "--format=%A|%T|%r|%N")
    found = {}
    for line in listed.splitlines():
        job_id, state, reason, nodes = (line.split("|") + [""] * 4)[:4]
        if job_id in wanted:
            found[job_id] = QueuedJob(job_id, state, reason if reason != "None" else "", nodes)
    return found


def cancel(job_id: str) -> None:
    """Have Slurm end a job: its tasks are asked first, and killed after Slurm's KillWait."""
    _call("scancel", job_id)


def _call(program: str, *arguments: str) -> str:
    if shutil.which(program) is None:
        raise SlurmError(f"{program} is not on the PATH: this machine belongs to no Slurm cluster")
    try:
        done = subprocess.run(
            [program, *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"{program} has not answered within {_SECONDS} s") from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip()
        raise SlurmError(f"{program} failed with exit code {error.returncode}: {said}") from error
    return done.stdout
