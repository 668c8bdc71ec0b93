"""The ``slurm`` section of a project or job: what it asks of the cluster."""

import re
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig

from mmpt.launch.layout import JOB_TYPES, Layout, job_type_of
from mmpt.launch.project import Job
from mmpt.utils.errors import ConfigError, nearest
from mmpt.utils.options import read_options
from mmpt.utils.schema import CORE_KEYS

__all__ = ["SlurmOptions", "gpus_of", "minutes_of", "slurm_layout", "slurm_options"]

_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<numbers>\d+(?::\d+){0,2})")


@dataclass
class SlurmOptions:
    """Keys of ``slurm``; their meaning stands with the schema (:data:`mmpt.utils.schema.CORE_KEYS`)."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    time: Any = "1-00:00:00"
    mem_gb: float | None = None
    cpus_per_worker: int | None = None
    nodes: int = 1
    gpus_per_node: int | None = None
    workers_per_node: int | None = None
    setup: list[str] = field(default_factory=list)
    python: str | None = None
    container_image: str | None = None
    container_mounts: str | None = None
    signal_seconds: int = 120
    max_requeues: int = 100
    options: dict[str, Any] = field(default_factory=dict)


def slurm_options(job: Job, nodes: int | None = None, gpus_per_node: int | None = None) -> SlurmOptions:
    """Read the ``slurm`` section of a job; ``nodes`` and ``gpus_per_node`` of the command line win.

    The section is about trainings: a script has one worker without a GPU, a test one with a GPU, or as many as
    ``gpus_per_node`` says.

    Raises:
        ConfigError: if a key is unknown or has a wrong value; names it and the file.
    """
    section = job.config.get("slurm") or {}
    if not isinstance(section, DictConfig | dict):
        raise ConfigError(f"{job.path}: slurm must be a section of keys")
    for key in section:
        if key not in CORE_KEYS["slurm"]:
            raise ConfigError(f"{job.path}: unknown key 'slurm.{key!s}'.{nearest(str(key), CORE_KEYS['slurm'])}")
    try:
        options = read_options(section, SlurmOptions)
        if minutes_of(options.time) * 60 <= options.signal_seconds:
            raise ConfigError(
                f"slurm.time: {options.time!r} is no longer than slurm.signal_seconds ({options.signal_seconds}): a "
                "job would be told to go as soon as it begins, again and again"
            )
    except ConfigError as error:
        raise ConfigError(f"{job.path}: slurm.{str(error).removeprefix('slurm.')}") from error
    if job.kind == "train":
        options.nodes = nodes or options.nodes
    else:
        options.nodes, options.workers_per_node = 1, None if gpus_per_node is not None else 1
        options.gpus_per_node = 0 if job.kind == "script" or options.gpus_per_node == 0 else 1
    if gpus_per_node is not None and job.kind != "script":
        on_cores = options.gpus_per_node == 0 or gpus_per_node == 0
        options.gpus_per_node = 0 if on_cores else gpus_per_node
        options.workers_per_node = gpus_per_node or None
    _check_numbers(job, options)
    return options


def _check_numbers(job: Job, options: SlurmOptions) -> None:
    for key, least in (("nodes", 1), ("gpus_per_node", 0), ("workers_per_node", 1), ("cpus_per_worker", 1)):
        value = getattr(options, key)
        if value is not None and value < least:
            raise ConfigError(f"{job.path}: slurm.{key}: must be at least {least}, not {value}")
    if options.container_image and not options.python:
        raise ConfigError(
            f"{job.path}: slurm.container_image: slurm.python must say how Python is called in it, such as: python3"
        )


def slurm_layout(job: Job, options: SlurmOptions, job_type: str | None = None) -> Layout:
    """Return the workers of a job on the cluster: one for each GPU; without GPUs, ``workers_per_node`` on each node.

    Raises:
        ConfigError: if there is to be another number of workers on a node than of GPUs.
    """
    gpus = gpus_of(job, options, job_type)
    per_node = options.workers_per_node or gpus or JOB_TYPES[job_type_of(job, job_type)]
    if gpus and per_node != gpus:
        raise ConfigError(
            f"{job.path}: slurm.workers_per_node: {per_node} workers for {gpus} GPU(s) per node: each worker has one. "
            "Set slurm.gpus_per_node, to 0 to train on the cores"
        )
    return Layout(per_node * options.nodes, options.nodes, started=True)


def gpus_of(job: Job, options: SlurmOptions, job_type: str | None = None) -> int:
    """Return the GPUs per node that a job asks for: the section's, else as many as its job type has workers."""
    return JOB_TYPES[job_type_of(job, job_type)] if options.gpus_per_node is None else options.gpus_per_node


def minutes_of(time: object) -> int:
    """Return a time limit in whole minutes, rounded up: ``"90"`` (minutes), ``"HH:MM:SS"`` or ``"D-HH:MM:SS"``.

    Raises:
        ConfigError: if it is none of these, or a number: YAML reads an unquoted 24:00:00 as 86400.
    """
    found = _TIME.fullmatch(time) if isinstance(time, str) else None
    if found is None:
        raise ConfigError(f'slurm.time: {time!r} is no time limit; write it in quotes: "1-12:00:00" or "90" minutes')
    numbers = [int(number) for number in found["numbers"].split(":")]
    days = int(found["days"] or 0)
    if len(numbers) == 1:
        hours, minutes, seconds = (numbers[0], 0, 0) if found["days"] else (0, numbers[0], 0)
    elif len(numbers) == 2:  # as Slurm reads it: MM:SS, but D-HH:MM
        hours, minutes, seconds = (*numbers, 0) if found["days"] else (0, *numbers)
    else:
        hours, minutes, seconds = numbers
    total = days * 1440 + hours * 60 + minutes + (seconds > 0)
    if total < 1:
        raise ConfigError(f"slurm.time: {time!r} is no time at all")
    return total
