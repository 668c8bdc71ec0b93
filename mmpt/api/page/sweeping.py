"""What visitors leave on the disk is bounded: so many files, and none for longer than so long."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["sweep", "swept"]

_EVERY_SECONDS = 60.0


def sweep(folder: Path, most_files: int, most_seconds: float) -> int:
    """Remove the files below a folder that are older than ``most_seconds``, and the oldest beyond ``most_files``.

    Returns:
        how many were removed.
    """
    found = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # it may be gone by now
            if path.is_symlink() or path.is_file():
                found.append((path.lstat().st_mtime, path))
    found.sort(reverse=True)
    horizon = time.time() - most_seconds
    old = [path for number, (written, path) in enumerate(found) if number >= most_files or written < horizon]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


@contextmanager
def swept(folder: Path, most_files: int, most_seconds: float) -> Iterator[None]:
    """Sweep a folder every minute, in a thread of its own, for as long as the block runs."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(_EVERY_SECONDS):
            sweep(folder, most_files, most_seconds)

    thread = threading.Thread(target=work, name="sweeping", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
