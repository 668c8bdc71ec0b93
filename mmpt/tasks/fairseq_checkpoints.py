"""fairseq's checkpoints made safe against a kill, a power cut and a full disk at any moment.

What fairseq does by itself: it writes a checkpoint without asking the disk to keep it, copies it to its other names
(``checkpoint_last.pt``, ``checkpoint_best.pt``) in place, writes again behind what a failed attempt has left, and
starts from the beginning when ``checkpoint_last.pt`` is missing.
"""

import copy
import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager

from mmpt import __version__
from mmpt.utils.checkpoint_files import (
    export_beside,
    list_checkpoints,
    remove_leftovers,
    remove_weights_of,
    repair_last,
    without_weights,
)
from mmpt.utils.config import fingerprint
from mmpt.utils.distributed import all_gather_objects, synchronize
from mmpt.utils.errors import CheckpointError, DataError, StorageError
from mmpt.utils.files import atomic_copy, atomic_open, lock_file, sync_folder, writing
from mmpt.utils.options import read_options
from mmpt.utils.weight_files import (
    FAIRSEQ_PREFIX,
    LAST_CHECKPOINT,
    allow_fairseq_checkpoints,
    checkpoint_file,
    load_state_dict_file,
    read_training_checkpoint,
)

__all__ = ["CheckpointOptions", "copy_atomically", "make_checkpoints_safe", "save_atomically", "save_last"]

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
        StorageError: if the disk is full or refuses; names the file.
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
        StorageError: if the disk is full or refuses; names the file.
    """
    if os.path.exists(dst_path) and not overwrite:
        raise FileExistsError(dst_path)
    with _named(dst_path):
        atomic_copy(src_path, dst_path)
    return True


@contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say which checkpoint could not be written and why, and that the earlier ones are as they were."""
    try:
        with writing(path):
            try:
                yield
            except RuntimeError as error:  # torch reports a failed write so
                reason = error.__cause__ or error.__context__
                if isinstance(reason, OSError):
                    raise reason from error
                raise
    except (OSError, StorageError) as error:
        said = f"{path}: cannot be written ({error.strerror or error})" if isinstance(error, OSError) else str(error)
        raise StorageError(f"{said}. The checkpoints before it are as they were: a new start resumes") from error


def _save(theirs: Callable[..., Any], cfg: Any, trainer: Any, epoch_itr: Any, val_loss: Any) -> Any:
    """Run fairseq's ``save_checkpoint``, and bring the weights beside the checkpoints in step with what it did."""
    check = getattr(trainer.task, "check_weights", None)
    if check is not None and not cfg.no_save:
        check(trainer)
    writes = trainer.should_save_checkpoint_on_current_rank and not cfg.no_save
    before = list_checkpoints(Path(cfg.save_dir)) if writes else {}
    saved = theirs(cfg, trainer, epoch_itr, val_loss)
    if not cfg.no_save and not cfg.no_last_checkpoints and (saved is not None or not writes):
        trainer.update_of_last = trainer.get_num_updates()
    if writes:
        after = list_checkpoints(Path(cfg.save_dir))
        remove_weights_of(before.keys() - after.keys())
        _export([path for path, state in after.items() if before.get(path) != state], trainer)
    return saved


def save_last(cfg: Any, trainer: Any, epoch_itr: Any) -> bool:
    """Write ``checkpoint_last.pt`` alone, whatever is configured otherwise, unless it is of this update already.

    The weights beside it are left to the next start: there may be little time. All processes call this together.

    Args:
        cfg: fairseq's options of checkpoints.

    Returns:
        Whether the training can go on from this update: not with ``no_save``.

    Raises:
        StorageError: if the disk is full or refuses; names the file.
        NonFiniteError: if a weight is not finite.
    """
    if getattr(trainer, "update_of_last", None) != trainer.get_num_updates():
        alone = copy.deepcopy(cfg)
        alone.no_last_checkpoints, alone.no_epoch_checkpoints, alone.save_interval_updates = False, True, 0
        alone.keep_interval_updates = alone.keep_last_epochs = alone.keep_best_checkpoints = -1
        trainer.exports_later = True
        try:
            checkpoint_utils.save_checkpoint(alone, trainer, epoch_itr, None)
        finally:
            trainer.exports_later = False
    return getattr(trainer, "update_of_last", None) == trainer.get_num_updates()


def _read(theirs: Callable[..., Any], path: str, *passed: Any, **options: Any) -> dict[str, Any]:
    """Run fairseq's ``load_checkpoint_to_cpu``; of a file of weights alone make the checkpoint of a training not begun.

    Such are .safetensors files, and the .pt files that VIOLET and LAVENDER have published.
    """
    if str(path).endswith(".safetensors") or not _is_training(path):
        weights = {FAIRSEQ_PREFIX + key: value for key, value in load_state_dict_file(path).items()}
        beginning = {"train_iterator": {"version": 2, "epoch": 1, "iterations_in_epoch": 0}}
        state = {"model": weights, "optimizer_history": [], "extra_state": beginning}
    else:
        state = theirs(path, *passed, **options)
    state.setdefault("criterion", {})  # fairseq asks for it where the loss has parameters
    return state


def _is_training(path: str) -> bool:
    """Tell whether a file holds a whole training; what cannot be read is left to its reader, who says why."""
    try:
        read_training_checkpoint(path)
    except CheckpointError:
        return False
    return True


def _load(theirs: Callable[..., Any], cfg: Any, trainer: Any, **passed: Any) -> Any:
    """Run fairseq's ``load_checkpoint`` on a save_dir that is this training's own, and its last checkpoint whole."""
    attach = getattr(trainer.task, "attach", None)
    if attach is not None:
        attach(trainer)
    folder, problem = Path(cfg.save_dir), None
    cfg.restore_file = str(checkpoint_file(cfg.restore_file))  # fairseq looks whether there is a file of that name
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
        _export(without_weights(folder), trainer)
    synchronize()
    return loaded


def _prepare(folder: Path, restore_file: str, trainer: Any) -> None:
    if not folder.is_dir():
        return
    _lock(folder)
    save_settings = getattr(trainer.task, "save_settings", None)
    if save_settings is not None:
        save_settings()
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


def _export(checkpoints: Iterable[Path], trainer: Any) -> None:
    """Write the weights beside these checkpoints and those that failed before, unless the config says not to."""
    config, model = trainer.task.config, trainer.task.mmtask.model
    if not read_options(config, CheckpointOptions).save_safetensors or trainer.checkpoint_suffix:
        return
    metadata = {"model": type(model).__name__, "config_sha256": fingerprint(config), "mmpt": __version__}
    due = sorted({*checkpoints, *(path for path in getattr(trainer, "to_export", ()) if path.exists())})
    trainer.to_export = due if getattr(trainer, "exports_later", False) else export_beside(due, metadata)
