"""Videos that are slow, never come to an end, or are no videos: counted failures, and the others are done."""

import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from fault_samples import Levels, write_videos

from mmpt.store import decode_pool, extraction
from mmpt.store.extraction import ExtractionOptions, extract_features
from mmpt.store.features import FeatureStore
from mmpt.store.video_list import VideoItem, find_videos
from mmpt.utils.errors import StorageError
from mmpt.utils.files import read_json

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "scripts" / "video_feature_extractor" / "extract.py"


def load_script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("extract_for_faults", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr("mmpt_cli.extract_features.build_encoder", lambda *_, **__: Levels())
    return module


def frames(seconds: float) -> np.ndarray:
    return np.full((round(4 * seconds), 16, 16, 3), 50, np.uint8)


@pytest.fixture
def hanging(monkeypatch):
    """Make the decoder of the videos named here never return; those of others give two seconds at once."""
    names: set[str] = set()
    release = threading.Event()

    def stream_frames(path, *args, **kwargs):
        if Path(path).stem in names:
            release.wait()
            raise RuntimeError("let go")
        yield frames(2)

    monkeypatch.setattr(extraction, "stream_frames", stream_frames)
    yield names
    release.set()


def files(folder: Path, names: str) -> list[VideoItem]:
    """Make files that no decoder of these tests looks into."""
    for name in names:
        (folder / f"{name}.mp4").touch()
    return find_videos([folder])


@pytest.mark.parametrize("workers", [1, 3])
def test_a_decoder_that_never_returns(tmp_path, hanging, workers):
    items = files(tmp_path, "abcde")
    hanging |= {"b", "c"}
    options = ExtractionOptions(workers=workers, timeout_seconds=1.0)
    summary = extract_features(items, Levels(), tmp_path / "out", options)
    assert (summary.done, [video for video, _ in summary.failures]) == (3, ["b", "c"])
    assert "b.mp4: decoding took longer than 1 s and was given up (--video-timeout)" in summary.describe()
    assert FeatureStore(tmp_path / "out").ids() == ["a", "d", "e"]
    assert read_json(tmp_path / "out" / "manifest.json")["videos"]["b"]["status"] == "failed"
    hanging.clear()  # the disk answers again
    again = extract_features(items, Levels(), tmp_path / "out", options)
    assert (again.done, again.skipped, again.failed) == (2, 3, 0)


def test_a_decoder_that_stops_in_the_middle_leaves_no_half_features(tmp_path, monkeypatch):
    release = threading.Event()

    def stream_frames(path, *args, **kwargs):
        yield frames(1)
        if path.endswith("a.mp4"):
            release.wait()
        yield frames(1)

    monkeypatch.setattr(extraction, "stream_frames", stream_frames)
    monkeypatch.setattr(decode_pool, "SLOWEST", 0.0)
    options = ExtractionOptions(workers=1, timeout_seconds=1.0)
    summary = extract_features(files(tmp_path, "ab"), Levels(), tmp_path / "out", options)
    release.set()
    assert (summary.done, [video for video, _ in summary.failures]) == (1, ["a"])
    assert FeatureStore(tmp_path / "out").ids() == ["b"] and len(FeatureStore(tmp_path / "out")["b"]) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_the_video_before_one_that_is_given_up_is_done(tmp_path, hanging, workers):
    """The network is slower than the time-out: when b is given up, a still waits in the queue, with its end."""
    items = files(tmp_path, "abc")
    hanging |= {"b"}
    encoder = Levels(before=lambda call: threading.Event().wait(1.0))
    summary = extract_features(
        items, encoder, tmp_path / "out", ExtractionOptions(workers=workers, timeout_seconds=0.2)
    )
    assert (summary.done, [video for video, _ in summary.failures]) == (2, ["b"])
    assert FeatureStore(tmp_path / "out").ids() == ["a", "c"]


def test_a_video_that_vanished_would_be_noticed(tmp_path, monkeypatch):
    def forgetful(item, *args):
        yield decode_pool.Piece(item, frames(1)[None])

    monkeypatch.setattr(decode_pool, "_pieces", forgetful)
    with pytest.raises(RuntimeError, match=r"videos without an end.*a\.mp4"):
        extract_features(files(tmp_path, "a"), Levels(), tmp_path / "out")


class Time:
    """A clock that only goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(("each", "seconds"), [(700, 1), (60, 13), (5, 1000)])
def test_a_slow_file_is_given_up_in_proportion_to_its_length(tmp_path, monkeypatch, each, seconds):
    """A second of video may take ten, and 600 seconds come on top: no limit to the length, but to the slowness.

    The network, which takes 1000 seconds for each batch, does not count.
    """
    time, asked = Time(), []

    def stream_frames(path, *args, **kwargs):
        for second in range(1000):
            asked.append(second)
            time.now += each
            yield frames(1)

    def wait(call: int) -> None:
        time.now += 1000

    monkeypatch.setattr(extraction, "stream_frames", stream_frames)
    monkeypatch.setattr(decode_pool, "time", time)
    items, options = files(tmp_path, "a"), ExtractionOptions(workers=0)
    summary = extract_features(items, Levels(before=wait), tmp_path / "out", options)
    assert (summary.done, summary.failed) == ((1, 0) if seconds == 1000 else (0, 1))
    assert len(asked) == seconds  # 60 n > 600 + 10 n from n = 13 on


def test_when_everything_hangs_the_job_ends(tmp_path, hanging, monkeypatch):
    """A disk that does not answer: not one time-out after the other for a million videos."""
    items = files(tmp_path, "abcdefgh")
    hanging |= set("bcdefgh")
    monkeypatch.setattr(decode_pool, "_MOST_LEFT_BEHIND", 2)
    monkeypatch.setattr(decode_pool, "_JOIN_SECONDS", 0.1)
    options = ExtractionOptions(workers=2, timeout_seconds=0.5)
    with pytest.raises(StorageError, match=r"\.mp4: decoding hangs, and so it does for 2 other videos"):
        extract_features(items, Levels(), tmp_path / "out", options)
    assert read_json(tmp_path / "out" / "manifest.json")["videos"]["a"]["status"] == "done"
    hanging.clear()
    again = extract_features(items, Levels(), tmp_path / "out", options)
    assert (again.done, again.skipped, again.failed) == (7, 1, 0)


HANG = """
import runpy, sys, threading
from pathlib import Path
from fault_samples import Levels
from mmpt.modules import feature_encoders
from mmpt.store import extraction
real = extraction.stream_frames

def stream_frames(path, *args, **kwargs):
    if Path(path).stem == "b":
        threading.Event().wait()
    yield from real(path, *args, **kwargs)

extraction.stream_frames = stream_frames
feature_encoders.build_encoder = lambda *_, **__: Levels()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_the_process_ends_although_a_decoder_still_hangs(tmp_path):
    videos = write_videos(tmp_path / "videos", "abc")
    arguments = ["--videos", str(videos), "--fdir", str(tmp_path / "out"), "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", HANG, str(SCRIPT), *arguments, "--video-timeout", "0.5"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{Path(__file__).parent}"},
    )
    assert done.returncode == 1 and "33% of the videos failed, --max-failed is 10%" in done.stderr
    assert "done 2, skipped 0, failed 1" in done.stdout and "failed: b: " in done.stdout


def test_what_is_no_video(tmp_path, capsys, monkeypatch):
    """Pipes, files of no bytes or other content, a broken link: named and counted, past the limit a failure."""
    videos = write_videos(tmp_path / "videos", "ab")
    os.mkfifo(videos / "pipe.mp4")
    (videos / "empty.mp4").touch()
    (videos / "text.mp4").write_text("this is no video\n" * 100)
    (videos / "broken.mp4").symlink_to(tmp_path / "gone.mp4")
    (videos / "folder.mp4").mkdir()
    (videos / "notes.txt").write_text("x")
    (tmp_path / "list.csv").write_text(
        "video_id,path\nnull,/dev/zero\nlisted,videos/pipe.mp4\nroom,videos/folder.mp4\n"
    )
    arguments = ["--videos", str(videos), str(tmp_path / "list.csv"), "--fdir", str(tmp_path / "out")]
    arguments += ["--quiet", "--workers", "1"]
    main = load_script(monkeypatch).main
    assert main(arguments) == 1
    told = capsys.readouterr()
    assert "done 2, skipped 0, failed 7" in told.out and "78% of the videos failed" in told.err
    for video, reason in {
        "pipe": "it is a pipe or device",
        "listed": "it is a pipe or device",
        "null": "it is a pipe or device",
        "room": "it is a folder",
        "empty": "the file is empty",
        "text": "not a video",
        "broken": "no such video file",
    }.items():
        line = next(line for line in told.out.splitlines() if line.startswith(f"  failed: {video}: "))
        assert reason in line
    assert "left out: 1 files" in told.out and "notes.txt" in told.out
    assert main([*arguments, "--max-failed", "0.8"]) == 0


def test_an_impossible_time_out_is_refused(tmp_path, capsys, monkeypatch):
    for seconds in ("0", "-1", "nan"):
        assert (
            load_script(monkeypatch).main(["--videos", ".", "--fdir", str(tmp_path), "--video-timeout", seconds]) == 2
        )
        assert "--video-timeout" in capsys.readouterr().err


def test_a_link_in_the_output_folder_is_replaced_and_not_followed(tmp_path):
    """What a link in the output folder leads to is not ours to write."""
    items = [VideoItem("a", str(write_videos(tmp_path / "videos", "a") / "a.mp4"))]
    outside, out = tmp_path / "outside", tmp_path / "out"
    out.mkdir()
    outside.write_bytes(b"precious")
    (out / "a.npy").symlink_to(outside)
    assert extract_features(items, Levels(), out).done == 1
    assert outside.read_bytes() == b"precious" and not (out / "a.npy").is_symlink()
    (out / "manifest.journal").symlink_to(outside)
    extract_features(items, Levels(), out, ExtractionOptions(force=True))
    (out / ".lock").symlink_to(outside)
    with pytest.raises(StorageError, match=r"\.lock: is a link"):
        extract_features(items, Levels(), out)
    assert outside.read_bytes() == b"precious"
