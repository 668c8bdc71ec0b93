"""The checkpoints that jobs start from: whether they are there, or will be, and what to name instead."""

import os
import re
from collections.abc import Sequence

from omegaconf import DictConfig

from mmpt.launch.project import Job
from mmpt.utils.errors import DataError

__all__ = ["check_inputs", "never_written"]


def check_inputs(job: Job) -> None:
    """Refuse to start a job whose starting checkpoint is missing: fairseq would only log a line.

    Raises:
        DataError: naming the checkpoint, and the setting that names another.
    """
    if job.reads is not None and not job.reads.exists():
        raise DataError(
            f"{job.name}: the checkpoint it starts from does not exist: {job.reads}."
            f" Run the job that writes it, or {_way_out(job)}"
        )


def never_written(jobs: Sequence[Job], again: bool = False) -> list[str]:
    """Return a line for each job that starts from ``checkpointN.pt`` of a training of these that keeps no such file.

    A file that is there already will do, unless all is trained ``again``.
    """
    trainings = {os.path.normpath(job.run_dir): job for job in jobs if job.kind == "train"}
    found = []
    for job in jobs:
        if job.reads is None or (job.reads.exists() and not again):
            continue
        epoch = re.fullmatch(r"checkpoint(\d+)\.pt", job.reads.name)
        writer = trainings.get(os.path.normpath(job.reads.parent))
        if epoch is None or writer is None or writer is job:
            continue
        reason = _why_not_kept(writer, int(epoch.group(1)))
        if reason:
            found.append(
                f"{job.name} starts from {job.reads}, which {writer.name} never leaves: {reason}."
                f" To go on, {_way_out(job)}"
            )
    return found


def _why_not_kept(training: Job, epoch: int) -> str:
    """Say which setting of a training keeps it from leaving the checkpoint of an epoch; "" if none does."""
    settings = _fairseq_leaves(training.config)
    last, kept, interval = (_count(settings.get(key)) for key in ("max_epoch", "keep_last_epochs", "save_interval"))
    if settings.get("no_epoch_checkpoints"):
        return "its settings say no_epoch_checkpoints"
    if last and last < epoch:
        return f"its max_epoch is {last}"
    if interval and epoch % interval:
        return f"its save_interval is {interval}"
    if kept and last and epoch <= last - kept:
        return f"its max_epoch is {last}, of which keep_last_epochs keeps the last {kept}"
    return ""


def _count(value: object) -> int:
    """Return a positive whole number, else 0: no limit (fairseq itself refuses what is no number)."""
    return max(int(value), 0) if isinstance(value, int | float) else 0


def _fairseq_leaves(config: DictConfig) -> dict[str, object]:
    groups = (config.get("fairseq") or {}).values()
    return {str(key): value for group in groups if isinstance(group, DictConfig) for key, value in group.items()}


def _way_out(job: Job) -> str:
    if job.kind != "train":
        return "name another in fairseq.common_eval.path"
    assert job.reads is not None
    group = f"task_group.{job.group}." if job.group else ""
    other = job.reads.with_name("checkpoint_best.pt")
    if other == job.reads:
        other = job.reads.with_name("checkpoint_last.pt")
    return f"name another that is there: -o {group}fairseq.checkpoint.restore_file={other}"
