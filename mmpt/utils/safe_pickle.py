"""Read pickles of plain data without executing what they contain.

A pickle is a program: it may name any importable callable and call it. Here only built-in
containers, strings, bytes, numbers and numpy arrays of them can be made. numpy's own
``__setstate__`` is not safe either (a forged dtype lets it follow forged pointers), so arrays
and dtypes are first collected as plain records and then built from checked parts.
"""

import math
import os
import pickle
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, Literal

import numpy as np

from mmpt.utils.errors import DataError

__all__ = ["load"]

_KINDS = "biufcSUO"
_FORGED = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    MemoryError,
    RecursionError,
)


def load(path: str | os.PathLike[str]) -> Any:
    """Return the content of a pickle file of plain data.

    Allowed: dict, list, tuple, set, frozenset, str, bytes, int, float, complex, bool, None and
    numpy arrays and scalars of numbers, strings or such objects.

    Raises:
        DataError: if the file is missing, cut or damaged, or names anything else; the
            message names the file and what was refused.
    """
    try:
        with open(path, "rb") as file:
            unpickler = _PlainUnpickler(file)
            try:
                _check_memo(file)
                value = unpickler.load()
                return _Finisher().finish(value) if unpickler.met_stand_ins else value
            except _RefusedError as error:
                raise DataError(
                    f"{path}: the pickle asks for {error}, which is not plain data. It was not executed. If you trust"
                    " its origin, convert it with its own program to JSON or .npy."
                ) from error
            except _FORGED as error:
                raise DataError(
                    f"{path}: not a complete pickle of plain data ({type(error).__name__}: {error}). Copy or write"
                    " the file again."
                ) from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def _check_memo(file: BinaryIO) -> None:
    """Refuse a memo number beyond the size of the file, and go back to the file's start.

    The unpickler makes its table of memos as large as the largest number: one damaged byte there
    can ask for 32 GiB, upon which the kernel ends the process.
    """
    size = os.fstat(file.fileno()).st_size
    for opcode, argument, position in pickletools.genops(file):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= size:
            raise pickle.UnpicklingError(f"memo number {argument} at byte {position}")
    file.seek(0)


class _RefusedError(pickle.UnpicklingError):
    """Carries the name of what a pickle may not use."""


