"""A project that is run once for each of several seeds: its trainings, and the tests of what they write."""

import copy
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from mmpt.launch.job import Job, move_runs
from mmpt.utils.errors import ConfigError

__all__ = ["SEED_KEY", "of_its_seed", "read_seeds", "repeat_for_seeds"]

SEED_KEY = "fairseq.common.seed"


def read_seeds(given: Any, path: str | Path) -> list[int]:
    """Return the seeds of a project file; none where it has no key ``seeds``.

    Raises:
        ConfigError: if they are no list of different numbers, 0 or more.
    """
    if given is None:
        return []
    seeds = list(given) if isinstance(given, ListConfig | list | tuple) else []
    right = all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in seeds)
    if not seeds or not right or len(set(seeds)) < len(seeds):
        raise ConfigError(f"{path}: seeds must be a list of different whole numbers, such as [1, 2, 3], not {given}")
    return seeds


def repeat_for_seeds(jobs: Sequence[Job], seeds: Sequence[int], runs: str) -> list[Job]:
    """Return the jobs, each training and each test of one repeated for every seed.

    The job of ``x.yaml`` and seed 1 is ``x_seed1.yaml``. What it reads and writes below ``runs`` lies below
    ``<runs>/seed1``, so that a test reads the checkpoint of its own seed. Scripts, and tests of checkpoints that no job
    of the project writes, stay as they are. Between two scripts, all jobs of a seed come before those of the next.

    Args:
        jobs: of the project, in the order of the file.
        seeds: none: the jobs as they are.
        runs: the folder of the project's runs.
    """
    if not seeds:
        return list(jobs)
    written = {job.run_dir for job in jobs if job.kind == "train"}
    result: list[Job] = []
    for is_script, among in itertools.groupby(jobs, lambda job: job.kind == "script"):
        own = list(among)
        repeated = [job for job in own if not is_script and _depends(job, written)]
        result += [job for job in own if job not in repeated]
        result += [_with_seed(job, seed, runs) for seed in seeds for job in repeated]
    return result


def of_its_seed(settings: DictConfig, job: Job, runs: str) -> DictConfig:
    """Return settings as the job of a seed has them: with what lies below ``runs`` in the folder of the seed."""
    settings = copy.deepcopy(settings)
    if job.seed is not None:
        move_runs(settings, runs, f"{runs}/seed{job.seed}")
    return settings


def _depends(job: Job, written: set[Path]) -> bool:
    return job.kind == "train" or (job.reads is not None and job.reads.parent in written)


def _with_seed(job: Job, seed: int, runs: str) -> Job:
    name = f"{Path(job.task).stem}_seed{seed}.yaml"
    run_dir = Path(runs) / f"seed{seed}" / job.run_dir.relative_to(runs)
    repeated = Job(name, job.path.with_name(name), job.config, job.kind, run_dir, job.group, job.task, seed)
    repeated.config = of_its_seed(job.config, repeated, runs)
    if job.kind == "train":
        OmegaConf.update(repeated.config, SEED_KEY, seed, force_add=True)
    return repeated
