"""The average of several checkpoints' weights."""

import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmpt.utils.errors import CheckpointError
from mmpt.utils.weight_files import load_state_dict_file

__all__ = ["average_checkpoints", "best_checkpoints", "last_checkpoints"]

_EPOCH = re.compile(r"checkpoint(\d+)\.pt")
_UPDATE = re.compile(r"checkpoint_(\d+)_(\d+)\.pt")
_BEST = re.compile(r"checkpoint\.best_(?P<metric>.+)_(?P<value>-?\d+\.\d{3})\d*\.pt")  # 3 digits of value, a random one


def average_checkpoints(paths: Sequence[str | os.PathLike[str]], weights: str = "model") -> dict[str, Tensor]:
    """Return the mean of several checkpoints' weights, summed in float64; the files are read one after another.

    Tensors that are not of floating-point type must be equal in all files. float64 stays, all else becomes float32.

    Args:
        weights: which of each file's, as in :func:`~mmpt.utils.weight_files.load_state_dict_file`.

    Raises:
        CheckpointError: if a file cannot be read, holds other names or shapes than the first, or a weight that is not
            finite; names the file and the tensor.
    """
    if not paths:
        raise CheckpointError("there is no checkpoint to average")
    first = load_state_dict_file(paths[0], weights)
    sums = {key: value.double() if value.is_floating_point() else value for key, value in first.items()}
    _check_finite(first, paths[0])
    for path in paths[1:]:
        state = load_state_dict_file(path, weights)
        _check_equal(first, state, paths[0], path)
        _check_finite(state, path)
        for key, value in state.items():
            if value.is_floating_point():
                sums[key] += value
    return {
        key: (total / len(paths)).to(first[key].dtype) if total.is_floating_point() else total
        for key, total in sums.items()
    }


def last_checkpoints(folder: str | os.PathLike[str], count: int) -> list[Path]:
    """Return the last ``count`` of a run folder's numbered checkpoints, the earliest first.

    These are ``checkpoint<epoch>.pt``, written at the end of an epoch, and ``checkpoint_<epoch>_<update>.pt``.

    Raises:
        CheckpointError: if there are fewer; says which.
    """
    found: list[tuple[float, float, Path]] = []
    for file in Path(folder).glob("checkpoint*.pt"):
        if match := _EPOCH.fullmatch(file.name):
            found.append((int(match[1]), math.inf, file))
        elif match := _UPDATE.fullmatch(file.name):
            found.append((int(match[1]), int(match[2]), file))
    return _first(folder, [file for *_, file in sorted(found, reverse=True)], count, "numbered checkpoints")[::-1]


def best_checkpoints(folder: str | os.PathLike[str], count: int, maximize: bool = False) -> list[Path]:
    """Return the best ``count`` of a run folder's ``checkpoint.best_<metric>_<value>.pt``, the best first.

    A training writes them with ``fairseq.checkpoint.keep_best_checkpoints``.

    Args:
        maximize: whether a greater value is better.

    Raises:
        CheckpointError: if there are fewer, or they were judged by several metrics; says which.
    """
    matches = {file: match for file in Path(folder).glob("*.pt") if (match := _BEST.fullmatch(file.name))}
    metrics = sorted({match["metric"] for match in matches.values()})
    if len(metrics) > 1:
        raise CheckpointError(f"{folder}: its checkpoints were judged by {' and '.join(metrics)}; name them one by one")
    ordered = sorted(matches, key=lambda file: (float(matches[file]["value"]) * (-1 if maximize else 1), file.name))
    return _first(folder, ordered, count, "checkpoints checkpoint.best_<metric>_<value>.pt")


def _first(folder: str | os.PathLike[str], files: list[Path], count: int, what: str) -> list[Path]:
    if count < 1 or len(files) < count:
        names = ", ".join(sorted(file.name for file in files)) or "none"
        raise CheckpointError(f"{folder}: {count} {what} are asked for, {len(files)} are there ({names})")
    return files[:count]


def _check_equal(
    first: dict[str, Tensor], state: dict[str, Tensor], source: str | os.PathLike[str], path: str | os.PathLike[str]
) -> None:
    differing = sorted(first.keys() ^ state.keys())
    if differing:
        holder = path if differing[0] in state else source
        raise CheckpointError(
            f"{path}: its weights are not named as those of {source}: {len(differing)} differ, such as "
            f"{differing[0]}, which only {holder} has"
        )
    for key, value in state.items():
        if value.shape != first[key].shape or value.dtype != first[key].dtype:
            raise CheckpointError(
                f"{path}: {key} is {tuple(value.shape)} of {value.dtype}, in {source} {tuple(first[key].shape)} of "
                f"{first[key].dtype}"
            )
        if not value.is_floating_point() and not torch.equal(value, first[key]):
            raise CheckpointError(f"{path}: {key} ({value.dtype}) has no average, and differs from that of {source}")


def _check_finite(state: dict[str, Tensor], path: str | os.PathLike[str]) -> None:
    wrong = _not_finite(state.items())
    if wrong:
        raise CheckpointError(f"{path}: {wrong} has values that are not finite; leave this checkpoint out")


def _not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str:
    found = (key for key, value in tensors if value.is_floating_point() and not bool(value.isfinite().all()))
    return next(found, "")
