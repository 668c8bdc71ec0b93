"""Project files: one YAML that expands into one self-contained YAML per job."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mmpt.launch.corrections import Correction, correct
from mmpt.utils.config import apply_overrides, read_yaml, save_config
from mmpt.utils.errors import ConfigError, nearest
from mmpt.utils.files import resolve_path
from mmpt.utils.registry import find
from mmpt.utils.schema import PROJECT_KEYS, named_classes, validate

__all__ = ["Job", "Project", "expand_project", "is_project", "job_from_yaml", "write_jobs"]

logger = logging.getLogger(__name__)


@dataclass
class Job:
    """One concrete piece of work: a training, a test, or a script of data preparation.

    ``path`` is the job's own YAML, ``run_dir`` the folder of its log and state.
    """

    name: str
    path: Path
    config: DictConfig
    kind: str
    run_dir: Path
    group: str = ""
    not_built: list[str] = field(default_factory=list)

    @property
    def writes(self) -> Path | None:
        """The folder that a training job writes checkpoints to."""
        return self.run_dir if self.kind == "train" else None

    @property
    def reads(self) -> Path | None:
        """The checkpoint file that the job starts from, if any."""
        key = "fairseq.checkpoint.restore_file" if self.kind == "train" else "fairseq.common_eval.path"
        value = OmegaConf.select(self.config, key)
        return Path(value) if value else None


@dataclass
class Project:
    """An expanded project: its jobs in file order, the corrections made, and ``run_task`` if given."""

    path: Path
    jobs: list[Job]
    corrections: list[Correction]
    run_task: list[list[str]] | None = None


def is_project(config: DictConfig) -> bool:
    """Tell a project file (it has ``base_dir``) from the YAML of one job."""
    return "base_dir" in config


def expand_project(path: str | Path, overrides: Sequence[str] = ()) -> Project:
    """Expand a project file into its jobs, without writing anything.

    Raises:
        ConfigError: naming the file and key, if a task file is missing or a key is unknown.
    """
    project = read_yaml(path)
    top = ("includes", *PROJECT_KEYS)
    for key in project:
        if key not in top:
            raise ConfigError(f"{path}: unknown key {key!r} in a project file.{nearest(str(key), top)}")
    for key in ("project_dir", "base_dir", "task_group"):
        if not project.get(key):
            raise ConfigError(f"{path}: a project file needs {key!r}")
    to_project = [item for item in overrides if item.partition("=")[0].split(".")[0].strip() in PROJECT_KEYS]
    project = apply_overrides(project, to_project)
    to_jobs = [item for item in overrides if item not in to_project]
    jobs, corrections = _expand_groups(project, Path(path))
    for job in jobs:
        _override(job, to_jobs)
        job.not_built = _not_built(job.config)
        if job.kind != "script":
            validate(job.config, f"{path}: {job.name}")
        job.run_dir = _run_dir(job.name, job.config, job.kind)
    _refuse_shared_folders(jobs, path)
    return Project(Path(path), jobs, corrections, _stages_of(project, jobs, path))


def _expand_groups(project: DictConfig, path: Path) -> tuple[list[Job], list[Correction]]:
    jobs: list[Job] = []
    for group_name, group in project.task_group.items():
        if not isinstance(group, DictConfig):
            raise ConfigError(f"{path}: task_group.{group_name} must be a section with a task_list")
        for task in group.get("task_list") or []:
            jobs.append(_expand_task(str(group_name), group, str(task), project, path))
    names = [job.name for job in jobs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{path}: {name} is listed twice in task_group; every job needs a file name of its own")
    test_paths = {job.config.dataset.test_path for job in jobs if OmegaConf.select(job.config, "dataset.test_path")}
    corrections = [found for job in jobs for found in correct(job.name, job.config, test_paths)]
    return jobs, corrections


def _expand_task(group_name: str, group: DictConfig, task: str, project: DictConfig, path: Path) -> Job:
    template = Path("projects") / str(project.base_dir) / task
    if not resolve_path(template).exists():
        known = [file.name for file in resolve_path(template.parent).glob("*.yaml")]
        raise ConfigError(f"{path}: task_group.{group_name}: there is no {template}.{nearest(task, known)}")
    settings = OmegaConf.create({key: value for key, value in group.items() if key != "task_list"})
    config = OmegaConf.merge(read_yaml(template), settings)
    assert isinstance(config, DictConfig)
    _move_runs(config, f"runs/{project.base_dir}", f"runs/{project.project_dir}")
    output = Path("projects") / str(project.project_dir) / task
    kind = _kind_of(config, str(template))
    if kind == "script" and not config.get("run_dir"):
        config.run_dir = f"runs/{project.project_dir}/{Path(task).stem}"
    return Job(task, output, config, kind, _run_dir(task, config, kind), group_name)


def _move_runs(config: DictConfig, old: str, new: str) -> None:
    """Rewrite every string below ``old`` to lie below ``new``, through mappings but not lists."""
    for key in list(config):
        value = config[key]
        if isinstance(value, DictConfig):
            _move_runs(value, old, new)
        elif isinstance(value, str) and (value == old or value.startswith(f"{old}/")):
            config[key] = new + value[len(old) :]


def job_from_yaml(path: str | Path, overrides: Sequence[str] = ()) -> Job:
    """Read the YAML of a single job.

    Raises:
        ConfigError: naming the file and key.
    """
    config = read_yaml(path)
    kind = _kind_of(config, str(path))
    job = Job(Path(path).name, Path(path), config, kind, Path())
    _override(job, overrides)
    job.not_built = _not_built(job.config)
    if kind != "script":
        validate(job.config, str(path))
    job.run_dir = _run_dir(job.name, job.config, kind)
    return job


def _override(job: Job, overrides: Sequence[str]) -> None:
    if job.kind == "script":  # model and data keys mean nothing to a script; its own do
        overrides = [item for item in overrides if item.startswith(("args.", "run_dir="))]
    job.config = apply_overrides(job.config, overrides)


def _kind_of(config: DictConfig, source: str) -> str:
    if config.get("script"):
        return "script"
    if str(config.get("task_type", "")).endswith("predict") or OmegaConf.select(config, "dataset.split") == "test":
        return "predict"
    if OmegaConf.select(config, "fairseq.checkpoint.save_dir"):
        return "train"
    raise ConfigError(
        f"{source}: neither a training job (fairseq.checkpoint.save_dir), a test (dataset.split: test) nor a script"
    )


def _run_dir(name: str, config: DictConfig, kind: str) -> Path:
    if kind == "script":
        return Path(str(config.get("run_dir") or f"runs/{Path(name).stem}"))
    key = "fairseq.checkpoint.save_dir" if kind == "train" else "eval.save_path"
    value = OmegaConf.select(config, key)
    if not value:
        raise ConfigError(f"{name}: {key} is needed: the folder of what the job writes")
    return Path(str(value))


def _not_built(config: DictConfig) -> list[str]:
    return [name for _, kind, name in named_classes(config) if find(kind, name).target is None]


def _refuse_shared_folders(jobs: Sequence[Job], path: str | Path) -> None:
    owner: dict[Path, str] = {}
    for job in jobs:
        if job.run_dir in owner:
            raise ConfigError(f"{path}: {job.name} and {owner[job.run_dir]} would both write {job.run_dir}")
        owner[job.run_dir] = job.name


def _stages_of(project: DictConfig, jobs: Sequence[Job], path: str | Path) -> list[list[str]] | None:
    """Read ``run_task``; entries that name no job are left out with a warning."""
    stages = project.get("run_task")
    if stages is None:
        return None
    names = {job.name for job in jobs}
    result = []
    for stage in stages:
        listed = [str(stage)] if isinstance(stage, str) else [str(name) for name in stage]
        for name in listed:
            if name not in names:
                logger.warning("%s: run_task lists %s, which no task_group expands to: left out", path, name)
        result.append([name for name in listed if name in names])
    return [stage for stage in result if stage]


def write_jobs(project: Project) -> None:
    """Write the YAML of every job; a file whose content would not change is not touched."""
    for job in project.jobs:
        header = f"Expanded from {project.path}; edit that file, not this one.\n"
        header += f"Run this job alone: python locallaunch.py {job.path}"
        text = "".join(f"# {line}\n" for line in header.splitlines()) + OmegaConf.to_yaml(job.config)
        if not job.path.exists() or job.path.read_text(encoding="utf-8") != text:
            save_config(job.config, job.path, header)
