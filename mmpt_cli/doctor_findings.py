"""What a check of the installation finds, and how checks are run: one that crashes is a finding of its own."""

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any, Literal

__all__ = ["LEVELS", "Check", "Finding", "examine", "import_problem", "installed", "pip"]

Level = Literal["ok", "note", "warning", "error"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: how it stands, what it is, and the command that puts it right."""

    level: Level
    what: str
    fix: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON takes them."""
        return asdict(self)


Check = Callable[[], Iterable[Finding]]


def examine(checks: Sequence[Check]) -> Iterator[tuple[str, Finding]]:
    """Yield (name of the check, finding) of every check, in order."""
    for check in checks:
        try:
            found = list(check())
        except Exception as error:  # whatever is broken here must not hide what the others find
            found = [Finding("error", f"the check itself failed: {type(error).__name__}: {error}")]
        yield from ((check.__name__, finding) for finding in found)


def installed(package: str) -> str:
    """Return the version of a distribution; "" if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def import_problem(module: str) -> str:
    """Import a module; return why it cannot be, or ""."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken package raises anything: OSError of a library, AttributeError of a mismatch
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def pip(*arguments: str) -> str:
    """Return a command that runs pip in this Python."""
    return " ".join([sys.executable, "-m", "pip", *arguments])
