"""The exact command of a job, as an argument list; never a shell string."""

import importlib.util
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from mmpt.launch.layout import Layout, Machine
from mmpt.launch.project import Job
from mmpt.utils.config import training_batch_size
from mmpt.utils.errors import ConfigError, nearest
from mmpt.utils.extras import MissingExtraError
from mmpt.utils.files import REPOSITORY
from mmpt.utils.weight_files import LAST_CHECKPOINT

__all__ = ["Command", "build_command", "printable"]

logger = logging.getLogger(__name__)

_RESETS = ("reset_optimizer", "reset_dataloader", "reset_meters", "reset_lr_scheduler")


@dataclass
class Command:
    """An argument list, and what was changed on the way to it (``notes``, for the user)."""

    argv: list[str]
    notes: list[str] = field(default_factory=list)


def build_command(job: Job, config_path: Path, layout: Layout, machine: Machine) -> Command:
    """Return the command of a job whose resolved config lies (or will lie) at ``config_path``.

    Where ``layout`` says that each worker is ``started``, it is the command of one of them.
    """
    if job.kind == "script":
        return _script_command(job)
    if job.kind == "predict":
        list(_fairseq_settings(job))  # only to refuse what is no flag
        test = [_own("mmpt_cli/predict.py"), str(config_path)]
        together = layout.workers > 1 and not layout.started
        return Command([*(_torchrun(layout) if together else [sys.executable]), *test], list(layout.notes))
    return _training_command(job, config_path, layout, machine)


def _training_command(job: Job, config_path: Path, layout: Layout, machine: Machine) -> Command:
    """Return the command of a training: ``fairseq-train`` for one worker, and that of each for several.

    torchrun starts several: unlike fairseq's own spawning it knows CPUs, and hands on the signals by which a training
    is told to save. On a cluster each worker is started already.
    """
    command = Command([str(config_path), "--user-dir", _own("mmpt")], list(layout.notes))
    command.argv += ["--task", "mmtask", "--arch", "mmarch", "--criterion", "mmloss"]
    settings = dict(_fairseq_settings(job))
    if layout.workers > 1:
        starter = [sys.executable] if layout.started else _torchrun(layout)
        command.argv = [*starter, _own("mmpt_cli/fairseq_worker.py"), *command.argv]
    else:
        command.argv = [_program("fairseq-train"), *command.argv]
        if machine.gpus > 1 or layout.started:  # by itself fairseq takes every GPU that it sees
            command.argv += ["--distributed-world-size", "1"]
    if not machine.gpus:
        command.argv.append("--cpu")
        settings.pop("cpu", None)
        if settings.get("fp16"):
            settings["fp16"] = False
            command.notes.append("fp16 is left out: it needs a GPU")
    _resume(job, settings, command)
    for key, value in settings.items():
        command.argv += _flag(key, value)
    return command


def _torchrun(layout: Layout) -> list[str]:
    return [_program("torchrun"), "--standalone", "--nproc-per-node", str(layout.workers)]


def _fairseq_settings(job: Job) -> Iterator[tuple[str, Any]]:
    """Yield every leaf under ``fairseq:`` as (flag, value), whatever its group, after checking it is a flag."""
    flags = _known_flags()
    for group, leaves in (job.config.get("fairseq") or {}).items():
        if not isinstance(leaves, DictConfig):
            raise ConfigError(f"{job.path}: fairseq.{group} must be a section, for example fairseq.common.fp16: true")
        for key, value in leaves.items():
            name = str(key)
            if flags is not None and name not in flags:
                hint = nearest(name, flags)
                raise ConfigError(
                    f"{job.path}: fairseq.{group}.{name}: fairseq-train has no flag --{_dashed(name)}.{hint}"
                )
            if name == "batch_size":
                value = training_batch_size(job.config)
            elif name == "tensorboard_logdir" and value == "run":
                value = _next_tensorboard_folder(job.run_dir)
            yield name, value


def _known_flags() -> dict[str, bool] | None:
    if importlib.util.find_spec("fairseq") is None:
        return None
    from mmpt.launch.fairseq_flags import training_flags

    return training_flags()


def _resume(job: Job, settings: dict[str, Any], command: Command) -> None:
    """Continue an interrupted fine-tuning from its own last checkpoint, not from where it first started."""
    own = job.run_dir / LAST_CHECKPOINT
    if not any(job.run_dir.glob("checkpoint*.pt")):  # where the last one is lost, another takes its place
        return
    command.notes.append(f"resumes from {own}")
    if settings.get("restore_file"):
        for key in ("restore_file", *_RESETS):
            settings.pop(key, None)


def _flag(key: str, value: Any) -> list[str]:
    option = f"--{_dashed(key)}"
    flags = _known_flags()
    bare = flags.get(key, False) if flags is not None else isinstance(value, bool)
    if value is None:
        return []
    if bare:
        return [option] if value else []
    if isinstance(value, ListConfig | list | tuple):
        items = list(value)
        return [option, str(items[0]) if len(items) == 1 else ",".join(map(str, items))]
    return [option, str(value)]


def _script_command(job: Job) -> Command:
    """``script`` is a file, or ``-m module``; ``args`` become flags: true is bare, a list repeats the flag."""
    script = str(job.config.script).split()
    if script[0] == "-m" and len(script) == 2:
        argv = [sys.executable, *script]
    elif len(script) == 1:
        argv = [sys.executable, _own(script[0])]
    else:
        raise ConfigError(f"{job.path}: script must be one file or '-m module', not {job.config.script!r}")
    for key, value in (job.config.get("args") or {}).items():
        if key == "positional":
            argv += [str(item) for item in value]
            continue
        for item in value if isinstance(value, ListConfig) else [value]:
            if item is not None and item is not False:
                argv += [f"--{_dashed(str(key))}"] + ([] if item is True else [str(item)])
    return Command(argv)


def _next_tensorboard_folder(run_dir: Path) -> str:
    numbers = [
        int(found.group(1)) for folder in run_dir.glob("run_*") if (found := re.fullmatch(r"run_(\d+)", folder.name))
    ]
    return str(run_dir / f"run_{max(numbers, default=-1) + 1}")


def _own(path: str) -> str:
    """Return a path of the repository as it can be typed from the working directory."""
    if Path(path).exists():
        return path
    below = REPOSITORY / path
    return os.path.relpath(below) if below.exists() else path


def _program(name: str) -> str:
    """Return the program that stands beside the running interpreter, else the one on the PATH.

    Raises:
        MissingExtraError: if there is none.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise MissingExtraError(f"{name} is not installed. Install it with: pip install 'mmpt[train]'")
    return found


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def printable(argv: Sequence[str]) -> str:
    """Return an argument list as a line that can be pasted into a shell from the working directory."""
    import shlex

    here = f"{Path.cwd()}{os.sep}"
    return shlex.join(item.removeprefix(here) for item in argv)
