"""What stores of many videos share: opening once per process, and what is said of an id that they lack."""

import os
from collections.abc import Callable, Collection
from typing import Any, Generic, TypeVar

from mmpt.utils.errors import nearest, shown

__all__ = ["OpenedOnce", "file_state", "not_among"]

_SUGGEST_BELOW = 10_000  # ids; looking for the nearest of more takes long

Store = TypeVar("Store")


class OpenedOnce(Generic[Store]):
    """The stores that a process has open, by their paths.

    Args:
        make: opens a store.
        state: what is otherwise once a store on disk has changed, which is then opened anew; None where there is
            none: ``make`` says so.
    """

    def __init__(self, make: Callable[[str | os.PathLike[str]], Store], state: Callable[[str], Any]) -> None:
        self._make, self._state = make, state
        self._opened: dict[str, tuple[Any, Store]] = {}

    def __call__(self, path: str | os.PathLike[str]) -> Store:
        """Return the store of a path; raises what ``make`` raises."""
        key = os.path.abspath(path)
        current = self._state(key)
        if current is None:
            return self._make(path)
        known = self._opened.get(key)
        if known is None or known[0] != current:
            known = self._opened[key] = (current, self._make(path))
        return known[1]


def file_state(path: str | os.PathLike[str]) -> tuple[int, ...] | None:
    """Return what is otherwise once a file was replaced or written; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def not_among(video_id: object, ids: Collection[str], where: str) -> str:
    """Return the sentences that a video is not among the ids of a store, and which of them is the nearest.

    Args:
        video_id: that is missing.
        ids: that there are.
        where: the kind and the path of the store.
    """
    near = nearest(str(video_id), ids) if len(ids) < _SUGGEST_BELOW else ""
    return f"video {shown(video_id)}: not among the {len(ids)} videos of the {where}.{near}"
