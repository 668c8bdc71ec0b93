"""Errors that a user can cause and can fix."""

import difflib
from collections.abc import Iterable

__all__ = ["MMPTError", "ConfigError", "DataError", "CheckpointError", "nearest", "shown"]


class MMPTError(ValueError):
    """Report something a user can put right; the message says what, where and what to do."""


class ConfigError(MMPTError):
    """Report a wrong key, name or value in a configuration; names the file and key."""


class DataError(MMPTError):
    """Report unreadable, damaged or inconsistent data; names the file or video."""


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
