"""Disks that are full, users without permission, and processes that are killed: for real, not simulated."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NOBODY = 65534


class SmallDisk:
    """A folder whose disk has as much room as a test says; ``says`` is what its errors say."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.says = "the disk is full"

    def leave(self, room: int) -> None:
        """Leave ``room`` bytes (whole pages) on the disk."""
        self.make_room()
        status = os.statvfs(self.folder)
        with open(self.folder / ".filler", "wb") as filler:
            filler.write(bytes(status.f_bavail * status.f_frsize - room))

    def make_room(self) -> None:
        (self.folder / ".filler").unlink(missing_ok=True)

    def listing(self) -> list[str]:
        """Return all files of the disk but the filler."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.name != ".filler")


class Limited(SmallDisk):
    """A process that may write no file larger than that: the system refuses the same calls, and needs no permission."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.says = "the disk is full|larger than this process may write"  # numpy does not pass on which of the two

    def leave(self, room: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    def make_room(self) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 512 KiB; skipped where no file system may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(params=["tmpfs", "limit"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk that can be full: a real small one, and a limit on what the process may write."""
    if request.param == "tmpfs":
        yield request.getfixturevalue("tmpfs")
        return
    disk = Limited(tmp_path / "disk")
    disk.folder.mkdir()
    try:
        yield disk
    finally:
        disk.make_room()


class Shared:
    """A folder that everyone may enter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def as_nobody(self) -> Iterator[None]:
        """Be without the powers of root for the block: only there, for a module that is first imported must be read."""
        root = os.geteuid() == 0
        if root:
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)


@pytest.fixture
def shared() -> Iterator[Shared]:
    """A folder below which a user without permissions finds what the test lets him find."""
    folder = Path(tempfile.mkdtemp(prefix="mmpt-faults-"))
    folder.chmod(0o755)
    try:
        yield Shared(folder)
    finally:
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(folder)


class Child:
    """A Python process that runs some code, which prints a line when it has come so far."""

    def __init__(self, code: str, *arguments: object) -> None:
        paths = [str(REPOSITORY), str(Path(__file__).parent), str(REPOSITORY / "tests" / "utils")]
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )

    def wait_for(self, line: str) -> None:
        """Return when the child has printed this line."""
        assert self.process.stdout is not None
        for said in self.process.stdout:
            if said.strip() == line:
                return
        raise AssertionError(f"the child ended with {self.process.wait()} before it printed {line!r}")

    def kill(self) -> None:
        """End it with SIGKILL, which nothing can catch."""
        self.process.kill()
        assert self.process.wait() == -signal.SIGKILL
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def child() -> Iterator[type[Child]]:
    """The class of child processes; none outlives the test."""
    started: list[Child] = []

    class Tracked(Child):
        def __init__(self, code: str, *arguments: object) -> None:
            super().__init__(code, *arguments)
            started.append(self)

    yield Tracked
    for one in started:
        if one.process.poll() is None:
            one.kill()
