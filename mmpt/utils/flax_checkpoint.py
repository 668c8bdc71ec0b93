"""Flax's checkpoint files, read without JAX or Flax: a msgpack of nested maps whose leaves are arrays.

Nothing in a file is executed: msgpack knows numbers, strings, bytes, lists and maps, and of its extension types only
Flax's arrays are read here.
"""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpt.utils.errors import CheckpointError, shown

__all__ = ["is_flax_checkpoint", "read_flax_checkpoint"]

#: Flax's codes of msgpack's extension types: an array, and a scalar of numpy, which is stored alike.
_ARRAY, _SCALAR = 1, 3
#: Types that weights may have, by the names that files give them.
_TYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "bool": torch.bool,
}
_PARAMETERS = "params"
#: What a training saves beside its weights.
_LEFT_ASIDE = frozenset({"step", "opt_state"})
#: Mark of an array that was cut because msgpack takes no more than 4 GiB at once.
_CHUNKED = "__msgpack_chunked_array__"
_DEEPEST = 64


def is_flax_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Tell by its first bytes whether a file is a msgpack map with strings for keys; False if it cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(6)
    except OSError:
        return False
    if not head:
        return False
    if 0x81 <= head[0] <= 0x8F:
        key = head[1:2]
    else:
        key = {0xDE: head[3:4], 0xDF: head[5:6]}.get(head[0], b"")
    return bool(key) and (0xA0 <= key[0] <= 0xBF or key[0] == 0xD9)


def read_flax_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the parameters of a Flax checkpoint onto the CPU, in the types that they are stored in.

    ``step`` and ``opt_state`` of a training are skipped, and of ``{"params": ..}`` the level is taken off. Names are
    the keys joined by ``/``.

    Raises:
        CheckpointError: if the file is missing, damaged or truncated, or holds anything but arrays; names the file.
    """
    import msgpack

    file = Path(path)
    try:
        content = _read(file)
        if isinstance(content.get(_PARAMETERS), Mapping):
            content = content[_PARAMETERS]
        state = dict(_leaves(content, ()))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (msgpack.exceptions.UnpackException, ValueError, TypeError, RecursionError, MemoryError) as error:
        # For cut files msgpack says that it is out of data; for overwritten bytes anything may come.
        reason = str(error) or type(error).__name__
        raise CheckpointError(f"{path}: damaged or truncated Flax checkpoint ({reason}). Fetch it again.") from error
    if not state:
        raise CheckpointError(f"{path}: a Flax checkpoint without parameters")
    return state


def _read(path: Path) -> dict[str, Any]:
    """Return the file's top-level entries but for those that are left aside, which are never in memory."""
    import msgpack

    content = {}
    with path.open("rb") as file:
        unpacker = msgpack.Unpacker(
            file, raw=False, strict_map_key=True, ext_hook=_extension, max_buffer_size=min(2**31 - 1, _room(path))
        )
        for _ in range(unpacker.read_map_header()):
            key = unpacker.unpack()
            if key in _LEFT_ASIDE:
                unpacker.skip()
            else:
                content[key] = unpacker.unpack()
        if unpacker.tell() != path.stat().st_size:
            raise CheckpointError("there are bytes behind the end of the Flax checkpoint; it was not written as one")
    return content


def _room(path: Path) -> int:
    """Return a limit of all lengths in a file, its own: a forged length cannot ask for more memory than that."""
    return max(path.stat().st_size, 1024)


def _extension(code: int, data: bytes) -> Tensor:
    """Return an array of the file."""
    if code not in (_ARRAY, _SCALAR):
        raise CheckpointError(f"holds msgpack's extension type {code}, which is no array of Flax")
    import msgpack

    fields = msgpack.unpackb(data, raw=True)
    if not isinstance(fields, list | tuple) or len(fields) != 3:
        raise CheckpointError("holds an array without shape, type and values")
    shape, name, values = fields
    kind = _TYPES.get(name.decode("ascii", "replace") if isinstance(name, bytes) else str(name))
    if kind is None:
        raise CheckpointError(f"holds an array of type {shown(name)}")
    if not isinstance(values, bytes):
        raise CheckpointError("holds an array without values")
    return _tensor(_sizes(shape), kind, values)


def _tensor(shape: tuple[int, ...], kind: torch.dtype, values: bytes) -> Tensor:
    wanted = math.prod(shape) * kind.itemsize
    if wanted != len(values):
        raise CheckpointError(f"an array of shape {shown(shape)} has {len(values)} bytes, not {shown(wanted)}")
    if not values:
        return torch.empty(shape, dtype=kind)
    # A copy: the bytes belong to msgpack. Flax writes little-endian numbers, as all machines that torch runs on have.
    return torch.from_numpy(np.frombuffer(values, dtype=np.uint8).copy()).view(kind).view(shape)


def _sizes(shape: Any) -> tuple[int, ...]:
    """Return a shape, which is a list or a map of "0", "1", .. to sizes."""
    if isinstance(shape, Mapping):
        shape = [shape.get(str(number)) for number in range(len(shape))]
    if not isinstance(shape, list | tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise CheckpointError(f"holds an array of shape {shown(shape)}")
    return tuple(shape)


def _leaves(content: Any, names: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    """Yield the arrays of nested maps with their names."""
    if isinstance(content, Tensor):
        yield "/".join(names), content
        return
    where = "/".join(names) or "its top"
    if not isinstance(content, Mapping) or len(names) > _DEEPEST:
        raise CheckpointError(f"holds {type(content).__name__} at {where}, where an array or a map should be")
    if _CHUNKED in content:
        yield "/".join(names), _joined(content)
        return
    for key, value in content.items():
        if value is not None:
            yield from _leaves(value, (*names, str(key)))


def _joined(content: Mapping[str, Any]) -> Tensor:
    """Return an array that was stored in chunks."""
    chunks, shape = content.get("chunks"), _sizes(content.get("shape"))
    if isinstance(chunks, Mapping):
        chunks = [chunks.get(str(number)) for number in range(len(chunks))]
    if not isinstance(chunks, list | tuple) or not chunks or not all(isinstance(chunk, Tensor) for chunk in chunks):
        raise CheckpointError("holds an array in chunks of which some are missing")
    whole = torch.cat([chunk.flatten() for chunk in chunks])
    if whole.numel() != math.prod(shape):
        raise CheckpointError(f"the chunks of an array of shape {shown(shape)} have {whole.numel()} values")
    return whole.view(shape)
