"""Extraction from real small files: what is written, counted, resumed and refused."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from mmpt.store.extraction import ExtractionOptions, extract_features
from mmpt.store.extraction_manifest import Manifest
from mmpt.store.features import FeatureStore
from mmpt.store.video_list import VideoItem, find_videos, split_duplicates
from mmpt.utils.errors import DataError
from mmpt.utils.files import sole_writer

av = pytest.importorskip("av")

SCRIPT = Path(__file__).parents[2] / "scripts" / "video_feature_extractor" / "extract.py"


def load_main():
    spec = importlib.util.spec_from_file_location("extract_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


main = load_main()


def write_video(path, levels, fps=8, width=48, height=36):
    """A video of flat grey frames of these levels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 1_000_000
        for level in levels:
            picture = np.full((height, width, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


class Levels:
    """An encoder whose feature is the grey level of each frame of the second: what goes in can be read back."""

    fps, size, resize, dim, pad = 4, 16, 20, 4, "zero"

    def __init__(self, scale=1.0, pad="zero", fail_after=None):
        self.scale, self.pad, self.calls, self.fail_after = scale, pad, 0, fail_after
        self.batches = []

    def provenance(self):
        return {"encoder": "levels", "scale": self.scale}

    def __call__(self, frames):
        assert frames.dtype == np.uint8
        assert frames.shape[1:] == (4, 16, 16, 3)
        if self.fail_after is not None and self.calls >= self.fail_after:
            raise KeyboardInterrupt
        self.calls += 1
        self.batches.append(len(frames))
        return (frames.mean((2, 3, 4)) * self.scale).astype(np.float32)


def items_of(folder):
    return find_videos([folder])


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    write_video(folder / "a.mp4", [40] * 8 + [80] * 8 + [120] * 6)  # 2.75 s
    write_video(folder / "below" / "b.avi", [200] * 40)  # 5 s
    write_video(folder / "one.mp4", [160])
    return folder


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_features_are_those_of_each_second(videos, tmp_path, workers):
    encoder = Levels()
    options = ExtractionOptions(workers=workers, batch_size=2)
    summary = extract_features(items_of(videos), encoder, tmp_path / "out", options)
    assert (summary.done, summary.skipped, summary.failed) == (3, 0, 0)
    a = np.load(tmp_path / "out" / "a.npy")
    assert a.dtype == np.float16
    expected = np.array([[40] * 4, [80] * 4, [120, 120, 120, 0]])  # the last quarter is black
    assert np.abs(a - expected).max() < 4
    assert np.load(tmp_path / "out" / "b.npy").shape == (5, 4)
    one = np.load(tmp_path / "out" / "one.npy")
    assert one.shape == (1, 4)
    assert np.abs(one - [160, 0, 0, 0]).max() < 4
    assert max(encoder.batches) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.npy",
        "b.npy",
        "manifest.json",
        "one.npy",
    ]


def test_padding_by_repetition(videos, tmp_path):
    extract_features(items_of(videos), Levels(pad="repeat"), tmp_path / "out", ExtractionOptions(workers=0))
    assert np.abs(np.load(tmp_path / "out" / "one.npy") - [160] * 4).max() < 4


def test_manifest_records_each_video_and_the_settings_once(videos, tmp_path):
    (videos / "bad.mp4").write_bytes(b"not a video at all")
    extract_features(items_of(videos), Levels(), tmp_path / "out")
    manifest = manifest_of(tmp_path / "out")
    assert manifest["provenance"]["encoder"] == "levels"
    assert manifest["provenance"]["decoder"].startswith("PyAV")
    a, bad = manifest["videos"]["a"], manifest["videos"]["bad"]
    assert (a["status"], a["shape"], a["seconds"]) == ("done", [3, 4], 2.75)
    status = (videos / "a.mp4").stat()
    assert (a["source_bytes"], a["source_mtime"]) == (status.st_size, status.st_mtime)
    assert bad["status"] == "failed"
    assert "bad.mp4" in bad["reason"]
    assert not (tmp_path / "out" / "bad.npy").exists()


def test_second_run_skips_and_a_changed_video_is_done_again(videos, tmp_path):
    out = tmp_path / "out"
    extract_features(items_of(videos), Levels(), out)
    encoder = Levels()
    again = extract_features(items_of(videos), encoder, out)
    assert (again.done, again.skipped, encoder.calls) == (0, 3, 0)
    write_video(videos / "a.mp4", [10] * 8)
    (out / "b.npy").write_bytes((out / "b.npy").read_bytes()[:40])  # cut
    third = extract_features(items_of(videos), Levels(), out)
    assert (third.done, third.skipped) == (2, 1)
    assert np.load(out / "a.npy").shape == (1, 4)
    assert np.load(out / "b.npy").shape == (5, 4)
    (videos / "a.mp4").write_bytes(b"damaged now")
    fourth = extract_features(items_of(videos), Levels(), out)
    assert (fourth.failed, fourth.skipped) == (1, 2)
    assert not (out / "a.npy").exists()  # features of a file that is gone


def test_interrupted_run_goes_on(videos, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        extract_features(items_of(videos), Levels(fail_after=1), out, ExtractionOptions(workers=1))
    assert threading.active_count() < 10
    finished = {path.stem for path in out.glob("*.npy")}
    assert finished == {name for name, entry in manifest_of(out)["videos"].items() if entry["status"] == "done"}
    summary = extract_features(items_of(videos), Levels(), out)
    assert summary.skipped == len(finished) == 1
    assert summary.done == 2


def test_journal_of_a_killed_run_counts(videos, tmp_path):
    out = tmp_path / "out"
    extract_features(items_of(videos), Levels(), out)
    manifest = manifest_of(out)
    (out / "manifest.json").unlink()  # as if killed before the end: only the journal is there, its last line torn
    lines = [
        {"provenance": manifest["provenance"]},
        *({"id": key, **entry} for key, entry in manifest["videos"].items()),
    ]
    text = "\n".join(map(json.dumps, lines))
    (out / "manifest.journal").write_text(text[:-5])
    (out / ".a.npy.xyz.tmp").write_bytes(b"half")
    summary = extract_features(items_of(videos), Levels(), out)
    assert (summary.done, summary.skipped) == (1, 2)  # the torn line's video is done again
    assert [reason for _, reason in summary.notes] == ["features without a record were there: extracted again"]
    assert not list(out.glob(".*.tmp"))
    assert not (out / "manifest.journal").exists()


def test_other_settings_are_refused(videos, tmp_path):
    out = tmp_path / "out"
    extract_features(items_of(videos), Levels(), out)
    before = (out / "a.npy").read_bytes()
    with pytest.raises(DataError, match=r"scale 1\.0, now 2\.0"):
        extract_features(items_of(videos), Levels(scale=2.0), out)
    with pytest.raises(DataError, match="hflip False, now True"):
        extract_features(items_of(videos), Levels(), out, ExtractionOptions(hflip=True))
    assert (out / "a.npy").read_bytes() == before
    (out / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json"):
        extract_features(items_of(videos), Levels(), out)


def test_two_runs_do_not_write_into_one_folder(tmp_path):
    lock = tmp_path / "out" / ".lock"
    with sole_writer(lock), pytest.raises(DataError, match="another run is writing there"):
        extract_features([], Levels(), tmp_path / "out")
    assert extract_features([], Levels(), tmp_path / "out").done == 0
    assert not lock.exists()


def test_an_id_used_twice_is_counted_not_overwritten(videos, tmp_path):
    write_video(videos / "z" / "a.mkv", [250] * 8)
    summary = extract_features(items_of(videos), Levels(), tmp_path / "out")
    assert summary.failed == 1
    assert "already that of" in summary.failures[0][1]
    assert np.load(tmp_path / "out" / "a.npy").shape == (3, 4)
    same = VideoItem("a", str(videos / "a.mp4"))
    assert split_duplicates([same, same]) == ([same], [])


def test_features_that_do_not_fit_are_not_written(videos, tmp_path):
    summary = extract_features(items_of(videos), Levels(scale=1e4), tmp_path / "half")
    assert summary.failed == 3
    assert "--half_precision 0" in summary.failures[0][1]
    assert not list((tmp_path / "half").glob("*.npy"))
    full = ExtractionOptions(half_precision=False)
    assert extract_features(items_of(videos), Levels(scale=1e4), tmp_path / "full", full).done == 3
    assert np.load(tmp_path / "full" / "a.npy").dtype == np.float32
    assert extract_features(items_of(videos), Levels(scale=float("nan")), tmp_path / "nan").failed == 3


def test_an_error_of_the_network_is_not_a_failed_video(videos, tmp_path):
    class Broken(Levels):
        def __call__(self, frames):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        extract_features(items_of(videos), Broken(), tmp_path / "out", ExtractionOptions(workers=2))
    assert not list((tmp_path / "out").glob("*.npy"))


def test_features_can_be_read_by_the_store(videos, tmp_path):
    extract_features(items_of(videos), Levels(), tmp_path / "out")
    assert FeatureStore(tmp_path / "out").ids() == ["a", "b", "one"]
    with pytest.raises(SystemExit):
        main(["--videos", str(videos), "--fdir", str(tmp_path / "x"), "--type", "conv3d", "--shards", "2"])


def test_features_of_unknown_origin_are_extracted_again(videos, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    np.save(out / "a.npy", np.full((3, 4), 7, np.float16))
    summary = extract_features(items_of(videos), Levels(), out)
    assert (summary.done, summary.skipped) == (3, 0)
    assert [video for video, _ in summary.notes] == ["a"]
    assert "note: a: features without a record" in summary.describe()
    assert np.abs(np.load(out / "a.npy")[0] - 40).max() < 4
    assert manifest_of(out)["videos"]["a"]["status"] == "done"


def test_force_extracts_again(videos, tmp_path):
    extract_features(items_of(videos), Levels(), tmp_path / "out")
    assert extract_features(items_of(videos), Levels(), tmp_path / "out").skipped == 3
    again = extract_features(items_of(videos), Levels(), tmp_path / "out", ExtractionOptions(force=True))
    assert (again.done, again.skipped) == (3, 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_any_exception_of_one_video_is_its_own_failure(videos, tmp_path, monkeypatch, workers):
    from mmpt.store import extraction

    real = extraction.stream_frames

    def broken(path, *args, **kwargs):
        if path.endswith("b.avi"):
            raise ZeroDivisionError("Fraction(1, 0)")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(extraction, "stream_frames", broken)
    summary = extract_features(items_of(videos), Levels(), tmp_path / "out", ExtractionOptions(workers=workers))
    assert (summary.done, summary.failed) == (2, 1)
    assert "b.avi: decoding failed (ZeroDivisionError: Fraction(1, 0))" in summary.failures[0][1]


@pytest.mark.parametrize("times", [{"start": float("nan")}, {"end": float("inf")}, {"start": -1.0}, {"end": 0.0}])
def test_impossible_times_are_failures(videos, tmp_path, times):
    items = [VideoItem("clip", str(videos / "a.mp4"), **times), *items_of(videos)]
    summary = extract_features(items, Levels(), tmp_path / "out")
    assert (summary.done, [video for video, _ in summary.failures]) == (3, ["clip"])


def test_names_that_cannot_be_kept_are_failures(videos, tmp_path):
    bad = [VideoItem("x" * 240, str(videos / "a.mp4")), VideoItem("\udcff", str(videos / "a.mp4"))]
    bad.append(VideoItem(".a", str(videos / "one.mp4")))
    bad += [VideoItem("a", "/gone/\udcfe.mp4"), VideoItem("a", str(videos / "a.mp4"))]
    summary = extract_features([*items_of(videos), *bad], Levels(), tmp_path / "out")
    assert (summary.done, summary.failed) == (3, 4)
    summary.describe().encode()


def test_truncated_videos_and_ends_beyond_the_video_are_named(videos, tmp_path):
    whole = write_video(videos / "cut.avi", [(37 * i) % 250 for i in range(80)]).read_bytes()
    (videos / "cut.avi").write_bytes(whole[: len(whole) // 2])
    items = [*items_of(videos), VideoItem("late", str(videos / "a.mp4"), 1.0, 60.0)]
    items.append(VideoItem("inside", str(videos / "a.mp4"), 1.0, 2.75))
    summary = extract_features(items, Levels(), tmp_path / "out")
    assert summary.truncated == ["cut"]
    assert [video for video, _ in summary.warnings] == ["cut", "late"]
    told = summary.describe()
    assert "truncated 1, warnings 2" in told and "  truncated: cut\n" in told
    assert "warning: late: ends at 60.00 s, but the video at 2.75 s" in told
    entries = manifest_of(tmp_path / "out")["videos"]
    assert entries["cut"]["truncated"] and entries["late"]["warnings"]
    assert "warnings" not in entries["inside"]
    assert "skipped: 6 whose features are there" in extract_features(items, Levels(), tmp_path / "out").describe()


def test_csv_and_list(videos, tmp_path):
    (tmp_path / "clips.csv").write_text(
        "video_id,path,start,end\nfirst,videos/a.mp4,0,1\nrest,videos/a.mp4,1,\nb,videos/below/b.avi,,\n"
    )
    summary = extract_features(find_videos([tmp_path / "clips.csv"]), Levels(), tmp_path / "out")
    assert summary.done == 3
    assert np.load(tmp_path / "out" / "first.npy").shape == (1, 4)
    rest = np.load(tmp_path / "out" / "rest.npy")
    assert np.abs(rest - [[80] * 4, [120, 120, 120, 0]]).max() < 4
    (tmp_path / "list.txt").write_text(f"videos/a.mp4\n\n{videos}/below/b.avi\n")
    assert [item.video_id for item in find_videos([tmp_path / "list.txt"])] == ["a", "b"]
    assert [item.video_id for item in find_videos([videos / "a.mp4"])] == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,path\na,b\n", "no column video_id"),
        ("video_id,path\n../a,b\n", "cannot be a file name"),
        ("video_id,path\na,\n", "line 2: a row without a path"),
        ("video_id,path,start\na,b,soon\n", "list.csv, line 2, video 'a': start is 'soon'"),
        ("video_id,path,start\na,b,nan\n", "list.csv, line 2, video 'a': start is 'nan'"),
        ("video_id,path,end\na,b,1\nc,b,inf\n", "list.csv, line 3, video 'c': end is 'inf'"),
        ("video_id,path,start\na,b,-1\n", "video 'a': start is '-1'"),
        ("video_id,path,start,end\na,b,2,2\n", "video 'a': end 2.0 is not later than start 2.0"),
        ("video_id,path\n.a,b\n", "cannot be a file name"),
        ("video_id,path\na,b\0\n", "cannot be that of a file"),
        ("video_id,path\n", "no videos in"),
    ],
)
def test_bad_lists_name_the_place(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        find_videos([tmp_path / "list.csv"])


def test_missing_source_and_ignored_files(tmp_path, videos):
    with pytest.raises(DataError, match="no such video, folder"):
        find_videos([tmp_path / "absent"])
    (videos / "notes.txt").write_text("x")
    (videos / "._a.mp4").write_text("x")
    left_out = []
    assert [item.video_id for item in find_videos([videos], left_out)] == ["a", "b", "one"]
    assert left_out == [str(videos / "notes.txt")]
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "only.txt").write_text("x")
    with pytest.raises(DataError, match="no videos in .*1 files do not look like videos"):
        find_videos([tmp_path / "texts"])
    for name in ("latin.csv", "latin.txt"):
        (tmp_path / name).write_bytes(b"video_id,path\n\xe9,a.mp4\n")
        with pytest.raises(DataError, match=name):
            find_videos([tmp_path / name])


def test_manifest_survives_reopening(tmp_path):
    manifest = Manifest(tmp_path, {"encoder": "x"})
    manifest.record("v", {"status": "done"})
    assert Manifest(tmp_path, {"encoder": "x"}).entries == {"v": {"status": "done"}}
    with pytest.raises(DataError, match="other settings"):
        Manifest(tmp_path, {"encoder": "y"})


def test_command_counts_and_exit_codes(videos, tmp_path, capsys):
    pytest.importorskip("mmpt.modules.conv3d")
    arguments = ["--vdir", str(videos), "--fdir", str(tmp_path / "out"), "--type", "conv3d", "--dim", "16", "--quiet"]
    arguments += ["--num_decoding_thread", "1", "--batch_size", "4", "--device", "cpu"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("done 3, skipped 0, failed 0, truncated 0, warnings 0")
    assert np.load(tmp_path / "out" / "a.npy").shape == (3, 16)
    (videos / "bad.mp4").write_bytes(b"no video")
    assert main(arguments) == 1  # 1 of 4 is more than a tenth
    captured = capsys.readouterr()
    assert "done 0, skipped 3, failed 1" in captured.out
    assert "bad.mp4" in captured.out
    assert "25% of the videos failed" in captured.err
    assert main([*arguments, "--max-failed", "0.25"]) == 0
    assert main([*arguments, "--random-init", "5"]) == 2
    assert "random_init 0, now 5" in capsys.readouterr().err
    assert main([*arguments, "--l2_normalize", "1"]) == 2


def test_command_refuses_mistakes(videos, tmp_path, capsys):
    arguments = ["--videos", str(videos), "--fdir", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "--weights" in capsys.readouterr().err
    assert main([*arguments, "--type", "s3d", "--weights", str(tmp_path / "absent.pth")]) == 2
    assert "absent.pth: no such file" in capsys.readouterr().err
    assert main([*arguments, "--type", "conv3d", "--batch_size", "0"]) == 2
    for flags, message in (
        (["--type", "conv3d", "--max-failed", "1.5"], "--max-failed 1.5"),
        (["--type", "conv3d", "--max-failed", "nan"], "--max-failed nan"),
        (["--type", "conv3d", "--dim", "0"], "--dim 0"),
        (["--type", "hf", "--model", "x", "--fps", "-1"], "--fps -1"),
        (["--type", "hf", "--model", "x", "--fps", "0"], "--fps 0"),
    ):
        assert main([*arguments, *flags]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "file").write_text("x")
    for folder in ("file", "file/below"):
        assert main(["--videos", str(videos), "--fdir", str(tmp_path / folder), "--type", "conv3d"]) == 2
        assert "is not a folder" in capsys.readouterr().err
    for content in ("notweights", "xyz", "{}", "\x80"):
        (tmp_path / "w.pth").write_text(content)
        assert main([*arguments, "--weights", str(tmp_path / "w.pth")]) == 2
        assert "w.pth: damaged" in capsys.readouterr().err
    assert main(["--videos", str(tmp_path / "nothing"), "--fdir", str(tmp_path / "out")]) == 2
    assert not list(tmp_path.glob("out/*.npy"))


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left"), 2)])
def test_interruption_and_errors_of_the_system_are_one_line(videos, tmp_path, capsys, monkeypatch, error, code):
    def broken(*_, **__):
        raise error

    monkeypatch.setitem(main.__globals__, "extract_features", broken)
    assert main(["--videos", str(videos), "--fdir", str(tmp_path / "out"), "--type", "conv3d", "--quiet"]) == code
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_left_out_files_and_dashed_flags(videos, tmp_path, capsys):
    (videos / "notes.md").write_text("x")
    flags = ["--l2-normalize", "1", "--half-precision", "0", "--hflip", "1", "--num-decoding-thread", "1", "--force"]
    arguments = ["--videos", str(videos), "--fdir", str(tmp_path / "out"), "--type", "conv3d", "--dim", "8", "--quiet"]
    for _ in range(2):  # with --force nothing is skipped
        assert main([*arguments, *flags]) == 0
        out = capsys.readouterr().out
        assert "done 3, skipped 0" in out and "left out: 1 files" in out and "notes.md" in out
    assert np.load(tmp_path / "out" / "a.npy").dtype == np.float32


def test_script_shows_help(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--help"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
        cwd=tmp_path,
    )
    for flag in (
        "--vdir",
        "--fdir",
        "--type",
        "--half_precision",
        "--num_decoding_thread",
        "--l2_normalize",
        "--hflip",
    ):
        assert flag in done.stdout


RULE = "sys.path.insert(0, str(Path(__file__).resolve().parents[2]))"


@pytest.mark.parametrize("script", sorted(SCRIPT.parents[1].glob("*/*.py")), ids=lambda path: path.stem)
def test_scripts_find_the_checkout_they_lie_in(script):
    text = script.read_text()
    if "__main__" not in text or not any(f"\nfrom {name}" in text for name in ("mmpt", "scripts")):
        pytest.skip("imported only, or free of the package")
    first = min(text.index(f"\nfrom {name}") for name in ("mmpt", "scripts") if f"\nfrom {name}" in text)
    assert 0 <= text.find(RULE) < first
