"""The order of jobs: each after the job that writes the checkpoint it reads."""

import os
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter

from mmpt.launch.project import Job, Project
from mmpt.utils.errors import ConfigError

__all__ = ["dependencies", "stages"]


def dependencies(jobs: Sequence[Job]) -> dict[str, set[str]]:
    """Return name -> names of the jobs it must wait for.

    A job waits for the one whose folder holds the checkpoint it reads, and for every script of an
    earlier group and every earlier script of its own; a script waits for all jobs before it.
    """
    writers = {os.path.normpath(job.writes): job.name for job in jobs if job.writes is not None}
    needs: dict[str, set[str]] = {}
    for position, job in enumerate(jobs):
        before = jobs[:position]
        if job.kind == "script":
            needs[job.name] = {other.name for other in before}
            continue
        needs[job.name] = {other.name for other in before if other.kind == "script"}
        if job.reads is not None:
            writer = writers.get(os.path.normpath(job.reads.parent))
            if writer is not None and writer != job.name:
                needs[job.name].add(writer)
    return needs


def stages(project: Project) -> list[list[Job]]:
    """Return the jobs to run as stages; jobs of one stage do not depend on each other.

    Without ``run_task`` all jobs run, as early as their dependencies allow and else in file order.
    With it, those it lists run in its order.

    Raises:
        ConfigError: if jobs wait for each other, or ``run_task`` puts one before what it reads.
    """
    by_name = {job.name: job for job in project.jobs}
    needs = dependencies(project.jobs)
    if project.run_task is not None:
        done: set[str] = set()
        listed = {name for stage in project.run_task for name in stage}
        for stage in project.run_task:
            for name in stage:
                late = (needs[name] & listed) - done
                if late:
                    raise ConfigError(f"{project.path}: run_task has {name} before or beside {', '.join(sorted(late))}")
            done |= set(stage)
        return [[by_name[name] for name in stage] for stage in project.run_task]
    sorter = TopologicalSorter(needs)
    try:
        sorter.prepare()
    except CycleError as error:
        raise ConfigError(f"{project.path}: these jobs wait for each other: {' -> '.join(error.args[1])}") from error
    order = {job.name: position for position, job in enumerate(project.jobs)}
    result = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=order.__getitem__)
        sorter.done(*ready)
        result.append([by_name[name] for name in ready])
    return result
