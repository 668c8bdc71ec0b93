"""Python's garbage collector, kept from looking again and again at the millions of objects that lists of videos are."""

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["uncollected"]


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
