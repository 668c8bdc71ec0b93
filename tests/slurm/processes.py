"""Processes found by what is in their environment, which their children inherit."""

import contextlib
import os
import signal
import time
from collections.abc import Set
from pathlib import Path

__all__ = ["kill_all", "processes_with"]


def kill_all(marks: Set[str], seconds: float = 20) -> list[int]:
    """Kill processes until none is left, as one may be starting another; return those that have not died in time."""
    end = time.monotonic() + seconds
    while (found := processes_with(marks)) and time.monotonic() < end:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return found


def processes_with(marks: Set[str]) -> list[int]:
    """Return the processes that have all of these in their environment: NAME=value, or NAME whatever its value."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone, or another user's
            variables = (folder / "environ").read_text(errors="replace").split("\0")
            known = {*variables, *(item.partition("=")[0] for item in variables)}
            if marks <= known and int(folder.name) != os.getpid() and not _is_zombie(folder):
                found.append(int(folder.name))
    return found


def _is_zombie(process: Path) -> bool:
    return (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
