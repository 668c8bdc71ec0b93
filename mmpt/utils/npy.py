"""Reading ``.npy`` files without pickle, and knowing when a mapped file has been cut under its reader."""

import math
import mmap
import os
import tokenize
from typing import Any

import numpy as np

from mmpt.utils.errors import DataError

__all__ = ["CutFileError", "cut_file", "mapping_of", "read_npy"]

_MOST_BYTES, _MOST_AXES = 1 << 62, 32
# Also what literals raise that are nested too deeply.
_HEADER_ERRORS: tuple[type[Exception], ...] = (
    *(ValueError, TypeError, SyntaxError, KeyError, EOFError, OverflowError, tokenize.TokenError),
    *(AttributeError, IndexError, MemoryError, RecursionError),
)


class CutFileError(DataError):
    """Report a file that became shorter while it was mapped: reading its end would kill the process (SIGBUS)."""


def read_npy(path: str | os.PathLike[str], mmap_mode: str | None = "r", exact: bool = False) -> np.ndarray:
    """Read or map an ``.npy`` file; pickled objects are refused and empty arrays are fine.

    Args:
        mmap_mode: ``"r"`` read-only, ``"c"`` copy-on-write, None reads into memory.
        exact: also refuse bytes after the array.

    Raises:
        DataError: if the file is missing, cut short or not an ``.npy`` file of plain numbers.
    """
    if mmap_mode not in ("r", "c", None):
        raise ValueError(f"mmap_mode must be 'r', 'c' or None, not {mmap_mode!r}")
    try:
        with open(path, "rb") as file:
            shape, order, dtype = _read_header(file)
            offset, size = file.tell(), os.fstat(file.fileno()).st_size
            nbytes = math.prod(shape) * dtype.itemsize
            if size < offset + nbytes or (exact and size > offset + nbytes):
                raise DataError(
                    f"{path}: {size} bytes where its header promises {offset + nbytes}: the file was cut or"
                    " changed. Restore it from a copy or write it again."
                )
            if nbytes == 0:
                return np.empty(shape, dtype, order=order)
            if mmap_mode is None:
                return np.fromfile(file, dtype, math.prod(shape)).reshape(shape, order=order)
            mapped = np.memmap(
                file, dtype, mode="c" if mmap_mode == "c" else "r", offset=offset, shape=shape, order=order
            )
            return np.asarray(mapped)  # slicing np.memmap itself costs several times more
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except DataError:
        raise
    except (OSError, ValueError) as error:  # also a file that is cut between the check of its size and the mapping
        raise DataError(f"{path}: cannot be read ({error})") from error


def _read_header(file: Any) -> tuple[tuple[int, ...], Any, np.dtype]:
    try:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = readers[version](file)
    except _HEADER_ERRORS as error:
        raise DataError(f"{file.name}: not an .npy file of numbers ({error})") from error
    plain = not (dtype.hasobject or dtype.names or dtype.subdtype) and dtype.itemsize > 0
    plain = plain and len(shape) <= _MOST_AXES and not any(isinstance(length, bool) for length in shape)
    # A length of 0 makes an array of no bytes, whatever the other lengths are.
    if not plain or min(shape, default=0) < 0 or math.prod(filter(None, shape)) * dtype.itemsize > _MOST_BYTES:
        raise DataError(f"{file.name}: holds {dtype} of shape {shape}, not a plain array of numbers")
    return shape, "F" if fortran else "C", dtype


def mapping_of(array: np.ndarray) -> tuple[mmap.mmap, int] | None:
    """Return the mapping behind an array, and the size that its file had when it was mapped; None if in memory."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return (base, base.size()) if isinstance(base, mmap.mmap) else None


def cut_file(path: str | os.PathLike[str], mapping: tuple[mmap.mmap, int]) -> CutFileError:
    """Return the error for a mapping whose file has become shorter."""
    mapped, size = mapping
    return CutFileError(
        f"{path}: was cut from {size} to {mapped.size()} bytes while it was in use. Restore it from a copy under"
        " another name and rename that, which does not disturb its readers; then start the program again."
    )
