"""Lists of a million names: how they are compared, and garbage collections kept from looking at them again and again."""

import contextlib
import gc
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

__all__ = ["all_differ", "first_places", "uncollected"]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Make many objects that stay, without collections between, which would take most of the time.

    What is there at the end is never looked at again: neither by collections of this process, nor by those of workers
    that are forked from it, whose looking would copy the pages.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def all_differ(names: Sequence[str]) -> bool:
    """Tell whether no two names are the same; also says no, of millions hardly ever, where two have the same hash."""
    hashes = np.fromiter(map(hash, names), np.int64, len(names))
    hashes.sort()  # many times faster than a set, whose places are all over the memory
    return not (hashes[1:] == hashes[:-1]).any()


def first_places(names: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Return where each of the wanted names, which all differ, first stands among ``names``, or -1; int64 (wanted,)."""
    if names == wanted:
        return np.arange(len(wanted))
    last = len(names) - 1
    places = dict(zip(reversed(names), range(last, -1, -1), strict=True))  # the first one is added last
    return np.fromiter(map(places.get, wanted, itertools.repeat(-1)), np.int64, len(wanted))
