"""fairseq's checkpoints made safe against a kill, a power cut and a full disk at any moment.

What fairseq does by itself: it writes a checkpoint without asking the disk to keep it, copies it to its other names
(``checkpoint_last.pt``, ``checkpoint_best.pt``) in place, writes again behind what a failed attempt has left, and
starts from the beginning when ``checkpoint_last.pt`` is missing.
"""

import functools
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager

from mmpt import __version__
from mmpt.utils.checkpoint import (
    FAIRSEQ_PREFIX,
    LAST_CHECKPOINT,
    allow_fairseq_checkpoints,
    load_state_dict_file,
)
from mmpt.utils.checkpoint_files import keep_weights_beside, remove_leftovers, repair_last
from mmpt.utils.config import fingerprint
from mmpt.utils.distributed import all_gather_objects, synchronize
from mmpt.utils.errors import CheckpointError, DataError, StorageError
from mmpt.utils.files import atomic_copy, atomic_open, lock_file, sync_folder
from mmpt.utils.options import read_options

__all__ = ["CheckpointOptions", "copy_atomically", "make_checkpoints_safe", "save_atomically"]

logger = logging.getLogger(__name__)

_LOCK = ".training.lock"
#: Folder -> handle of its lock, held until this process ends.
_locks: dict[str, int] = {}


@dataclass
class CheckpointOptions:
    """Top-level keys of a training: whether the weights are written as .safetensors beside each checkpoint."""

    save_safetensors: bool = True


def make_checkpoints_safe() -> None:
    """Let fairseq read its own checkpoints under ``weights_only``, write them safely and resume from a whole one."""
    allow_fairseq_checkpoints()
    PathManager.copy = staticmethod(copy_atomically)
    checkpoint_utils.torch_persistent_save = save_atomically
    wrappers: dict[str, Callable[..., Any]] = {
        "load_checkpoint": _load,
        "save_checkpoint": _save,
        "load_checkpoint_to_cpu": _read,
    }
    for name, ours in wrappers.items():
        theirs = getattr(checkpoint_utils, name)
        if not hasattr(theirs, "__wrapped__"):
            setattr(checkpoint_utils, name, functools.wraps(theirs)(functools.partial(ours, theirs)))


def save_atomically(obj: Any, filename: str, async_write: bool = False) -> None:
    """Write a checkpoint so that it is whole, on the disk, and under its name, or not there at all.

    Takes what fairseq's ``torch_persistent_save`` does.

    Raises:
        CheckpointError: if the disk is full or refuses; names the file.
    """
    with _named(filename):
        with atomic_open(filename, "wb") as file:
            torch.save(obj, file)
        sync_folder(Path(filename).parent)


def copy_atomically(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
    """Copy a file so that ``dst_path`` is at every moment the old file or the whole new one.

    Takes and returns what fairseq's ``PathManager.copy`` does.

    Raises:
        FileExistsError: if ``dst_path`` exists and ``overwrite`` is not set.
        CheckpointError: if the disk is full or refuses; names the file.
    """
    if os.path.exists(dst_path) and not overwrite:
        raise FileExistsError(dst_path)
    with _named(dst_path):
        atomic_copy(src_path, dst_path)
    return True


@contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say which checkpoint could not be written, and that the earlier ones are as they were."""
    try:
        yield
    except (OSError, StorageError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        reason = error if isinstance(error, OSError) else error.__cause__ or error.__context__
        if not isinstance(reason, OSError):
            raise
        raise CheckpointError(
            f"{path}: cannot be written ({reason.strerror or reason}). The checkpoints before it are as they were: "
            "make room (keep_interval_updates, keep_last_epochs keep fewer), and start the training again to resume"
        ) from error


def _save(theirs: Callable[..., Any], cfg: Any, trainer: Any, epoch_itr: Any, val_loss: Any) -> Any:
    """Run fairseq's ``save_checkpoint``, and write the weights as .safetensors beside each checkpoint."""
    check = getattr(trainer.task, "check_weights", None)
    if check is not None and not cfg.no_save:
        check(trainer)
    saved = theirs(cfg, trainer, epoch_itr, val_loss)
    if saved is not None:
        _export(Path(cfg.save_dir), trainer)
    return saved


def _read(theirs: Callable[..., Any], path: str, *passed: Any, **options: Any) -> dict[str, Any]:
    """Run fairseq's ``load_checkpoint_to_cpu``; of a .safetensors file make the checkpoint of a training not begun."""
    if not str(path).endswith(".safetensors"):
        return theirs(path, *passed, **options)
    weights = {FAIRSEQ_PREFIX + key: value for key, value in load_state_dict_file(path).items()}
    beginning = {"train_iterator": {"version": 2, "epoch": 1, "iterations_in_epoch": 0}}
    return {"model": weights, "optimizer_history": [], "extra_state": beginning}


def _load(theirs: Callable[..., Any], cfg: Any, trainer: Any, **passed: Any) -> Any:
    """Run fairseq's ``load_checkpoint`` on a save_dir that is this training's own, and its last checkpoint whole."""
    attach = getattr(trainer.task, "attach", None)
    if attach is not None:
        attach(trainer)
    folder, problem = Path(cfg.save_dir), None
    if trainer.is_data_parallel_master:
        try:
            _prepare(folder, cfg.restore_file, trainer)
        except (CheckpointError, StorageError, OSError) as error:
            problem = str(error)
    problem = all_gather_objects(problem)[0]  # all processes end, none waits for the one that knows
    if problem is not None:
        raise CheckpointError(problem)
    # fairseq would send what rank 0 has read, and refuse to receive it: there is a DictConfig in it.
    trainer.cfg.checkpoint.load_checkpoint_on_all_dp_ranks = True
    loaded = theirs(cfg, trainer, **passed)
    updates = all_gather_objects(trainer.get_num_updates())
    if len(set(updates)) > 1:
        raise CheckpointError(
            f"{folder}: the processes have not loaded the same checkpoint (updates by rank: {updates}). All nodes must "
            "see one fairseq.checkpoint.save_dir"
        )
    if trainer.is_data_parallel_master and not cfg.no_save:
        _export(folder, trainer)
    synchronize()
    return loaded


def _prepare(folder: Path, restore_file: str, trainer: Any) -> None:
    if not folder.is_dir():
        return
    _lock(folder)
    remove_leftovers(folder)
    if restore_file == LAST_CHECKPOINT and not trainer.checkpoint_suffix:
        repair_last(folder, LAST_CHECKPOINT)


def _lock(folder: Path) -> None:
    """Hold the folder for this process, so that no second training writes there.

    A lock of the process, not of the open file: data workers that outlive a killed training do not inherit it.
    """
    key = os.path.realpath(folder)
    if key in _locks:
        return
    message = (
        f"{folder}: another training is writing there (it holds {_LOCK}). Wait for it or stop it, or name another "
        "fairseq.checkpoint.save_dir"
    )
    try:
        _locks[key] = lock_file(folder / _LOCK, message, of_process=True)
    except DataError as error:
        raise CheckpointError(str(error)) from error


def _export(folder: Path, trainer: Any) -> None:
    """Write the missing .safetensors files, unless the config says that there should be none."""
    config, model = trainer.task.config, trainer.task.mmtask.model
    if not read_options(config, CheckpointOptions).save_safetensors or trainer.checkpoint_suffix:
        return
    metadata = {"model": type(model).__name__, "config_sha256": fingerprint(config), "mmpt": __version__}
    with _named(folder / "*.safetensors"):
        keep_weights_beside(folder, metadata)
