"""Locks and checksums of files."""

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mmpt.utils.errors import DataError, StorageError
from mmpt.utils.files import file_sha256, lock_file, sole_writer


def test_a_lock_is_held_by_one_and_leaves_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "new" / ".lock"
    with sole_writer(lock), pytest.raises(DataError, match="another run is writing there"), sole_writer(lock):
        pass
    assert not lock.exists()
    with pytest.raises(KeyboardInterrupt), sole_writer(lock):
        raise KeyboardInterrupt
    assert not lock.exists()


def test_never_two_holders_although_the_file_is_removed(tmp_path: Path) -> None:
    holders, most, refused = [0], [0], [0]

    def work() -> None:
        for _ in range(300):
            try:
                with sole_writer(tmp_path / ".lock"):
                    holders[0] += 1
                    most[0] = max(most[0], holders[0])
                    holders[0] -= 1
            except DataError:
                refused[0] += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1


HOLD = """
import os, sys
from mmpt.utils.files import lock_file
handle = lock_file(sys.argv[1], "held", of_process=sys.argv[2] == "process")
if os.fork() == 0:  # as a data worker that outlives its training
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)
os._exit(0)
"""


@pytest.mark.parametrize(("kind", "held"), [("process", False), ("file", True)])
def test_a_child_that_inherits_the_handle(tmp_path: Path, kind: str, held: bool) -> None:
    """The lock of an open file lives as long as any process that has it open; the lock of a process does not."""
    lock = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLD, str(lock), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"ready\n"
        parent.wait(30)
        if held:
            with pytest.raises(DataError, match="held by a child"):
                lock_file(lock, lambda: "held by a child")
        else:
            os.close(lock_file(lock, "held", of_process=True))


def test_patience(tmp_path: Path) -> None:
    first = lock_file(tmp_path / ".lock", "held")
    timer = threading.Timer(0.2, os.close, [first])
    timer.start()
    os.close(lock_file(tmp_path / ".lock", "held", patience=30))
    timer.join()


def test_a_link_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    for of_process in (False, True):
        with pytest.raises(StorageError, match="is a link"):
            lock_file(tmp_path / ".lock", "held", of_process=of_process)
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for lock in (tmp_path / "file" / ".lock", tmp_path / "file" / "below" / ".lock"):
        with pytest.raises(DataError, match="is not a folder"), sole_writer(lock):
            pass


def test_checksum(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"weights")
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(DataError, match="gone: cannot be read"):
        file_sha256(tmp_path / "gone")
