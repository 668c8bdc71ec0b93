"""Names out of users' files stay below their folder: folders, absolute names, links, NUL, and what is allowed."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmpt.processors.crosstask import CrossTaskMetaProcessor
from mmpt.store.extraction import feature_path
from mmpt.store.features import FeatureStore
from mmpt.store.video_list import find_videos
from mmpt.utils.errors import UnsafePathError
from mmpt.utils.safe_paths import FOLLOW_LINKS, is_plain_name, path_below, plain_name

NOT_PLAIN = ["../../etc/passwd", "/etc/passwd", "a/b", "a\\b", "..", ".", "", "a\0b", ".hidden", None, 3, b"a", ["a"]]
OUTSIDE = ["../x", "a/../../x", "a/..", "..", "/etc/passwd", "", "a\0b", None, 3]


@pytest.mark.parametrize("name", NOT_PLAIN, ids=repr)
def test_what_is_no_plain_name(name):
    assert not is_plain_name(name)
    with pytest.raises(UnsafePathError, match=r"list\.csv, line 3: .* is not a video id"):
        plain_name(name, "list.csv, line 3")


@pytest.mark.parametrize("name", ["a", "a.b", "a..b", "é", "-rf", "~", "$HOME", "a:b", "a b", "con", "x" * 300])
def test_plain_names_are_taken_as_they_are(tmp_path, name):
    assert plain_name(name, "f") == name and path_below(tmp_path, name) == tmp_path / name


def test_names_that_no_file_can_have():
    assert is_plain_name("\udcff")  # a folder may hold it
    with pytest.raises(UnsafePathError, match="not a video id"):
        plain_name("\udcff", "f")  # an annotation may not name it


@pytest.mark.parametrize("name", OUTSIDE, ids=repr)
def test_paths_that_leave_the_root(tmp_path, name):
    with pytest.raises(UnsafePathError, match=rf"m\.json: .* is not the name of a file below {tmp_path}"):
        path_below(tmp_path, name, "m.json")


def test_sub_folders_stay_allowed_where_paths_are(tmp_path):
    assert path_below(tmp_path, "a/b/c.mp4") == tmp_path / "a" / "b" / "c.mp4"
    assert path_below(tmp_path, "./a") == tmp_path / "a"
    assert path_below(tmp_path, "a..b/..c") == tmp_path / "a..b" / "..c"


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A root with links: ``out.npy`` and ``away/`` lead out of it, ``same.npy`` and ``near/`` do not."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    outside.mkdir()
    for folder in (outside, root / "sub"):
        np.save(folder / "v.npy", np.zeros((2, 3), np.float16))
    (root / "out.npy").symlink_to(outside / "v.npy")
    (root / "same.npy").symlink_to("sub/v.npy")
    (root / "away").symlink_to(outside)
    (root / "near").symlink_to("sub")
    return root


@pytest.mark.parametrize("name", ["out.npy", "away/v.npy", "near/../away/v.npy"])
def test_links_that_lead_out(linked, name):
    with pytest.raises(UnsafePathError, match=r"through a link|is not the name"):
        path_below(linked, name)


def test_links_that_stay_inside_and_a_root_that_is_a_link(linked, tmp_path, monkeypatch):
    for name in ("same.npy", "near/v.npy", "absent.npy", "near/absent.npy"):
        assert path_below(linked, name) == linked / name
    (tmp_path / "alias").symlink_to(linked)
    assert path_below(tmp_path / "alias", "same.npy").exists()
    assert path_below(tmp_path / "alias", "sub/v.npy").exists()
    monkeypatch.setenv(FOLLOW_LINKS, "1")
    assert path_below(linked, "out.npy").exists() and path_below(linked, "away/v.npy").exists()


def test_features_behind_links(linked, monkeypatch):
    store = FeatureStore(linked)
    assert store["same"].shape == (2, 3)
    with pytest.raises(UnsafePathError, match=r"'out\.npy' leads out of .* MMPT_FOLLOW_LINKS=1"):
        store["out"]
    monkeypatch.setenv(FOLLOW_LINKS, "1")
    assert store["out"].shape == (2, 3)


def test_the_place_of_a_file_to_write(linked):
    """A link there is replaced, so that it may lead anywhere; a folder on the way may not."""
    assert feature_path(linked, "out") == linked / "out.npy"
    for name in ("away/v", "../v", "a\0"):
        with pytest.raises(UnsafePathError):
            feature_path(linked, name)


@pytest.mark.parametrize("path", ["../outside/a.mp4", "/etc/passwd", "away/a.mp4", "a/../../b.mp4"])
@pytest.mark.parametrize("kind", ["list.txt", "list.csv"])
def test_paths_of_lists_stay_below_the_root_that_is_given(linked, tmp_path, kind, path):
    listing = tmp_path / kind
    listing.write_text(f"video_id,path\nvid,{path}\n" if kind.endswith("csv") else f"{path}\n")
    with pytest.raises(UnsafePathError, match=r"list\.(csv, line 2|txt): '.*' (leads out of|is not the name)"):
        find_videos([listing], root=linked)
    listing.write_text("video_id,path\nvid,sub/deep/a.mp4\n" if kind.endswith("csv") else "sub/deep/a.mp4\n")
    assert find_videos([listing], root=linked)[0].path == str(linked / "sub" / "deep" / "a.mp4")


def test_annotations_of_crosstask_behind_a_link(tmp_path):
    for name in ("primary.txt", "videos.csv"):
        (tmp_path / name).write_text("1\nt\nurl\n2\na,b\n" if name == "primary.txt" else "1,vid,url\n")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "secret").write_text("1,0,3\n")
    (tmp_path / "annotations" / "1_vid.csv").symlink_to(tmp_path / "secret")
    config = {
        "split": "test",
        "test_path": str(tmp_path / "videos.csv"),
        "train_csv_path": str(tmp_path / "videos.csv"),
        "primary_path": str(tmp_path / "primary.txt"),
        "annotation_path": str(tmp_path / "annotations"),
        "n_train": 0,
    }
    with pytest.raises(UnsafePathError, match=r"'1_vid\.csv' leads out of .*annotations through a link"):
        CrossTaskMetaProcessor(config)
    (tmp_path / "annotations" / "1_vid.csv").unlink()
    (tmp_path / "annotations" / "1_vid.csv").write_text("1,0,3\n")
    assert len(CrossTaskMetaProcessor(config)) == 1


def test_ids_of_a_manifest_and_a_map_are_never_paths(tmp_path):
    """A crafted record of an extraction makes no file outside of the folder, and removes none."""
    from mmpt.store.extraction import extract_features
    from mmpt.store.video_list import VideoItem

    class Never:
        fps, size, resize, dim, pad = 4, 16, 20, 4, "zero"

        def provenance(self):
            return {}

        def __call__(self, frames):
            raise AssertionError

    out = tmp_path / "out"
    extract_features([], Never(), out)
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["videos"]["../victim"] = {"status": "done", "shape": [1, 4]}
    (out / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "victim.npy").write_bytes(b"precious")
    summary = extract_features([VideoItem("../victim", str(tmp_path / "x.mp4"))], Never(), out)
    assert summary.failed == 1 and (tmp_path / "victim.npy").read_bytes() == b"precious"
