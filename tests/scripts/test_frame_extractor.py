"""The commands of scripts/frame_extractor: flags, what they print, exit codes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmpt.store.frame_store import FrameStore
from mmpt.store.images import decode_image
from scripts.frame_extractor import export_tsv, extract_frames, import_frames

pytest.importorskip("av")

FOLDER = Path(__file__).parents[2] / "scripts" / "frame_extractor"


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    import av

    folder = tmp_path / "videos"
    folder.mkdir()
    for name in "ab":
        with av.open(str(folder / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=8)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for level in range(16):
                picture = np.full((48, 64, 3), 10 * level, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    return folder


def test_from_videos_to_a_tsv_and_back(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    arguments = ["--path", str(videos), "--store", str(store), "--sample", "4", "--quiet"]
    assert extract_frames.main([*arguments, "--size", "24", "--quality", "90"]) == 0
    assert capsys.readouterr().out.startswith("done 2, skipped 0, failed 0, truncated 0, warnings 0")
    frames = FrameStore(store)["a"]
    assert [round(decode_image(frame).mean() / 10) for frame in frames] == [int(16 / 5 * (i + 1)) for i in range(4)]
    assert decode_image(frames[0]).shape == (24, 32, 3)
    tsv = tmp_path / "img.tsv"
    export = ["--store", str(store), "--output", str(tsv), "--layout", "lavender", "--quiet"]
    assert export_tsv.main(export) == 0
    assert "frames from column 2 on" in capsys.readouterr().out
    assert import_frames.main(["--input", str(tsv), "--store", str(tmp_path / "again"), "--quiet"]) == 0
    told = capsys.readouterr().out
    assert "done 2" in told and "frames from column 2 on (the id is column 0), as its first rows show" in told
    again = FrameStore(tmp_path / "again")
    assert [frame.tobytes() for frame in again["a"]] == [frame.tobytes() for frame in frames]


def test_failures_and_mistakes(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (videos / "bad.mp4").write_bytes(b"no video")
    (videos / "notes.md").write_text("x")
    arguments = ["--videos", str(videos), "--store", str(tmp_path / "store"), "--quiet"]
    assert extract_frames.main(arguments) == 1
    captured = capsys.readouterr()
    assert "33% of the videos failed" in captured.err and "left out: 1 files" in captured.out
    assert extract_frames.main([*arguments, "--max-failed", "0.5"]) == 0
    for flags, message in (
        (["--frames", "0"], "--frames 0"),
        (["--fps", "-1"], "--fps -1"),
        (["--fps", "1", "--frames", "3"], "not both"),
        (["--fps", "1", "--seek"], "--seek"),
        (["--quality", "100"], "--quality 100"),
        (["--max-failed", "2"], "--max-failed 2"),
        (["--frames", "4"], "frames 5, now 4"),
        (["--videos-per-shard", "0"], "--videos-per-shard 0"),
    ):
        assert extract_frames.main([*arguments, *flags]) == 2
        assert message in capsys.readouterr().err
    assert import_frames.main(["--input", str(videos / "no.tsv"), "--store", str(tmp_path / "x")]) == 2
    assert "no.tsv: no such file" in capsys.readouterr().err
    arguments = ["--input", str(videos / "no.tsv"), "--store", str(tmp_path / "x"), "--videos-per-shard", "0"]
    assert import_frames.main(arguments) == 2 and "--videos-per-shard 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        import_frames.main(["--input", "x.tsv", "--store", "x", "--frames-from-column", "second"])
    assert "'second' is neither auto nor the number of a column" in capsys.readouterr().err
    assert export_tsv.main(["--store", str(tmp_path / "none"), "--output", str(tmp_path / "x.tsv")]) == 2
    assert "no frame store" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["extract_frames", "import_frames", "export_tsv"])
def test_scripts_run_from_anywhere(name: str, tmp_path: Path) -> None:
    argv = [sys.executable, str(FOLDER / f"{name}.py"), "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=tmp_path, env={"PATH": "/usr/bin"})
    assert "--store" in done.stdout
