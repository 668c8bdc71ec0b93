"""What happens to a run folder before and after its job: does what is there count, and what became of the job."""

import datetime
from pathlib import Path

from mmpt.launch.project import Job
from mmpt.launch.replaced import set_aside, settle
from mmpt.launch.state import CONFIG_FILE, LOG_FILE, STATE_FILE, JobState, changed_keys
from mmpt.utils.config import save_config
from mmpt.utils.errors import ConfigError
from mmpt.utils.signals import LEFT_EARLY

__all__ = ["begin", "conclude", "is_done", "settle_aside"]

#: What an earlier run leaves behind that a new one would go on from, or that would pass for its result.
_LEFTOVERS = {
    "train": ("checkpoint*.pt", "checkpoint*.safetensors", "nonfinite_*.json", "retri/*", LOG_FILE),
    "predict": ("metrics.json", LOG_FILE),
    "script": (LOG_FILE,),
}


def is_done(job: Job, new: JobState, force: bool, say: str) -> bool:
    """Tell whether the job was completed with these settings and inputs; clear the folder of what does not count.

    Args:
        new: the state that a run would begin with.
        force: nothing that is there counts.
        say: what messages begin with.

    Raises:
        ConfigError: if a training with other settings is in the folder, and ``force`` is not set.
    """
    old = JobState.read(job.run_dir)
    if old is None:
        return False
    reason = _why_again(job, old, new, force)
    if not reason and old.status == "completed":
        print(f"{say}: completed before, skipped (--force redoes it)", flush=True)
        return True
    if reason and not reason.startswith("extended"):
        print(f"{say}: from the start, {reason}", flush=True)
        _make_way(job)
    elif job.kind == "train" and old.workers != new.workers and any(job.run_dir.glob("checkpoint*.pt")):
        print(f"{say}: goes on with {new.workers} workers after {old.workers}: other batches an update", flush=True)
    return False


def _why_again(job: Job, old: JobState, new: JobState, force: bool) -> str:
    """Say why what is in the folder does not count; "" if it does (or can be gone on from)."""
    if force:
        return "--force"
    late = [name for name, started in new.after.items() if old.after.get(name, started) != started]
    if late:
        return f"{', '.join(late)} ran again"
    if {path: old.inputs.get(path) for path in new.inputs} != new.inputs and old.inputs:
        return "what it reads has changed"
    matter, extending = changed_keys(job)
    if matter and job.kind == "train" and any(job.run_dir.glob("checkpoint*.pt")):
        raise ConfigError(
            f"{job.name}: {job.run_dir} holds a training with other settings ({', '.join(matter)})."
            " --force trains again from the start and replaces it; another project_dir or save_dir keeps it"
        )
    if matter:
        return f"other settings than before ({', '.join(matter)})"
    return f"extended ({', '.join(extending)})" if extending else ""


def _make_way(job: Job) -> None:
    """Remove what an earlier run of the job would make the new one resume from; a training's is only set aside."""
    if job.kind == "train" and any(job.run_dir.glob("checkpoint*.pt")):
        set_aside(job.run_dir, [*_LEFTOVERS[job.kind], STATE_FILE, CONFIG_FILE])
        return
    for pattern in [*_LEFTOVERS[job.kind], STATE_FILE]:
        for path in job.run_dir.glob(pattern):
            path.unlink()


def settle_aside(job: Job, say: str, when: str) -> None:
    """Delete what a training replaces once it has a checkpoint of its own, else put it back and say so."""
    if settle(job.run_dir, LOG_FILE):
        print(f"{say}: {when} without a checkpoint; what it was to replace is back", flush=True)


def begin(job: Job, state: JobState) -> int:
    """Write the settings of a job that is about to run and set its start; return where its log will begin."""
    what = "arguments" if job.kind == "script" else "settings"
    resolved = "" if job.kind == "script" else ", resolved"
    save_config(job.config, job.run_dir / CONFIG_FILE, f"The {what} of {job.name}{resolved}.")
    state.status, state.started = "running", datetime.datetime.now().isoformat()
    log = job.run_dir / LOG_FILE
    return log.stat().st_size if log.exists() else 0


def conclude(job: Job, state: JobState, stopped: bool = False) -> None:
    """Write what became of a job whose ``returncode`` and ``seconds`` are known.

    A training without a checkpoint has failed. One that was asked to leave, or stopped, is cancelled: the same
    command goes on from there.
    """
    if state.returncode == 0 and job.kind == "train" and not any(job.run_dir.glob("checkpoint*.pt")):
        _append(
            job.run_dir / LOG_FILE,
            "error: the training ended without a checkpoint: fairseq.checkpoint.save_interval, or"
            " dataset.validate_interval, is larger than the number of epochs\n",
        )
        state.returncode = 1
    left = stopped or state.returncode == LEFT_EARLY
    state.status = "completed" if state.returncode == 0 else "cancelled" if left else "failed"
    state.pid = state.launcher = 0
    state.write(job.run_dir)


def _append(log: Path, text: str) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(text)
