"""What a training that begins again replaces: set aside until the new run has a checkpoint of its own."""

import shutil
from collections.abc import Iterable
from pathlib import Path

__all__ = ["set_aside", "settle"]

_FOLDER = "replaced"


def set_aside(run_dir: Path, patterns: Iterable[str]) -> None:
    """Move the files of a run folder that match to its sub-folder ``replaced``."""
    aside = run_dir / _FOLDER
    for pattern in patterns:
        for path in sorted(run_dir.glob(pattern)):
            target = aside / path.relative_to(run_dir)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)


def settle(run_dir: Path, log_name: str) -> bool:
    """Delete what was set aside if the new run has a checkpoint, else put it back; tell whether it was put back.

    What the new run wrote to its log stays, below the old log.
    """
    aside = run_dir / _FOLDER
    if not aside.is_dir():
        return False
    restored = not any(run_dir.glob("checkpoint*.pt"))
    if restored:
        said = (run_dir / log_name).read_bytes() if (run_dir / log_name).exists() else b""
        for path in sorted(aside.rglob("*")):
            if path.is_file():
                path.replace(run_dir / path.relative_to(aside))
        with (run_dir / log_name).open("ab") as file:
            file.write(said)
    shutil.rmtree(aside)
    return restored
