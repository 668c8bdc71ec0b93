"""Atomic files: written to a temporary name beside the target, flushed, then renamed; locks and checksums.

What the system refuses (a full disk, a place without permission) is a StorageError that names the file.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

__all__ = [
    "allow_open_files",
    "atomic_copy",
    "atomic_open",
    "file_sha256",
    "lock_file",
    "read_json",
    "resolve_path",
    "sole_writer",
    "sync_folder",
    "write_json",
    "writing",
]

logger = logging.getLogger(__name__)

REPOSITORY = Path(__file__).resolve().parents[2]
#: How often a lock that another process holds is looked at.
_LOOK_SECONDS = 0.5
#: Files that a process has open beside those it counts: libraries, sockets of loaders, logs.
_OTHER_FILES = 512
_NO_LOCKS_HERE = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}
#: What the system says of a write -> what it means to the person who started it.
_REFUSED = {
    errno.ENOSPC: "the disk is full. Make room, then run the same command again",
    errno.EDQUOT: "the disk is full: your quota is used up. Make room, then run the same command again",
    errno.EFBIG: "the file would be larger than this process may write (ulimit -f)",
    errno.EACCES: "permission denied. Name another folder, or ask for permission to write there",
    errno.EPERM: "permission denied. Name another folder, or ask for permission to write there",
    errno.EROFS: "the file system is read-only. Name another folder",
    errno.EIO: "the disk reports an error (input/output error). Look at the disk before you go on",
}


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name ``path`` in what the system refuses while it is written.

    Raises:
        StorageError: if the disk is full, the place may not be written, or the disk is at fault.
    """
    from mmpt.utils.errors import StorageError

    try:
        yield
    except OSError as error:
        cause = _REFUSED.get(errno.ENOSPC if _is_short_write(error) else error.errno or 0)
        if cause is None or _is_elsewhere(error, Path(path)):
            raise
        raise StorageError(f"{path}: cannot be written: {cause} ({error})") from error


def _is_elsewhere(error: OSError, target: Path) -> bool:
    """Tell whether an error is about another file, such as one that is read while ``target`` is written."""
    return error.filename is not None and Path(error.filename).absolute().parent not in target.absolute().parents


def _is_short_write(error: OSError) -> bool:
    """Recognise numpy's error for a disk that took only a part: it has no number."""
    return error.errno is None and "requested and" in str(error)


@contextmanager
def atomic_open(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that becomes ``path`` when the block ends without an error.

    The parent folder is created. If the block raises, nothing is left behind and an
    existing ``path`` keeps its content.

    Raises:
        StorageError: if the disk is full or the place may not be written.
    """
    target = Path(path)
    with writing(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        try:
            with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def atomic_copy(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy a file so that ``target`` is at every moment the old file or the whole new one, also after a power cut."""
    with open(source, "rb") as content, atomic_open(target, "wb") as file:
        shutil.copyfileobj(content, file, 1 << 22)
    sync_folder(Path(target).parent)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make the names in a folder as lasting as the files: what was renamed stays so after a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:  # some network file systems cannot
            raise
    finally:
        os.close(handle)


def write_json(path: str | os.PathLike[str], value: Any, indent: int | None = 2) -> None:
    """Write ``value`` as JSON, atomically."""
    with atomic_open(path) as file:
        json.dump(value, file, indent=indent, ensure_ascii=False)
        file.write("\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        DataError: if the file is missing or is not JSON; names the file.
    """
    from mmpt.utils.errors import DataError

    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a JSON file ({error})") from error


def resolve_path(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` as given if it exists, else the same path below the repository, if that does."""
    direct = Path(path)
    # os.path: a name that is too long does not exist, where Path raises.
    if os.path.exists(direct) or direct.is_absolute():
        return direct
    below = REPOSITORY / direct
    return below if os.path.exists(below) else direct


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        DataError: if the file cannot be read; names it.
    """
    from mmpt.utils.errors import DataError

    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def lock_file(
    path: str | os.PathLike[str],
    message: str | Callable[[], str],
    patience: float = 0.0,
    of_process: bool = False,
) -> int:
    """Open a file for writing, created if absent, that no other process holds; closing the handle lets go of it.

    The holder may rename or remove the file; the lock of a process that was killed is free. Where the file system has
    no locks (some network folders), nothing is locked, and a warning says so.

    Args:
        message: what to say if it is held.
        patience: seconds to wait for another process to let go of it.
        of_process: lock for this process alone, until it closes any handle of this file. Otherwise the lock belongs to
            the open file: children that inherit the handle hold it too, as long as the last of them lives.

    Raises:
        DataError: with ``message``, if it is held.
        StorageError: if the file may not be written, or is a link: who made it could choose what is overwritten.
    """
    from mmpt.utils.errors import DataError, StorageError

    deadline = time.monotonic() + patience
    while True:
        if os.path.islink(path):
            raise StorageError(f"{path}: is a link, which is not followed. Remove it")
        with writing(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        taken = False
        try:
            taken = _take(handle, path, deadline, fcntl.lockf if of_process else fcntl.flock)
            if taken and os.path.samestat(os.stat(path), os.fstat(handle)):
                return handle
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if not taken:
            raise DataError(message if isinstance(message, str) else message())
        # else the previous holder renamed or removed the file between open and lock


def _take(handle: int, path: str | os.PathLike[str], deadline: float, lock: Callable[[int, int], Any]) -> bool:
    """Lock an open file, or warn that it cannot be locked; tell whether no other process holds it."""
    while True:
        try:
            lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except (BlockingIOError, PermissionError):  # lockf may answer either
            if time.monotonic() >= deadline:
                return False
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:
                raise
            logger.warning("%s: this file system has no locks; see that no other run writes there", path)
            return True
        time.sleep(_LOOK_SECONDS)


@contextmanager
def sole_writer(lock: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a lock file for the length of the block, so that two runs do not write one output at a time.

    The folder of the lock file is created, and the file removed at the end.

    Raises:
        DataError: if another process holds it, or its folder is a file.
        StorageError: if the folder may not be written.
    """
    from mmpt.utils.errors import DataError

    path = Path(lock)
    try:
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(f"{path.parent}: is not a folder, or below a file; name another output folder") from error
    handle = lock_file(
        path, f"{path.parent}: another run is writing there (it holds {path.name}). Wait for it, or stop it."
    )
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def allow_open_files(count: int) -> None:
    """Let this process hold ``count`` files open beside others, as far as the system allows (``ulimit -Hn``)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
