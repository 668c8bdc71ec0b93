"""How many workers a job has, and where: from its job type, the command line, and what the machine offers."""

import os
import re
from dataclasses import dataclass, field

from mmpt.launch.project import Job
from mmpt.utils.errors import ConfigError, nearest

__all__ = ["JOB_TYPES", "Layout", "Machine", "job_type_of", "local_layout", "on_slurm"]

#: The last word of a job type -> workers. ``local_`` and ``slurm_`` stand before it; ``sweep_`` is that of public
#: configs, for which the place is chosen on the command line.
_SIZES = {"single": 1, "small": 2, "big": 8, "predict": 1, "script": 1}
JOB_TYPES = {f"{place}_{size}": workers for place in ("local", "slurm") for size, workers in _SIZES.items()}


@dataclass(frozen=True)
class Machine:
    """What the launcher knows of the machine that a job will run on."""

    gpus: int
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))

    @classmethod
    def here(cls) -> "Machine":
        """Look at this machine."""
        import torch

        return cls(torch.cuda.device_count())


@dataclass(frozen=True)
class Layout:
    """Workers of a job. ``started`` ones are begun one by one by Slurm, the others by the job's own command."""

    workers: int = 1
    nodes: int = 1
    started: bool = False
    notes: tuple[str, ...] = ()


def job_type_of(job: Job, asked: str | None = None) -> str:
    """Return the job type: the one asked for where it fits the job's kind, else the YAML's ``task_type``.

    A test or script keeps its kind, and takes of a type that is asked for only the place. ``slurm_config`` of public
    configs names the size of a ``sweep`` without one.

    Raises:
        ConfigError: if the type is unknown; names the nearest.
    """
    if asked is not None and asked not in JOB_TYPES:
        raise ConfigError(f"--jobtype {asked}: unknown.{nearest(asked, JOB_TYPES)} Known: {', '.join(JOB_TYPES)}")
    named = asked or _named(job)
    place, _, size = named.partition("_")
    kinds = {"predict": "predict", "script": "script"}
    if job.kind in kinds:
        return f"{place}_{kinds[job.kind]}"
    if size in kinds:
        raise ConfigError(f"{f'--jobtype {asked}' if asked else 'task_type ' + named}: {job.path} is a training")
    return named


def _named(job: Job) -> str:
    given = str(job.config.get("task_type") or "local_single")
    if given == "sweep":
        given = f"sweep_{job.config.get('slurm_config') or 'big'}"
    named = re.sub(r"^sweep_", "local_", given)
    if named not in JOB_TYPES:
        raise ConfigError(f"{job.path}: task_type {given!r} is unknown.{nearest(named, JOB_TYPES)}")
    return named


def on_slurm(job_type: str) -> bool:
    """Tell whether a job type runs on a Slurm cluster."""
    return job_type.startswith("slurm_")


def local_layout(job_type: str, machine: Machine, asked: int | None = None, typed: bool = False) -> Layout:
    """Return the workers of a job on this machine.

    Args:
        asked: ``--gpus-per-node``: that many workers, on GPUs if there are any.
        typed: the job type was named on the command line, not by the YAML: its number of CPU workers holds even
            where there are fewer cores.

    Raises:
        ConfigError: if more workers are asked for than there are GPUs.
    """
    if asked is not None:
        if machine.gpus and asked > machine.gpus:
            raise ConfigError(f"--gpus-per-node {asked}: this machine has {machine.gpus} GPU(s)")
        return Layout(asked)
    workers = JOB_TYPES[job_type]
    available = machine.gpus or (workers if typed else machine.cores)
    if workers <= available:
        return Layout(workers)
    what = f"{machine.gpus} GPU(s)" if machine.gpus else f"no GPU and {machine.cores} core(s)"
    return Layout(available, notes=(f"{job_type} asks for {workers} workers; this machine has {what}",))
