"""Weights out of a pickled PyTorch module, without running its code.

``torch.save(module)`` writes a pickle that names the classes of the module. Here PyTorch's own restricted reader
(``weights_only``) gets an empty class in the place of each name that is expected; any other name is refused. From the
records that result, tensors are collected by their place in the module, as in its state dict.
"""

import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpt.utils.errors import CheckpointError
from mmpt.utils.files import resolve_path
from mmpt.utils.weight_files import read_torch, unwrap

__all__ = ["load_pickled_module"]

# The containers and layers without parameters that modules are built of.
_TORCH_CLASSES = (
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.container.ModuleList",
    "torch.nn.modules.container.ModuleDict",
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.linear.Identity",
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.conv.Conv2d",
    "torch.nn.modules.pooling.MaxPool2d",
)
# A forged record may hold itself.
_DEEPEST = 64


def load_pickled_module(path: str | os.PathLike[str], classes: Iterable[str]) -> dict[str, Tensor]:
    """Return the parameters and buffers of a pickled module by name, or a plain state dict from such a file.

    Args:
        path: what ``torch.save`` wrote.
        classes: full names of the classes of which the module is made (``package.module.Class``), beside PyTorch's
            containers.

    Raises:
        CheckpointError: if the file is missing, damaged or asks for anything else; names it.
    """
    file = resolve_path(path)
    if not file.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    stand_ins = {name: type(name.rpartition(".")[2], (_Record,), {}) for name in (*_TORCH_CLASSES, *classes)}
    # PyTorch's reader then makes objects of these classes and gives them their attributes, and nothing else.
    with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in stand_ins.items()]):
        content = _read(file)
    if isinstance(content, _Record):
        found: dict[str, Tensor] = {}
        _collect(content, "", found, str(path))
        content = found
    return unwrap(content, source=str(path))


def _read(file: Path) -> Any:
    try:
        return read_torch(file)
    except CheckpointError as error:
        if zipfile.is_zipfile(file):
            raise
        # Such a file stores the source text of its classes beside them, which PyTorch's restricted reader refuses.
        raise CheckpointError(
            f"{error} A module that PyTorch before 1.6 has pickled cannot be read here: convert it where it is "
            "trusted, by torch.save(module.state_dict(), path)."
        ) from error


class _Record:
    """What a pickle says about an object: its attributes, and none of its behaviour."""


def _collect(record: _Record, prefix: str, found: dict[str, Tensor], source: str) -> None:
    if prefix.count(".") > _DEEPEST:
        raise CheckpointError(f"{source}: modules are nested more than {_DEEPEST} deep. Copy the file again.")
    for kind in ("_parameters", "_buffers"):
        for name, value in _entries(record, kind):
            if isinstance(value, Tensor):
                found[f"{prefix}{name}"] = value
    for name, value in _entries(record, "_modules"):
        if isinstance(value, _Record):
            _collect(value, f"{prefix}{name}.", found, source)


def _entries(record: _Record, kind: str) -> list[tuple[Any, Any]]:
    entries = record.__dict__.get(kind)
    return list(entries.items()) if isinstance(entries, Mapping) else []
