"""The checkpoint files of a training folder: which are whole, the last good one, weights beside them.

PyTorch writes CRC-32 sums into its files and does not look at them when it reads: a flipped bit becomes a wrong
weight. They are compared here, at about 2 GB/s, before a training resumes.
"""

import logging
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmpt.utils.checkpoint import FAIRSEQ_PREFIX, read_training_checkpoint, save_safetensors
from mmpt.utils.errors import CheckpointError
from mmpt.utils.files import atomic_copy

__all__ = ["damage_of", "export_weights", "keep_weights_beside", "remove_leftovers", "repair_last"]

logger = logging.getLogger(__name__)

_ASIDE = ".damaged"


def damage_of(path: str | os.PathLike[str]) -> str | None:
    """Return what is wrong with a checkpoint file, or None if every byte of it is as it was written."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                wrong = archive.testzip()
            if wrong is not None:
                return f"the checksum of {wrong} is wrong"
        read_training_checkpoint(path)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, OSError) as error:
        return str(error) or type(error).__name__
    return None


def repair_last(folder: Path, name: str) -> Path | None:
    """See that the checkpoint which a training resumes from is whole; put the newest whole one in its place if not.

    A damaged file is moved aside, not deleted, and said so in a warning.

    Args:
        folder: the training's ``--save-dir``.
        name: of the file, ``checkpoint_last.pt``.

    Returns:
        The file, or None if the folder has no checkpoints: the training begins.

    Raises:
        CheckpointError: if there are checkpoints but none is whole; nothing is moved then.
    """
    last = folder / name
    damaged: dict[Path, str] = {}
    if last.exists():
        problem = damage_of(last)
        if problem is None:
            return last
        damaged[last] = problem
    good = None
    for candidate in _newest_first(folder, last):
        problem = damage_of(candidate)
        if problem is None:
            good = candidate
            break
        damaged[candidate] = problem
    listed = "; ".join(f"{path}: {problem}" for path, problem in damaged.items())
    if good is None and damaged:
        raise CheckpointError(
            f"no checkpoint in {folder} is whole ({listed}). Restore one from a copy, or move these files away to "
            "train from the beginning"
        )
    if good is None:
        return None
    for path in damaged:
        os.replace(path, path.with_name(path.name + _ASIDE))
    missing = [] if last in damaged else [f"{last} is missing"]
    moved = [f"{listed}. Moved aside as *{_ASIDE}"] if damaged else []
    logger.warning("%s; resuming from %s", "; ".join(missing + moved), good)
    atomic_copy(good, last)
    return last


def _newest_first(folder: Path, last: Path) -> list[Path]:
    """Return the other checkpoints of a folder, those of most updates first; damaged ones last."""
    updates = {path: _updates(path) for path in folder.glob("checkpoint*.pt") if path != last}
    return sorted(updates, key=lambda path: (updates[path], path.stat().st_mtime_ns), reverse=True)


def _updates(path: Path) -> int:
    try:
        return int(read_training_checkpoint(path)["optimizer_history"][-1]["num_updates"])
    except (CheckpointError, LookupError, TypeError, ValueError):
        return -1


def remove_leftovers(folder: Path) -> None:
    """Delete the half-written files that killed trainings have left: each is as large as a checkpoint."""
    for path in (*folder.glob(".checkpoint*.tmp"), *folder.glob("checkpoint*.pt.tmp")):
        logger.info("%s: left by a killed training, deleted", path)
        path.unlink(missing_ok=True)


def keep_weights_beside(folder: Path, metadata: Mapping[str, str]) -> None:
    """Bring the ``.safetensors`` files of a folder in step with its checkpoints: one beside each, none alone.

    A file is written if it is missing or not younger than its checkpoint.
    """
    checkpoints = {path.with_suffix(".safetensors"): path for path in folder.glob("checkpoint*.pt")}
    for weights, checkpoint in checkpoints.items():
        if not _younger(weights, checkpoint):
            export_weights(checkpoint, weights, metadata)
    for orphan in folder.glob("checkpoint*.safetensors"):
        if orphan not in checkpoints:
            orphan.unlink(missing_ok=True)


def export_weights(checkpoint: Path, target: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the weights of fairseq's checkpoint as a .safetensors file, under the model's own names.

    ``updates`` and ``epoch`` are added to the metadata.

    Raises:
        CheckpointError: if the checkpoint is damaged or holds no weights; names it.
    """
    content = read_training_checkpoint(checkpoint)
    found = {"format": "pt", **(metadata or {}), **dict(_progress(content))}
    weights = {
        str(key).removeprefix(FAIRSEQ_PREFIX): value
        for key, value in content["model"].items()
        if isinstance(value, Tensor)
    }
    save_safetensors(target, weights, found)


def _progress(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    history, extra = content.get("optimizer_history") or [{}], content.get("extra_state") or {}
    if "num_updates" in history[-1]:
        yield "updates", str(history[-1]["num_updates"])
    if "train_iterator" in extra:
        position = extra["train_iterator"]
        finished = not position.get("iterations_in_epoch")  # fairseq then names the epoch to come
        yield "epoch", str(position["epoch"] - finished)


def _younger(weights: Path, checkpoint: Path) -> bool:
    try:
        return weights.stat().st_mtime_ns > checkpoint.stat().st_mtime_ns
    except FileNotFoundError:
        return False
