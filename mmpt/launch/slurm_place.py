"""Where a task of a cluster's job stands, and how the tasks of one job find each other."""

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt.utils.errors import DataError
from mmpt.utils.extras import require
from mmpt.utils.files import write_json

__all__ = ["Place", "world_of"]

#: How long a task waits for the first one at the start.
_SECONDS_TO_MEET = 600.0


@dataclass(frozen=True)
class Place:
    """Where a task stands in its job, and how often Slurm has begun that anew."""

    rank: int
    workers: int
    local_rank: int
    nodes: int
    job_id: str
    restarts: int

    @classmethod
    def here(cls) -> "Place":
        """Read it from the environment that submitit knows (of Slurm, or of its own local executor)."""
        task = require("submitit", "slurm").JobEnvironment()
        restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        return cls(task.global_rank, task.num_tasks, task.local_rank, task.num_nodes, task.job_id, restarts)

    @property
    def per_node(self) -> int:
        """Tasks of the job on each node."""
        return max(1, self.workers // self.nodes)

    def file(self, folder: Path, name: str) -> Path:
        """Return a file of this run of the job, below ``folder``, that all its tasks know."""
        return folder / "slurm" / f"{name}_{self.job_id}_{self.restarts}"


def world_of(place: Place, meeting: Path, given_up: Callable[[], bool]) -> dict[str, str]:
    """Return what torch.distributed reads; the first task chooses the port, and tells the others by a file.

    Returns nothing if ``given_up`` says so while a task waits.

    Raises:
        DataError: if the first task does not come.
    """
    if place.rank == 0:
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        # The address as Slurm knows it: names of nodes need not resolve.
        address = os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or socket.gethostname()
        write_json(meeting, {"address": address, "port": port})
    told = _read_when_there(meeting, given_up)
    if told is None:
        return {}
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    values = (place.rank, place.workers, place.local_rank, told["address"], told["port"])
    return dict(zip(names, map(str, values), strict=True))


def _read_when_there(meeting: Path, given_up: Callable[[], bool]) -> dict[str, Any] | None:
    deadline = time.monotonic() + _SECONDS_TO_MEET
    while time.monotonic() < deadline:
        try:
            return json.loads(meeting.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if given_up():
                return None
            time.sleep(0.2)
    raise DataError(
        f"{meeting}: the first worker has not come within {_SECONDS_TO_MEET:.0f} s. Is the run folder shared by the "
        "nodes?"
    )
