"""Errors that a user can cause and can fix."""

import difflib
from collections.abc import Iterable

__all__ = [
    "MMPTError",
    "ConfigError",
    "DataError",
    "VideoError",
    "UnsafePathError",
    "CheckpointError",
    "StorageError",
    "nearest",
    "shown",
]


class MMPTError(ValueError):
    """Report something a user can put right; the message says what, where and what to do."""


class ConfigError(MMPTError):
    """Report a wrong key, name or value in a configuration; names the file and key."""


class DataError(MMPTError):
    """Report unreadable, damaged or inconsistent data; names the file or video."""


class VideoError(DataError):
    """Report one video that cannot be read or is not what a call takes; the other videos are not at fault."""


class UnsafePathError(DataError):
    """Report a name out of a file that would lead out of the folder it belongs to; names the source."""


class StorageError(MMPTError):
    """Report a disk that is full, or a file or folder that may not be read or written; names it.

    Not a :class:`DataError`: the data are not at fault, and the same command may go on later.
    """


class CheckpointError(MMPTError):
    """Report weights that do not fit the model they are loaded into."""


def shown(value: object, most: int = 200) -> str:
    """Return the representation of a value from a file, cut to ``most`` characters, also if it has none."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or nested as deeply
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}.."


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
