"""Frame stores whose writer is killed or runs out of disk: whole shards stay, and the same command goes on."""

import numpy as np
import pytest
from fault_samples import write_videos

from mmpt.store.decode import DecodeReport
from mmpt.store.frame_extraction import FrameExtractionOptions, extract_frames
from mmpt.store.frame_store import FrameStore
from mmpt.store.frame_writer import FrameStoreWriter
from mmpt.store.images import decode_image
from mmpt.store.video_list import find_videos
from mmpt.utils.errors import DataError, StorageError

EXTRACT = """
import sys, time
from mmpt.store import frame_extraction
from mmpt.store.video_list import find_videos
real = frame_extraction.middle_frames

def middle_frames(path, *arguments):
    if path.endswith("d.mp4"):
        print("fourth video", flush=True)
        time.sleep(600)
    return real(path, *arguments)

frame_extraction.middle_frames = middle_frames
options = frame_extraction.FrameExtractionOptions(frames=2, videos_per_shard=2, workers=0)
frame_extraction.extract_frames(find_videos([sys.argv[1]]), sys.argv[2], options)
"""
OPTIONS = FrameExtractionOptions(frames=2, videos_per_shard=2, workers=0)


def levels(folder) -> dict[str, list[float]]:
    """The grey levels of all stored frames, rounded to what `write_videos` wrote."""
    store = FrameStore(folder)
    return {name: [round(float(decode_image(frame).mean()), -1) for frame in store[name]] for name in store}


def test_a_killed_extraction_of_frames(tmp_path, child):
    videos, out = write_videos(tmp_path / "videos", "abcde"), tmp_path / "out"
    extraction = child(EXTRACT, videos, out)
    extraction.wait_for("fourth video")
    with pytest.raises(DataError, match="another run is writing there"):
        extract_frames(find_videos([videos]), out, OPTIONS)
    extraction.kill()
    assert (out / ".shard_00001.frames_data.npy.tmp").exists()  # it was in the middle of a shard
    assert levels(out) == {"a": [40, 40], "b": [60, 60]}
    summary = extract_frames(find_videos([videos]), out, OPTIONS)
    assert (summary.done, summary.skipped, summary.failed) == (3, 2, 0)
    assert levels(out) == {name: [40 + 20 * number] * 2 for number, name in enumerate("abcde")}
    assert not list(out.glob(".*"))


def test_a_full_disk_while_frames_are_stored(small_disk):
    out = small_disk.folder / "out"
    content = np.random.default_rng(0).integers(256, size=30_000, dtype=np.uint8)
    with FrameStoreWriter(out, None, 2) as writer:
        for name in "ab":
            writer.append(name, [content])
    before = small_disk.listing()
    small_disk.leave(10 * 4096)
    refused = pytest.raises(StorageError, match=rf"shard_00001\.frames_data\.npy.*({small_disk.says})")
    with refused, FrameStoreWriter(out, None, 2) as writer:
        for name in "cd":
            writer.append(name, [content])
    assert small_disk.listing() == before
    store = FrameStore(out)
    assert store.ids == ["a", "b"] and store.verify()
    small_disk.make_room()
    with FrameStoreWriter(out, None, 2) as writer:
        writer.append("c", [content])
    assert np.array_equal(FrameStore(out)["c"][0], content)


def test_a_record_alone_makes_no_video_done(tmp_path):
    """Killed after the shard was complete and before it was recorded, or the other way: extracted again, not lost."""
    videos, out = write_videos(tmp_path / "videos", "abc"), tmp_path / "out"
    extract_frames(find_videos([videos]), out, OPTIONS)
    (out / "manifest.json").unlink()
    assert extract_frames(find_videos([videos]), out, OPTIONS).done == 3
    listed = out / "frames.json"
    listed.write_text('{"version": 1, "shards": []}')
    summary = extract_frames(find_videos([videos]), out, OPTIONS)
    assert (summary.done, summary.skipped) == (3, 0)
    assert levels(out) == {"a": [40, 40], "b": [60, 60], "c": [80, 80]}
    assert len(list(out.glob("*.frames_data.npy"))) == 2


def test_a_decoder_that_never_returns_is_given_up(tmp_path, monkeypatch):
    import threading

    from mmpt.store import frame_extraction

    release, real = threading.Event(), frame_extraction.middle_frames

    def middle_frames(path, wanted, encode, report: DecodeReport, *clip):
        if path.endswith("b.mp4"):
            release.wait()
            raise RuntimeError("let go")
        return real(path, wanted, encode, report, *clip)

    monkeypatch.setattr(frame_extraction, "middle_frames", middle_frames)
    videos = write_videos(tmp_path / "videos", "abc")
    options = FrameExtractionOptions(frames=2, workers=2, timeout_seconds=1.0)
    summary = extract_frames(find_videos([videos]), tmp_path / "out", options)
    release.set()
    assert (summary.done, [video for video, _ in summary.failures]) == (2, ["b"])
    assert sorted(levels(tmp_path / "out")) == ["a", "c"]
