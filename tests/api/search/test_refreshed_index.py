"""An index that is open while others write it: what a search sees, and when."""

import shutil

import numpy as np
import pytest
from fake_clips import FakePipeline, directions, write

from mmpt.api.search import ClipIndex, index_folder
from mmpt.api.search.nearest import Nearest
from mmpt.api.search.writer import compact, writing_index
from mmpt.utils.errors import DataError


def run(videos, out, name="one"):
    return index_folder(FakePipeline(name), videos, out, clip_seconds=4, thumbnail_pixels=0, workers=1)


def best(index, text):
    (hit,) = index.search(text, top=1)
    return hit.video.rpartition("/")[2] if hit.score > 0.99 else None


@pytest.fixture
def opened(tmp_path):
    videos = write(tmp_path / "v", a="red 3", b="blue 2")
    run(videos, tmp_path / "index")
    return videos, ClipIndex.open(tmp_path / "index", FakePipeline())


def test_it_is_read_anew_after_a_run_that_changed_it_and_only_then(opened):
    videos, index = opened
    before = index.snapshot
    assert not index.refresh_if_changed() and index.snapshot is before
    write(videos, c="green 1")
    (videos / "b.mp4").unlink()
    run(videos, index.folder)
    assert best(index, "green") is None and best(index, "blue") == "b.mp4"
    assert index.refresh_if_changed() and not index.refresh_if_changed()
    assert best(index, "green") == "c.mp4" and best(index, "blue") is None and len(index) == 4


def test_a_compaction_and_another_folder_are_seen(opened, tmp_path):
    videos, index = opened
    (videos / "a.mp4").unlink()
    with writing_index(index.folder) as writer:
        writer.remove("0:a.mp4")
    compact(index.folder)
    assert index.refresh_if_changed() and (len(index), index.settings.data) == (2, "data_00001")
    run(write(tmp_path / "w", d="violet 1"), index.folder)
    assert index.refresh_if_changed() and index.roots == [tmp_path / "v", tmp_path / "w"]
    assert best(index, "violet") == "d.mp4"


def test_what_a_run_under_way_commits_is_seen_at_its_end(opened):
    index = opened[1]
    with writing_index(index.folder) as writer:
        writer.add("0:c.mp4", np.zeros(1), np.ones(1), directions("green"), [], {})
        assert not index.refresh_if_changed()
    assert index.refresh_if_changed() and best(index, "green") == "c.mp4"


def test_a_search_under_way_keeps_what_it_began_with(opened, monkeypatch):
    """Another thread refreshes between the nearest rows and their videos: the rows are not those of the new data."""
    videos, index = opened
    found = Nearest.search

    def slowly(self, queries, count):
        rows = found(self, queries, count)
        (videos / "a.mp4").unlink(missing_ok=True)
        run(videos, index.folder)  # more than half is gone: compacted, so that rows have other videos
        assert index.refresh_if_changed() or self is not before
        return rows

    before = index.nearest
    monkeypatch.setattr(Nearest, "search", slowly)
    assert best(index, "blue") == "b.mp4" and index.nearest is not before
    assert best(index, "blue") == "b.mp4" and best(index, "red") is None


def test_an_index_that_cannot_be_read_anew_is_kept_as_it_was(opened):
    videos, index = opened
    shutil.rmtree(index.folder)
    with pytest.raises(DataError, match="no index of clips"):
        index.refresh_if_changed()
    run(videos, index.folder, "two")
    for _ in range(2):
        with pytest.raises(DataError, match="made anew"):
            index.refresh_if_changed()
        assert best(index, "red") == "a.mp4" and index.settings.fingerprint == "fingerprint-one"
