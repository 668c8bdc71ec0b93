"""What visitors leave on the disk is bounded: so many files and bytes, and none for longer than so long.

Room for an upload is made of what its visitor left before, or of what those left who hold more than he does; where that
is not enough it is refused. So nobody can push out the files of others by uploading much.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Room", "swept"]

_EVERY_SECONDS = 60.0
#: Whose the copies are that the page makes for browsers, and what is being written: they can be made again.
_NOBODY = ""


@dataclass(frozen=True)
class _File:
    written: float
    path: Path
    size: int
    owner: str


class Room:
    """The files below a folder, and whose they are.

    Args:
        folder: of all that visitors cause to be written.
        most_files: that are kept.
        most_bytes: of all of them.
        most_seconds: for which each is kept.
    """

    def __init__(self, folder: Path, most_files: int, most_bytes: int, most_seconds: float) -> None:
        self.folder, self.most_files, self.most_bytes, self.most_seconds = folder, most_files, most_bytes, most_seconds
        self._owners: dict[Path, str] = {}
        self._coming: list[tuple[str, int]] = []
        self._lock = threading.Lock()

    def enter(self, visitor: str, size: int) -> bool:
        """Make room for an upload of at most ``size`` bytes and hold it; tell whether there is."""
        with self._lock:
            self._coming.append((visitor, size))
            if self._sweep(visitor)[1]:
                return True
            self._coming.remove((visitor, size))
            return False

    def leave(self, visitor: str, size: int, paths: Sequence[str]) -> None:
        """End what :meth:`enter` began; ``paths`` are what was written."""
        with self._lock:
            self._coming.remove((visitor, size))
            self._owners.update((Path(path).resolve(), visitor) for path in paths)

    def sweep(self) -> int:
        """Remove what is too old, and the oldest of what is too much; return how many files that were."""
        with self._lock:
            return self._sweep(None)[0]

    def _sweep(self, visitor: str | None) -> tuple[int, bool]:
        files = self._files()
        horizon = time.time() - self.most_seconds
        old = [file for file in files if file.written < horizon]
        young = [file for file in files if file.written >= horizon]
        kept = list(young)
        while self._is_full(kept) and (chosen := self._next_to_go(kept, visitor)) is not None:
            kept.remove(chosen)
        enough = not self._is_full(kept)
        if visitor is not None and not enough:
            kept = young  # the upload is refused: nothing goes for it
        gone = old + [file for file in young if file not in kept]
        for file in gone:
            file.path.unlink(missing_ok=True)
        self._owners = {file.path: file.owner for file in kept if file.owner}
        return len(gone), enough

    def _files(self) -> list[_File]:
        """Return all files, the oldest first."""
        found = []
        root = self.folder.resolve()
        for path in root.rglob("*"):
            with suppress(OSError):  # it may be gone by now
                if path.is_symlink() or path.is_file():
                    status = path.lstat()
                    owner = self._owners.get(path, _NOBODY)
                    found.append(_File(status.st_mtime, path, status.st_size, owner))
        return sorted(found, key=lambda file: file.written)

    def _is_full(self, files: Sequence[_File]) -> bool:
        size = sum(file.size for file in files) + sum(size for _, size in self._coming)
        return len(files) + len(self._coming) > self.most_files or size > self.most_bytes

    def _next_to_go(self, files: Sequence[_File], visitor: str | None) -> _File | None:
        """Return the oldest file of who holds more than the visitor, else of his own, else of nobody's, if any."""
        shares: dict[str, float] = {}
        held = [(file.owner, file.size) for file in files] + self._coming
        for owner, size in held:
            shares[owner] = shares.get(owner, 0.0) + 1 / self.most_files + size / self.most_bytes
        present = {file.owner for file in files}
        if not present:
            return None
        largest = max(present, key=lambda owner: shares[owner])
        if visitor is None or (largest != _NOBODY and shares[largest] > shares[visitor]):
            chosen = largest
        else:
            chosen = visitor if visitor in present else _NOBODY
        return next((file for file in files if file.owner == chosen), None)


@contextmanager
def swept(room: Room) -> Iterator[None]:
    """Sweep every minute, in a thread of its own, for as long as the block runs."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(_EVERY_SECONDS):
            room.sweep()

    thread = threading.Thread(target=work, name="sweeping", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
