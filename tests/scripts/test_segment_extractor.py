"""scripts/segment_extractor/extract_segments.py: flags, what it prints, exit codes."""

import json
from pathlib import Path

import pytest

from mmpt.store.segment_store import SegmentStore
from mmpt.utils.subword_training import train_subwords
from scripts.segment_extractor.extract_segments import build_parser, main
from tests.store.sound_samples import write_sound_video

pytest.importorskip("av")


def test_from_videos_and_transcripts_to_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "texts").mkdir()
    for name in "ab":
        write_sound_video(tmp_path / "videos" / f"{name}.mp4", 7)
    (tmp_path / "texts" / "a.json").write_text(json.dumps([["hello", 1, 2]]))
    train_subwords("reserve", ["hello you"] * 2, 300, tmp_path / "tokenizer")
    arguments = ["--kind", "reserve", "--videos", str(tmp_path / "videos"), "--transcripts", str(tmp_path / "texts")]
    arguments += ["--tokenizer", str(tmp_path / "tokenizer"), "--store", str(tmp_path / "out"), "--quiet"]
    assert main(arguments) == 1
    told = capsys.readouterr()
    assert told.out.startswith("done 1, skipped 0, failed 1") and "no transcript of video 'b'" in told.out
    assert "--max-failed" in told.err
    assert main([*arguments, "--max-failed", "0.5"]) == 0
    assert "skipped: 1 whose segments are there" in capsys.readouterr().out
    assert main([*arguments, "--missing-as-speechless"]) == 0
    assert SegmentStore(tmp_path / "out").ids == ["a", "b"]
    assert main([*arguments, "--quality", "0"]) == main([*arguments, "--no-sound"]) == 2
    assert "--quality 0" in (told := capsys.readouterr().err) and "other settings" in told


def test_the_help_has_an_example() -> None:
    assert "mmpt extract segments --kind" in build_parser().format_help()
