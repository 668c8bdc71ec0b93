"""Visual tokens on disk: written, found, imported from the published pickles, refused where they do not fit."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.store.visual_tokens import VisualTokenStore, import_tokens, new_shard, open_tokens
from mmpt.utils.errors import DataError


def codes(video_id: str, frames: int, side: int = 7) -> np.ndarray:
    return np.random.default_rng(sum(video_id.encode())).integers(0, 8192, (frames, side, side)).astype(np.uint16)


def write(folder: Path, side: int = 7, **videos: int) -> None:
    with new_shard(folder, (side, side), {"tool": "test"}) as writer:
        for name, frames in videos.items():
            writer.append(codes(name, frames, side), name)


def dump(path: Path, value: Any) -> Path:
    path.write_bytes(pickle.dumps(value))
    return path


def test_tokens_of_all_shards_are_found_and_later_ones_count(tmp_path: Path) -> None:
    write(tmp_path, a=3, b=1)
    write(tmp_path, c=2, b=4)
    store = VisualTokenStore(tmp_path)
    assert (len(store), list(store), store.grid, "c" in store, "d" in store) == (
        3,
        ["a", "b", "c"],
        (7, 7),
        True,
        False,
    )
    assert all(np.array_equal(store[name], codes(name, frames)) for name, frames in (("a", 3), ("b", 4), ("c", 2)))
    assert [made["tool"] for made in store.producers()] == ["test", "test"]
    with pytest.raises(DataError, match=r"video 'aa': not among the 3 .* Did you mean 'a'"):
        store["aa"]


def test_a_store_is_pickled_as_its_path_and_opened_once(tmp_path: Path) -> None:
    write(tmp_path, a=2)
    store = open_tokens(tmp_path)
    assert open_tokens(tmp_path) is store and len(pickle.dumps(store)) < 300
    assert pickle.loads(pickle.dumps(store)) is store
    write(tmp_path, b=2)
    assert "b" in open_tokens(tmp_path)


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no visual tokens there \(dataset\.vq_path\)"):
        VisualTokenStore(tmp_path)
    write(tmp_path, a=2)
    write(tmp_path, side=12, b=2)
    with pytest.raises(DataError, match="frames of one size"):
        VisualTokenStore(tmp_path)


def test_published_files_of_both_kinds_are_imported(tmp_path: Path) -> None:
    array = dump(tmp_path / "vq_cc3m.pkl", {"a": codes("a", 1).astype(np.int16), "b": codes("b", 1).astype(np.int16)})
    listed = dump(tmp_path / "vq_webvid.pkl", {"w": list(codes("w", 4)), 17: list(codes("17", 4))})
    assert import_tokens(array, tmp_path / "vq") == 2
    assert import_tokens(listed, tmp_path / "vq", videos_per_shard=1) == 2
    assert import_tokens(array, tmp_path / "vq") == 0  # imported before
    store = VisualTokenStore(tmp_path / "vq")
    for name, frames in (("a", 1), ("b", 1), ("w", 4), ("17", 4)):
        assert store[name].dtype == np.uint16 and np.array_equal(store[name], codes(name, frames))


def test_a_killed_import_goes_on_with_the_videos_that_are_left(tmp_path: Path, monkeypatch) -> None:
    file = dump(tmp_path / "vq.pkl", {name: codes(name, 2) for name in "dcba"})
    opened: list[Path] = []

    def killed_at_the_third(folder: Path, *rest: Any) -> Any:
        opened.append(folder)
        if len(opened) == 3:
            raise KeyboardInterrupt
        return new_shard(folder, *rest)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("mmpt.store.visual_tokens.new_shard", killed_at_the_third)
        import_tokens(file, tmp_path / "vq", videos_per_shard=1)
    assert list(VisualTokenStore(tmp_path / "vq")) == ["d", "c"]
    assert import_tokens(file, tmp_path / "vq", videos_per_shard=1) == 2
    assert list(VisualTokenStore(tmp_path / "vq")) == ["d", "c", "b", "a"]
    assert import_tokens(file, tmp_path / "vq") == 0


def test_another_grid_is_refused_before_it_makes_the_folder_unreadable(tmp_path: Path) -> None:
    write(tmp_path / "vq", a=2)
    file = dump(tmp_path / "vq.pkl", {"b": codes("b", 2, side=12)})
    with pytest.raises(DataError, match=r"vq\.pkl: \(12, 12\) tokens a frame, those in .*vq have \(7, 7\)"):
        import_tokens(file, tmp_path / "vq")
    assert list(VisualTokenStore(tmp_path / "vq")) == ["a"]


class Exploit:
    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.made),)


def test_a_pickle_that_runs_code_is_refused_and_does_nothing(tmp_path: Path) -> None:
    bad = dump(tmp_path / "vq.pkl", {"a": Exploit(tmp_path / "made")})
    with pytest.raises(DataError, match=r"vq\.pkl.*mkdir"):
        import_tokens(bad, tmp_path / "vq")
    assert not (tmp_path / "made").exists() and not (tmp_path / "vq").exists()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([1, 2], "expected a mapping"),
        ({"a": np.zeros((2, 7), np.int16)}, r"video 'a': int16 of shape \(2, 7\)"),
        ({"a": np.zeros((1, 7, 7))}, "float64"),
        ({"a": np.full((1, 7, 7), -1, np.int16)}, "from -1 to -1"),
        ({"a": np.full((1, 7, 7), 70000)}, "70000"),
        ({"a": [np.zeros((7, 7), np.uint16), np.zeros((6, 7), np.uint16)]}, "frames of different grids"),
        ({"a": np.zeros((1, 7, 7), int), "b": np.zeros((1, 6, 6), int)}, "tokens of different grids"),
    ],
)
def test_other_content_is_refused_by_name_and_nothing_is_written(tmp_path: Path, content: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        import_tokens(dump(tmp_path / "vq.pkl", content), tmp_path / "vq")
    assert not (tmp_path / "vq").exists()
