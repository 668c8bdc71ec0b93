"""Project files: one YAML that expands into one self-contained YAML per job."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from mmpt.launch.corrections import SHARED_MODEL, Correction, correct, correct_checkpoint, correct_model
from mmpt.launch.job import Job, move_runs
from mmpt.launch.seeds import SEED_KEY, of_its_seed, read_seeds, repeat_for_seeds
from mmpt.utils.config import apply_overrides, read_yaml, save_config
from mmpt.utils.errors import ConfigError, nearest
from mmpt.utils.files import resolve_path
from mmpt.utils.schema import PROJECT_KEYS, SHARED_KEYS, validate

__all__ = ["Job", "Project", "expand_project", "is_project", "job_from_yaml", "jobs_of", "write_jobs"]

logger = logging.getLogger(__name__)

#: Keys of a script job: what runs with which flags; ``inputs`` names the flags whose files, when they change, make
#: it run again; ``force_flag`` is added under --force.
SCRIPT_KEYS = ("task_type", "script", "args", "run_dir", "inputs", "force_flag", "slurm")


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
    top = ("includes", *PROJECT_KEYS, *SHARED_KEYS)
    for key in project:
        if key not in top:
            raise ConfigError(f"{path}: unknown key {key!r} in a project file.{nearest(str(key), top)}")
    for key in ("project_dir", "base_dir", "task_group"):
        if not project.get(key):
            raise ConfigError(f"{path}: a project file needs {key!r}")
    to_project = [item for item in overrides if item.partition("=")[0].split(".")[0].strip() in PROJECT_KEYS]
    groups = list(project.task_group) if isinstance(project.task_group, DictConfig) else []
    for item in to_project:
        words = item.partition("=")[0].split(".")
        if words[0] == "task_group" and (len(words) < 2 or words[1] not in groups):
            raise ConfigError(f"-o {item}: {path} has no such group.{nearest(words[-1], groups)}")
    project = apply_overrides(project, to_project)
    if project.get("seeds") and any(item.partition("=")[0].strip().endswith(SEED_KEY) for item in overrides):
        raise ConfigError(f"-o {SEED_KEY}: {path} has seeds of its own; override those, -o 'seeds=[1]'")
    jobs, corrections = _expand_groups(project, Path(path))
    others, runs = [item for item in overrides if item not in to_project], f"runs/{project.project_dir}"
    _finish(jobs, others, str(path), _of_groups(project, to_project), runs)
    _refuse_shared_folders(jobs, path)
    return Project(Path(path), jobs, corrections, _stages_of(project, jobs, path))


def _of_groups(project: DictConfig, overrides: Sequence[str]) -> dict[str, DictConfig]:
    """Return group -> the settings that ``task_group.<group>.…`` overrides give it."""
    groups = apply_overrides(OmegaConf.create(), overrides).get("task_group") or {}
    for settings in groups.values():
        settings.pop("task_list", None)
        move_runs(settings, f"runs/{project.base_dir}", f"runs/{project.project_dir}")
    return {str(name): settings for name, settings in groups.items()}


def _expand_groups(project: DictConfig, path: Path) -> tuple[list[Job], list[Correction]]:
    jobs: list[Job] = []
    if not isinstance(project.task_group, DictConfig):
        raise ConfigError(f"{path}: task_group must be a section of groups")
    for group_name, group in project.task_group.items():
        tasks = group.get("task_list") if isinstance(group, DictConfig) else None
        if not isinstance(tasks, ListConfig):
            raise ConfigError(f"{path}: task_group.{group_name!s} must be a section with a task_list, a list of YAMLs")
        for task in tasks:
            jobs.append(_expand_task(str(group_name), group, str(task), project, path))
    names = [job.name for job in jobs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{path}: {name} is listed twice in task_group; every job needs a file name of its own")
    jobs = repeat_for_seeds(jobs, read_seeds(project.get("seeds"), path), f"runs/{project.project_dir}")
    test_paths = {job.config.dataset.test_path for job in jobs if OmegaConf.select(job.config, "dataset.test_path")}
    corrections = [found for job in jobs for found in correct(job.name, job.config, test_paths)]
    chosen = {str(job.run_dir) for job in jobs if OmegaConf.select(job.config, "dataset.val_holdout")}
    corrections += [found for job in jobs for found in correct_checkpoint(job.name, job.config, chosen)]
    return jobs, corrections + _correct_models(jobs)


def _correct_models(jobs: Sequence[Job]) -> list[Correction]:
    """Correct the models of jobs whose checkpoint comes, at one or more removes, from a shared encoder."""
    trainings = [job for job in jobs if job.kind == "train"]
    shared = {job.run_dir for job in trainings if OmegaConf.select(job.config, "model.model_cls") == SHARED_MODEL}
    corrections = []
    for job in (*trainings, *(job for job in jobs if job.kind == "predict")):
        if job.reads is not None and job.reads.parent in shared:
            corrections += correct_model(job.name, job.config)
            shared.add(job.run_dir)
    return corrections


def _expand_task(group_name: str, group: DictConfig, task: str, project: DictConfig, path: Path) -> Job:
    template = Path("projects") / str(project.base_dir) / task
    if not resolve_path(template).exists():
        known = [file.name for file in resolve_path(template.parent).glob("*.yaml")]
        raise ConfigError(f"{path}: task_group.{group_name}: there is no {template}.{nearest(task, known)}")
    shared = {key: project[key] for key in SHARED_KEYS if key in project}
    settings = OmegaConf.create({key: value for key, value in group.items() if key != "task_list"})
    config = OmegaConf.merge(read_yaml(template), shared, settings)
    assert isinstance(config, DictConfig)
    move_runs(config, f"runs/{project.base_dir}", f"runs/{project.project_dir}")
    output = Path("projects") / str(project.project_dir) / task
    kind = _kind_of(config, str(template))
    if kind == "script" and not config.get("run_dir"):
        config.run_dir = f"runs/{project.project_dir}/{Path(task).stem}"
    return Job(task, output, config, kind, _run_dir(task, config, kind), group_name)


def job_from_yaml(path: str | Path, overrides: Sequence[str] = ()) -> Job:
    """Read the YAML of a single job.

    Raises:
        ConfigError: naming the file and key.
    """
    config = read_yaml(path)
    kind = _kind_of(config, str(path))
    job = Job(Path(path).name, Path(path), config, kind, Path())
    _finish([job], overrides, "")
    return job


def jobs_of(path: str | Path, overrides: Sequence[str] = (), only: Sequence[str] = ()) -> list[Job]:
    """Return the jobs of a project file, or the one of its own YAML; with ``only``, those of these names.

    Raises:
        ConfigError: if the file is wrong, or has no job of a name.
    """
    jobs = expand_project(path, overrides).jobs if is_project(read_yaml(path)) else [job_from_yaml(path, overrides)]
    known = [{Path(job.name).stem, Path(job.task).stem} for job in jobs]
    wanted = {Path(name).stem for name in only}
    for name in wanted:
        if not any(name in names for names in known):
            raise ConfigError(f"{path}: has no job {name!r}.{nearest(name, sorted(set().union(*known)))}")
    return [job for job, names in zip(jobs, known, strict=True) if not only or names & wanted]


def _finish(
    jobs: Sequence[Job],
    overrides: Sequence[str],
    project: str,
    of_groups: Mapping[str, DictConfig] | None = None,
    runs: str = "",
) -> None:
    """Apply overrides to the jobs they mean something to, check every job, and set what depends on its settings.

    Those of its group come last: they are the more specific ones, wherever they stand on the command line.
    """
    of_all = [item for item in overrides if item.startswith(tuple(f"{key}." for key in SHARED_KEYS))]
    of_scripts = [item for item in overrides if item.startswith(("args.", "run_dir="))]
    others = [item for item in overrides if item not in of_scripts and item not in of_all]
    for kinds, items in ((("script",), of_scripts), (("train", "predict"), others)):
        if items and not any(job.kind in kinds for job in jobs):
            raise ConfigError(f"-o {items[0]}: {project or jobs[0].path} has no job that it could set")
    for job in jobs:
        source = f"{project}: {job.name}" if project else str(job.path)
        job.config = apply_overrides(job.config, of_all + (of_scripts if job.kind == "script" else others))
        if of_groups and job.group in of_groups:
            job.config.merge_with(of_its_seed(of_groups[job.group], job, runs))
        if job.kind == "script":
            _check_script(job.config, source)
        else:
            unused = validate(job.config, source)
            for item in others:
                if item.partition("=")[0].strip() in unused and not project:
                    logger.warning("-o %s: no class that %s names reads it", item, source)
        job.run_dir = _run_dir(job.name, job.config, job.kind)


def _check_script(config: DictConfig, source: str) -> None:
    for key in config:
        if key not in SCRIPT_KEYS:
            raise ConfigError(f"{source}: unknown key {key!r} in a script job.{nearest(str(key), SCRIPT_KEYS)}")
    arguments = config.get("args") or {}
    if not isinstance(arguments, DictConfig | dict):
        raise ConfigError(f"{source}: args must be a section of flags and values")
    for name in config.get("inputs") or []:
        if name not in arguments:
            raise ConfigError(f"{source}: inputs names {name!r}, which is not in args.{nearest(name, arguments)}")


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
    if not isinstance(stages, ListConfig):
        raise ConfigError(f"{path}: run_task must be a list of stages, each a YAML or a list of YAMLs")
    names = {name for job in jobs for name in (job.name, job.task)}
    result = []
    for stage in stages:
        listed = [str(stage)] if isinstance(stage, str) else [str(name) for name in stage]
        for name in listed:
            if name not in names:
                logger.warning("%s: run_task lists %s, which no task_group expands to: left out", path, name)
        result.append([job.name for name in listed for job in jobs if name in (job.name, job.task)])
    return [stage for stage in result if stage]


def write_jobs(project: Project) -> None:
    """Write the YAML of every job; a file whose content would not change is not touched."""
    for job in project.jobs:
        header = f"Expanded from {project.path}; edit that file, not this one.\n"
        header += f"Run this job alone: python locallaunch.py {job.path}"
        text = "".join(f"# {line}\n" for line in header.splitlines()) + OmegaConf.to_yaml(job.config)
        if not job.path.exists() or job.path.read_text(encoding="utf-8") != text:
            save_config(job.config, job.path, header)
