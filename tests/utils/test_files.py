"""Locks and checksums of files."""

import hashlib
import threading
from pathlib import Path

import pytest

from mmpt.utils.errors import DataError
from mmpt.utils.files import file_sha256, sole_writer


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