class _PlainUnpickler(pickle.Unpickler):
    met_stand_ins = False

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a name that plain data needs; refuse every other."""
        # Protocols 0 to 2 use the names of Python 2.
        known = _GLOBALS.get(("builtins" if module == "__builtin__" else module, name))
        if known is None:
            raise _RefusedError(f"{module}.{name}")
        self.met_stand_ins = True
        return known


class _StandIn:
    """A callable that a pickle may call, and do nothing else with."""

    __slots__ = ("_function",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError("a change to a function")


class _Dtype:
    """What a pickle says about a dtype."""

    __slots__ = ("dtype",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: Any, *options: Any) -> None:
        dtype = np.dtype(name) if isinstance(name, str) else None
        if dtype is None or dtype.kind not in _KINDS or dtype.subdtype is not None:
            raise _RefusedError(f"the array type {name!r}")
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        _version, order, subdtype, names, fields, *_layout = state
        if any(part is not None for part in (subdtype, names, fields)) or order not in ("<", ">", "|", "="):
            raise _RefusedError("a structured array type")
        if order != "|":
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """What a pickle says about an array; becomes one when everything is read."""

    __slots__ = ("array",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _version, shape, dtype, fortran, content = state
        self.array = _build_array(content, dtype, shape, "F" if fortran else "C")


def _build_array(content: Any, dtype: Any, shape: Any, order: Literal["C", "F"]) -> np.ndarray:
    if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple) or order not in ("C", "F"):
        raise _RefusedError("an array of unknown layout")
    size = math.prod(shape)
    if dtype.dtype.kind == "O":
        if not isinstance(content, list) or len(content) != size:
            raise _RefusedError("an array of objects without its objects")
        array = np.empty(size, object)
        for position, value in enumerate(content):
            array[position] = value
        return array.reshape(shape, order=order)
    if isinstance(content, str):  # protocols 0 to 2
        content = content.encode("latin1")
    if not isinstance(content, (bytes, bytearray)) or len(content) != size * dtype.dtype.itemsize:
        raise _RefusedError("an array whose bytes do not fill its shape")
    if not content:
        return np.empty(shape, dtype.dtype, order=order)
    return np.frombuffer(content, dtype.dtype).reshape(shape, order=order).copy(order=order)


def _reconstruct(kind: Any, shape: Any, typecode: Any) -> _Array:
    if kind is not _NDARRAY:
        raise _RefusedError("a kind of array other than numpy.ndarray")
    return _Array()


def _frombuffer(content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    if axes is not None or order not in ("C", "F"):
        raise _RefusedError("an array of unusual axis order")
    made = _Array()
    made.array = _build_array(content, dtype, shape, order)
    return made


def _scalar(dtype: Any, content: Any = b"") -> Any:
    if isinstance(dtype, _Dtype) and dtype.dtype.kind == "O":
        raise _RefusedError("a numpy scalar that is an object")
    return _build_array(content, dtype, (), "C")[()]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise _RefusedError(f"_codecs.encode to {encoding!r}")
    return text.encode("latin1")


def _no_bytes(*content: Any) -> bytes:
    if content:
        raise _RefusedError("bytes made by a call")
    return b""


class _Finisher:
    """Replaces the records of arrays by the arrays, everywhere in a value."""

    def __init__(self) -> None:
        # Keeps the visited objects, so that an id is not used twice.
        self._seen: dict[int, tuple[Any, Any]] = {}

    def finish(self, value: Any) -> Any:
        """Return ``value`` with arrays in place of their records; lists and dicts are changed in place."""
        if not isinstance(value, (_Array, _Dtype, _StandIn, dict, list, tuple, np.ndarray)):
            return value
        known = self._seen.get(id(value))
        if known is None:
            # Entered before its parts: a container may hold itself.
            self._seen[id(value)] = (value, value)
            known = self._seen[id(value)] = (value, self._finish_parts(value))
        return known[1]

    def _finish_parts(self, value: Any) -> Any:
        if isinstance(value, _Array):
            if value.array is None:
                raise _RefusedError("an array without content")
            return self.finish(value.array) if value.array.dtype.kind == "O" else value.array
        if isinstance(value, tuple):
            parts = tuple(map(self.finish, value))
            return value if all(new is old for new, old in zip(parts, value, strict=True)) else parts
        if isinstance(value, list):
            value[:] = map(self.finish, value)
        elif isinstance(value, dict):
            for key in value:
                value[key] = self.finish(value[key])
        elif isinstance(value, np.ndarray):
            if value.dtype.kind == "O":
                for position in np.ndindex(value.shape):
                    value[position] = self.finish(value[position])
        else:
            raise _RefusedError("a type or function as a value")
        return value


_NDARRAY = _StandIn(lambda *arguments: _reconstruct(None, None, None))
_GLOBALS: dict[tuple[str, str], Any] = {
    ("builtins", "set"): _StandIn(set),
    ("builtins", "frozenset"): _StandIn(frozenset),
    ("builtins", "complex"): _StandIn(complex),
    ("builtins", "bytes"): _StandIn(_no_bytes),
    ("_codecs", "encode"): _StandIn(_encode),
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _StandIn(_Dtype),
}
for _core in ("numpy.core", "numpy._core"):
    _GLOBALS[f"{_core}.multiarray", "_reconstruct"] = _StandIn(_reconstruct)
    _GLOBALS[f"{_core}.multiarray", "scalar"] = _StandIn(_scalar)
    _GLOBALS[f"{_core}.numeric", "_frombuffer"] = _StandIn(_frombuffer)
