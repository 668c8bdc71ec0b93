"""The checkpoint files of a training folder: which are whole, the last good one, weights beside them.

PyTorch writes CRC-32 sums into its files and does not look at them when it reads: a flipped bit becomes a wrong
weight. They are compared here, at about 2 GB/s, before a training resumes.
"""

import contextlib
import hashlib
import logging
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmpt.utils.errors import CheckpointError, DataError, MMPTError
from mmpt.utils.files import atomic_copy, file_sha256
from mmpt.utils.weight_files import FAIRSEQ_PREFIX, read_training_checkpoint, save_safetensors

__all__ = [
    "damage_of",
    "export_beside",
    "export_weights",
    "list_checkpoints",
    "remove_leftovers",
    "remove_weights_of",
    "repair_last",
    "without_weights",
]

logger = logging.getLogger(__name__)

_ASIDE = ".damaged"
_WEIGHTS = ".safetensors"
#: Key of the metadata by which a file of weights that was written beside a checkpoint is known from any other.
_ORIGIN = "checkpoint"


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
    """Return the other checkpoints that a training can go on from, those of most updates first; damaged ones last."""
    found = {path: _updates(path) for path in folder.glob("checkpoint*.pt") if path != last}
    updates = {path: number for path, number in found.items() if number is not None}
    return sorted(updates, key=lambda path: (updates[path], path.stat().st_mtime_ns), reverse=True)


def _updates(path: Path) -> int | None:
    """Return the updates behind a checkpoint: -1 if it is damaged, None if it is weights alone, such as an average."""
    try:
        content = read_training_checkpoint(path)
        if "last_optimizer_state" not in content or "provenance" in content:
            return None
        return int(content["optimizer_history"][-1]["num_updates"])
    except (CheckpointError, LookupError, TypeError, ValueError):
        return -1


def remove_leftovers(folder: Path) -> None:
    """Delete the half-written files that killed trainings have left: each is as large as a checkpoint."""
    for path in (*folder.glob(".checkpoint*.tmp"), *folder.glob("checkpoint*.pt.tmp")):
        logger.info("%s: left by a killed training, deleted", path)
        path.unlink(missing_ok=True)


def list_checkpoints(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return the ``checkpoint*.pt`` of a folder, each with what is another once it was written again."""
    found = {}
    for path in folder.glob("checkpoint*.pt"):
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            status = path.stat()
            found[path] = (status.st_ino, status.st_mtime_ns)
    return found


def remove_weights_of(checkpoints: Iterable[Path]) -> None:
    """Delete the weights that :func:`export_beside` has written beside checkpoints; a file that it did not stays."""
    for weights in (path.with_suffix(_WEIGHTS) for path in checkpoints):
        if _origin(weights):
            weights.unlink(missing_ok=True)


def without_weights(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder without a ``.safetensors`` beside them, or with that of an earlier content.

    A file that :func:`export_beside` did not write counts as there: it is somebody's.
    """
    missing = []
    for path in sorted(folder.glob("checkpoint*.pt")):
        origin = _origin(path.with_suffix(_WEIGHTS))
        with contextlib.suppress(MMPTError, OSError):  # export_beside says why it cannot be read
            if origin == "" or (origin and origin == _content_id(path)):
                continue
        missing.append(path)
    return missing


def export_beside(checkpoints: Iterable[Path], metadata: Mapping[str, str]) -> list[Path]:
    """Write the weights of each checkpoint as ``.safetensors`` beside it, of equal checkpoints once, then copied.

    What cannot be read or written is a warning: the checkpoint is what counts.

    Returns:
        The checkpoints whose weights could not be written, to be tried again.
    """
    written: dict[str, Path] = {}
    failed = []
    for checkpoint in checkpoints:
        target = checkpoint.with_suffix(_WEIGHTS)
        try:
            content = _content_id(checkpoint)
            if content in written:
                atomic_copy(written[content], target)
            else:
                export_weights(checkpoint, target, {**metadata, _ORIGIN: content})
            written[content] = target
        except (MMPTError, OSError, RuntimeError, MemoryError) as error:
            if not isinstance(error, CheckpointError | DataError):  # what is damaged stays so
                failed.append(checkpoint)
            logger.warning("%s: not written (%s). The training needs it not, and goes on", target, error)
    return failed


def _content_id(checkpoint: Path) -> str:
    """Return what tells the content of a checkpoint from any other: a hash of the checksums that PyTorch wrote."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            sums = [(part.filename, part.CRC, part.file_size) for part in archive.infolist()]
    except zipfile.BadZipFile:  # an old format, or damaged
        return file_sha256(checkpoint)
    return hashlib.sha256(repr(sums).encode()).hexdigest()


def _origin(weights: Path) -> str | None:
    """Return which checkpoint's content a weights file was written from; "" if not from one, None without a file."""
    from safetensors import SafetensorError, safe_open

    if not weights.exists():
        return None
    try:
        with safe_open(weights, framework="pt") as file:
            return (file.metadata() or {}).get(_ORIGIN, "")
    except (SafetensorError, OSError):
        return ""


def export_weights(checkpoint: Path, target: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the weights of fairseq's checkpoint as a .safetensors file, under the model's own names.

    ``updates`` and ``epoch`` are added to the metadata.

    Raises:
        CheckpointError: if the checkpoint is damaged or holds no weights; names it.
        StorageError: if the disk is full or refuses; names the target.
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
