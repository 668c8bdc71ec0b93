"""Writers that are killed (SIGKILL) in the middle: what was complete stays readable, and a rerun goes on."""

import errno
import fcntl
import json
import os
from pathlib import Path

import numpy as np
import pytest
from fault_samples import Levels, write_videos

from mmpt.launch.state import is_locked, locked
from mmpt.store.extraction import extract_features
from mmpt.store.features import FeatureStore
from mmpt.store.video_list import find_videos
from mmpt.utils.errors import DataError
from mmpt.utils.files import lock_file
from mmpt.utils.shardedtensor import ShardedTensor, ShardedTensorWriter

WRITE_SHARD = """
import sys, time
import numpy as np
from mmpt.utils.shardedtensor import ShardedTensorWriter
with ShardedTensorWriter(sys.argv[1], np.float16, (8,)) as writer:
    for number in range(1000):
        writer.append(np.full((500, 8), 7, np.float16), f"new{number}")
        if number == 500:
            print("halfway", flush=True)
            time.sleep(600)
"""

EXTRACT = """
import sys, time
from fault_samples import Levels
from mmpt.store.extraction import ExtractionOptions, extract_features
from mmpt.store.video_list import find_videos

def wait(call):
    if call == 2:
        print("third video", flush=True)
        time.sleep(600)

extract_features(find_videos([sys.argv[1]]), Levels(4, wait), sys.argv[2], ExtractionOptions(workers=0))
"""


def write_old(path: Path) -> None:
    with ShardedTensorWriter(path, np.float16, (8,)) as writer:
        writer.append(np.ones((3, 8), np.float16), "old")


@pytest.mark.parametrize("older", [False, True])
def test_a_killed_writer_of_a_shard(tmp_path, child, older):
    path = tmp_path / "shard"
    if older:
        write_old(path)
    writer = child(WRITE_SHARD, path)
    writer.wait_for("halfway")
    with pytest.raises(DataError, match="another process is writing this shard"):
        ShardedTensorWriter(path, np.float16, (8,))
    writer.kill()
    assert (tmp_path / ".shard_data.npy.tmp").stat().st_size > 1_000_000  # it was in the middle of the data
    if older:
        assert ShardedTensor.load(path).verify() == 1 and ShardedTensor.load(path).ids == ["old"]
    else:
        with pytest.raises(DataError, match=r"shard_data\.npy: no such file; an unfinished write lies beside it"):
            ShardedTensor.load(path)
    write_old(path)  # its lock ended with it
    assert ShardedTensor.load(path)[0].sum() == 24
    assert not list(tmp_path.glob(".*"))


def test_a_killed_extraction(tmp_path, child):
    videos, out = write_videos(tmp_path / "videos", "abcd"), tmp_path / "out"
    extraction = child(EXTRACT, videos, out)
    extraction.wait_for("third video")
    extraction.kill()
    assert FeatureStore(out).ids() == ["a", "b"]
    (out / ".c.npy.x1.tmp").write_bytes(b"half of an array")  # where it would have been killed a moment later
    encoder = Levels(4)
    summary = extract_features(find_videos([videos]), encoder, out)
    assert (summary.done, summary.skipped, summary.failed, encoder.calls) == (2, 2, 0, 2)
    store = FeatureStore(out)
    assert [round(float(store[name][0, 0]), -1) for name in store.ids()] == [40, 60, 80, 100]
    assert sorted(path.name for path in out.iterdir()) == [*(f"{name}.npy" for name in "abcd"), "manifest.json"]
    assert sorted(json.loads((out / "manifest.json").read_text())["videos"]) == list("abcd")


def test_two_extractions_into_one_folder(tmp_path, child):
    """The second is refused while the first is at work; when the first is killed, it does not block for ever."""
    videos, out = write_videos(tmp_path / "videos", "abcd"), tmp_path / "out"
    first = child(EXTRACT, videos, out)
    first.wait_for("third video")
    before = sorted(path.name for path in out.iterdir())
    with pytest.raises(DataError, match=r"out: another run is writing there \(it holds \.lock\)"):
        extract_features(find_videos([videos]), Levels(4), out)
    assert sorted(path.name for path in out.iterdir()) == before and first.process.poll() is None
    first.kill()
    assert (out / ".lock").exists()
    assert extract_features(find_videos([videos]), Levels(4), out).done == 2
    assert not (out / ".lock").exists()


@pytest.mark.parametrize("of_process", [False, True])
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_where_there_are_no_locks_a_warning_says_so(tmp_path, monkeypatch, caplog, number, of_process):
    def no_locks(handle: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf" if of_process else "flock", no_locks)
    os.close(lock_file(tmp_path / ".lock", "held", of_process=of_process))
    assert "this file system has no locks" in caplog.text


def test_without_locks_jobs_are_launched_all_the_same(tmp_path, monkeypatch, caplog):
    def no_locks(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with locked(tmp_path / "run") as handle:
        assert os.path.samestat(os.fstat(handle), os.stat(tmp_path / "run" / ".lock"))
    assert "this file system has no locks" in caplog.text
    assert not is_locked(tmp_path / "run")
