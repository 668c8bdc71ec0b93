"""Atomic files: written to a temporary name beside the target, flushed, then renamed."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

__all__ = ["atomic_open", "write_json", "read_json", "resolve_path"]

REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def atomic_open(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that becomes ``path`` when the block ends without an error.

    The parent folder is created. If the block raises, nothing is left behind and an
    existing ``path`` keeps its content.
    """
    target = Path(path)
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
    except ValueError as error:
        raise DataError(f"{path}: not a JSON file ({error})") from error


def resolve_path(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` as given if it exists, else the same path below the repository, if that does."""
    direct = Path(path)
    if direct.exists() or direct.is_absolute():
        return direct
    below = REPOSITORY / direct
    return below if below.exists() else direct


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
