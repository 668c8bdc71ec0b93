"""A video that cannot be read is not opened again until it changes."""

import os

import pytest
from fake_clips import FakePipeline, write
from test_clip_index import held, run, same, wanted

from mmpt.store.extraction_manifest import read_entries


def test_a_broken_video_is_skipped_until_it_changes(tmp_path):
    videos, out, pipeline = write(tmp_path / "v", a="red 3", bad="broken"), tmp_path / "index", FakePipeline()
    first = run(videos, out, pipeline)
    assert (len(first.failures), first.failed_before, first.failed_fraction) == (1, 0, 1 / 2)
    second = run(videos, out, pipeline)
    assert pipeline.encoded == ["a.mp4", "bad.mp4"]  # nothing was opened again
    assert (second.failures, second.failed_before, second.unchanged, second.failed_fraction) == ([], 1, 1, 1 / 2)
    assert "failed before 1" in second.describe() and "--retry-failed" in second.describe()
    third = run(videos, out, pipeline, retry_failed=True)
    assert pipeline.encoded[2:] == ["bad.mp4"] and (len(third.failures), third.failed_before) == (1, 0)
    write(videos, bad="blue 2")
    os.utime(videos / "bad.mp4", (5, 5))
    assert run(videos, out, pipeline).added == 1
    same(held(out), wanted(a="red 3", bad="blue 2"))


def test_a_broken_video_that_is_gone_is_forgotten(tmp_path):
    videos, out = write(tmp_path / "v", a="red 3", bad="broken"), tmp_path / "index"
    run(videos, out)
    (videos / "bad.mp4").unlink()
    assert run(videos, out).failed_before == 0
    assert read_entries(out / "data_00000")["0:bad.mp4"]["status"] == "removed"


def test_what_may_pass_by_itself_is_tried_again(tmp_path, monkeypatch):
    videos, out = write(tmp_path / "v", a="red 3"), tmp_path / "index"

    def unreadable(path):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("mmpt.api.search.building.file_sha256", unreadable)
        assert len(run(videos, out).failures) == 1
    summary = run(videos, out)
    assert (summary.added, summary.failed_before) == (1, 0)
    assert summary.failed_fraction == pytest.approx(0)
