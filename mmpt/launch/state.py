"""What a run folder says about its job: the state file, the lock, and whether an old result still counts."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from mmpt.launch.project import Job
from mmpt.utils.config import read_yaml
from mmpt.utils.errors import DataError, MMPTError
from mmpt.utils.files import lock_file, read_json, write_json, writing

__all__ = [
    "CONFIG_FILE",
    "LOG_FILE",
    "STATE_FILE",
    "JobFailed",
    "JobState",
    "ProjectFailed",
    "changed_keys",
    "identities",
    "is_locked",
    "locked",
    "log_tail",
    "started_in",
]

STATE_FILE = "job.json"
LOG_FILE = "log.txt"
CONFIG_FILE = "config.yaml"

#: Keys that change what is printed or how fast, never the result.
HARMLESS = re.compile(
    r"task_type|slurm_config|slurm(\..*)?|run_dir|force_flag|inputs"
    r"|dataset\.num_workers|fairseq\.dataset\.(num_workers|data_buffer_size)"
    r"|fairseq\.\w+\.(log_interval|log_format|log_file|no_progress_bar|tensorboard_logdir|wandb_project)"
)
#: Keys that lengthen a training or say which checkpoints are kept: it goes on, it need not begin again.
EXTENDING = re.compile(
    r"fairseq\.\w+\.(max_epoch|max_update|stop_time_hours|save_interval|save_interval_updates|keep_interval_updates"
    r"|keep_last_epochs|keep_best_checkpoints|no_epoch_checkpoints|validate_interval|validate_interval_updates)"
)


class JobFailed(MMPTError):
    """Report a job that ended with a non-zero exit code; says why, and where the log is.

    The log's end is shown only where it is needed: an error of MMPT's own says all in one line.
    """

    def __init__(self, job: Job, returncode: int, log_start: int = 0) -> None:
        log = job.run_dir / LOG_FILE
        reason = _own_error(log, log_start)
        said = f": {reason}" if reason else f"\nThe end of the log:\n{log_tail(log)}"
        super().__init__(f"{job.name} failed with exit code {returncode} (log in {log}){said}")
        self.returncode = returncode


class ProjectFailed(MMPTError):
    """Report the jobs of a project that failed, and those left out because they wait for one of them.

    ``failed`` maps the names of jobs to their errors, ``left_out`` to the jobs they wait for.
    """

    def __init__(self, failed: Mapping[str, MMPTError], left_out: Mapping[str, Iterable[str]]) -> None:
        lines = [f"{len(failed)} jobs failed, {len(left_out)} were left out because of that"]
        lines += [f"  left out: {name} (waits for {', '.join(causes)})" for name, causes in left_out.items()]
        lines += [f"  failed: {str(error).splitlines()[0]}" for error in failed.values()]
        super().__init__("\n".join(lines))
        first = next(iter(failed.values()))
        self.returncode = first.returncode if isinstance(first, JobFailed) else 2


@dataclass
class JobState:
    """The content of ``job.json``: what became of a job, by which command, from which inputs.

    ``seconds`` is how long its last run took, ``processor_seconds`` what processors spent on it (0: not known).
    ``status`` is pending (in a queue), running, completed, failed or cancelled. ``after`` holds, for each job it
    depends on, when that one started; ``inputs`` the identity (time stamp and size) of the files and folders it read.
    While it runs, ``pid`` and ``launcher`` are processes on ``host``; ``slurm_job`` is the id of a job on a cluster,
    ``restarts`` how often Slurm has begun it anew.
    """

    status: str
    command: list[str] = field(default_factory=list)
    returncode: int | None = None
    started: str = ""
    seconds: float = 0.0
    processor_seconds: float = 0.0
    pid: int = 0
    after: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    workers: int = 1
    host: str = ""
    launcher: int = 0
    slurm_job: str = ""
    restarts: int = 0

    @classmethod
    def read(cls, run_dir: Path) -> "JobState | None":
        """Read the state of a run folder; None if it has none.

        Raises:
            DataError: if the file is damaged; names it.
        """
        path = run_dir / STATE_FILE
        if not path.exists():
            return None
        content = read_json(path)
        try:
            return cls(**content)
        except TypeError as error:
            raise DataError(f"{path}: not a job state ({error}); delete it to run the job again") from error

    def write(self, run_dir: Path) -> None:
        """Write the state, atomically."""
        write_json(run_dir / STATE_FILE, asdict(self))


def started_in(run_dir: Path) -> str:
    """Return when the job of a run folder last began, "" if it never did."""
    state = JobState.read(run_dir)
    return state.started if state else ""


@contextlib.contextmanager
def locked(run_dir: Path, patience: float = 0.0) -> Iterator[int]:
    """Hold a run folder for one job; yields the descriptor, which the job's process is to inherit.

    The lock lives as long as any process that has the descriptor, so a job that outlives its
    launcher still keeps others out.

    Args:
        patience: seconds to wait for another process to let go of it.

    Raises:
        DataError: if another process holds it.
        StorageError: if the folder may not be written.
    """

    def held() -> str:
        state = JobState.read(run_dir)
        process = f" (process {state.pid})" if state and state.pid else ""
        return f"{run_dir}: the job is running already{process}; wait for it, or stop it"

    with writing(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
    descriptor = lock_file(run_dir / ".lock", held, patience)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_locked(run_dir: Path) -> bool:
    """Tell whether a job holds a run folder: its process runs, whatever the state file says."""
    if not (run_dir / ".lock").exists():
        return False
    try:
        with locked(run_dir):
            return False
    except DataError:
        return True


def changed_keys(job: Job) -> tuple[list[str], list[str]]:
    """Return the keys in which a job differs from its last run, as (those that matter, those that extend it)."""
    path = job.run_dir / CONFIG_FILE
    if not path.exists():
        return [], []
    old, new = _flat(read_yaml(path)), _flat(job.config)
    missing = object()
    keys = sorted(key for key in old | new if old.get(key, missing) != new.get(key, missing))
    keys = [key for key in keys if not HARMLESS.fullmatch(key)]
    extending = [key for key in keys if job.kind == "train" and EXTENDING.fullmatch(key)]
    return [key for key in keys if key not in extending], extending


def identities(job: Job) -> dict[str, str]:
    """Return path -> time stamp and size of what a job reads: its starting checkpoint, a script's ``inputs``."""
    paths = [str(job.reads)] if job.reads is not None else []
    arguments = job.config.get("args") or {}
    for name in job.config.get("inputs") or []:
        value = arguments.get(name)
        values = list(value) if isinstance(value, ListConfig) else [value]
        paths += [str(item).rpartition("=")[2] for item in values if item is not None]
    found = {}
    for path in paths:
        if os.path.exists(path):
            status = os.stat(path)
            found[path] = f"{status.st_mtime_ns}:{status.st_size}"
    return found


def log_tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log file, indented."""
    if not log.exists():
        return "    (no log)"
    text = _read_from(log, max(0, log.stat().st_size - 64 * 1024)).replace("\r", "\n")
    return "\n".join(f"    {line}" for line in [item for item in text.splitlines() if item.strip()][-lines:])


def _own_error(log: Path, start: int) -> str:
    """Return the last error of MMPT's own that a job printed: frameworks wrap it in pages of their own."""
    if not log.exists():
        return ""
    found = re.findall(r"^(?:mmpt\.[\w.]+Error|error): (.+)$", _read_from(log, start), flags=re.MULTILINE)
    return found[-1] if found else ""


def _read_from(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode("utf-8", "replace")


def _flat(config: DictConfig, prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key!s}"
        if isinstance(value, DictConfig):
            result.update(_flat(value, f"{name}."))
        else:
            result[name] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return result
