"""Feature stores: both kinds give the same arrays, and say which video is at fault."""

import json
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from mmpt.store.features import (
    FeatureStore,
    ShardedFeatureStore,
    ShardMap,
    check_feature_width,
    check_width,
    read_id_list,
    read_shard_map,
)
from mmpt.utils.errors import DataError
from mmpt.utils.shardedtensor import ShardedTensor

DIM = 8


def feature(video_id: str, seconds: int) -> np.ndarray:
    rng = np.random.default_rng(sum(video_id.encode()))
    return rng.standard_normal((seconds, DIM)).astype(np.float16)


VIDEOS = {"-dash": 3, "_score": 1, "vidéo 1": 5, "a.b": 2, "none": 0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for video_id, seconds in VIDEOS.items():
        np.save(tmp_path / f"{video_id}.npy", feature(video_id, seconds))
    return tmp_path


@pytest.fixture(params=["ours", "published"])
def sharded(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    names = sorted(VIDEOS)
    shards = {0: names[:2], 1: names[2:]}
    for shard_id, ids in shards.items():
        items = [feature(video_id, VIDEOS[video_id]) for video_id in ids]
        if request.param == "ours":
            ShardedTensor.from_list(items, ids).save(tmp_path / f"train_{shard_id}")
        else:
            np.save(tmp_path / f"train_{shard_id}_data.npy", np.concatenate(items))
            np.save(tmp_path / f"train_{shard_id}_starts.npy", np.cumsum([0, *map(len, items)]))
    if request.param == "ours":
        (tmp_path / "train_meta.json").write_text(json.dumps(shards))
    else:
        (tmp_path / "train_meta.pkl").write_bytes(pickle.dumps(shards))
    return tmp_path


def test_a_folder_of_features(folder: Path) -> None:
    store = FeatureStore(folder)
    assert store.ids() == sorted(VIDEOS)
    for video_id, seconds in VIDEOS.items():
        assert video_id in store
        np.testing.assert_array_equal(store[video_id], feature(video_id, seconds))
    assert not store["a.b"].flags.writeable


def test_a_missing_folder_or_video_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"vfeat_dir"):
        FeatureStore(folder / "none")
    store = FeatureStore(folder)
    assert "other" not in store and 3 not in store
    with pytest.raises(DataError, match=r"video 'other'.*other\.npy: no such file"):
        store["other"]


@pytest.mark.parametrize("video_id", ["../secret", "/etc/passwd", "sub/x", "..", "", ".hidden", "a\\b", "a\0b"])
def test_ids_stay_in_the_folder(tmp_path: Path, video_id: str) -> None:
    (tmp_path / "features" / "sub").mkdir(parents=True)
    for place in ("secret.npy", "features/sub/x.npy", "features/.hidden.npy", "features/.npy"):
        np.save(tmp_path / place, np.zeros((1, DIM)))
    store = FeatureStore(tmp_path / "features")
    assert video_id not in store and store.ids() == []
    with pytest.raises(DataError, match="not a video id"):
        store[video_id]


@pytest.mark.parametrize(
    "wrong",
    [np.zeros(1), np.zeros(()), np.zeros((2, 3, 4)), np.array([["a"]]), np.zeros((2, 2), bool), np.array([{}], object)],
    ids=lambda array: f"{array.dtype}{array.ndim}d",
)
def test_wrong_arrays_name_the_video(tmp_path: Path, wrong: np.ndarray) -> None:
    np.save(tmp_path / "v1.npy", wrong)
    with pytest.raises(DataError, match=r"video 'v1'.*v1\.npy"):
        FeatureStore(tmp_path)["v1"]


@pytest.mark.parametrize("size", [0, 5, 100, 140])
def test_cut_files_name_the_video(tmp_path: Path, size: int) -> None:
    np.save(tmp_path / "v1.npy", np.zeros((4, DIM)))
    content = (tmp_path / "v1.npy").read_bytes()
    (tmp_path / "v1.npy").write_bytes(content[:size])
    with pytest.raises(DataError, match=r"video 'v1'.*v1\.npy"):
        FeatureStore(tmp_path)["v1"]


def test_shards_give_what_the_folder_gives(sharded: Path) -> None:
    store = ShardedFeatureStore(sharded, "train")
    assert store.ids() == sorted(VIDEOS)
    for shard_id, ids in read_shard_map(sharded, "train").items():
        for index, video_id in enumerate(ids):
            expected = feature(video_id, VIDEOS[video_id])
            np.testing.assert_array_equal(store[video_id], expected)
            np.testing.assert_array_equal(store.read(shard_id, index), expected)
    assert "none" in store and "other" not in store


def test_places_count_through_all_shards_empty_ones_too() -> None:
    shards = ShardMap({0: [], 2: ["a", "b"], 5: [], 7: ["c"], 9: []})
    for map_ in (shards, pickle.loads(pickle.dumps(shards))):
        assert [map_.index[name] for name in "abc"] == [0, 1, 2]
        numbers, within = map_.locate(np.arange(3))
        assert numbers.tolist() == [2, 2, 7] and within.tolist() == [0, 1, 0]
        assert map_.firsts.tolist() == [0, 0, 2, 2, 3, 3]
    assert not ShardMap().index and ShardMap().firsts.tolist() == [0]


def test_a_video_in_no_shard_is_named(sharded: Path) -> None:
    store = ShardedFeatureStore(sharded, "train")
    with pytest.raises(DataError, match=r"'_scor'.*Did you mean '_score'"):
        store["_scor"]
    with pytest.raises(DataError, match="no shard 7"):
        store.read(7, 0)
    with pytest.raises(IndexError):
        store.read(0, 2)


def send(store: ShardedFeatureStore, connection: "multiprocessing.connection.Connection") -> None:
    connection.send({video_id: np.array(store[video_id]) for video_id in store.ids()})


def test_spawned_workers_open_the_shards_themselves(sharded: Path) -> None:
    store = ShardedFeatureStore(sharded, "train")
    store["a.b"]
    assert len(pickle.dumps(store)) < 1000
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(target=send, args=(store, sender))
    worker.start()
    assert receiver.poll(60)
    received = receiver.recv()
    worker.join()
    for video_id, seconds in VIDEOS.items():
        np.testing.assert_array_equal(received[video_id], feature(video_id, seconds))


def test_a_shard_that_does_not_fit_the_map_is_named(sharded: Path) -> None:
    ids = ["x", "y", "z"]
    ShardedTensor.from_list([np.zeros((1, DIM))] * 3, ids).save(sharded / "train_0")
    with pytest.raises(DataError, match=r"train_0: .*not the 2 videos"):
        ShardedFeatureStore(sharded, "train").read(0, 0)
    ShardedTensor.from_list([np.zeros((1, DIM))] * 2, ids[:2]).save(sharded / "train_0")
    with pytest.raises(DataError, match="Make the shards again"):
        ShardedFeatureStore(sharded, "train").read(0, 0)


def test_changed_bytes_name_the_video(tmp_path: Path) -> None:
    ShardedTensor.from_list([np.ones((3, DIM))], ["v1"]).save(tmp_path / "val_0")
    (tmp_path / "val_meta.json").write_text('{"0": ["v1"]}')
    content = bytearray((tmp_path / "val_0_data.npy").read_bytes())
    content[-1] ^= 1
    (tmp_path / "val_0_data.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"val_0_data\.npy.*\(v1\)"):
        ShardedFeatureStore(tmp_path, "val")["v1"]


def test_a_map_is_read_once_and_again_when_it_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "train_meta.json"
    path.write_text('{"0": ["a"]}')
    first = read_shard_map(tmp_path, "train")
    assert read_shard_map(tmp_path, "train") is first
    path.write_text('{"0": ["a", "b"]}')
    assert read_shard_map(tmp_path, "train") == {0: ["a", "b"]}
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        read_shard_map(tmp_path, "train")


def test_shard_map_in_order_of_the_shards(tmp_path: Path) -> None:
    (tmp_path / "train_meta.json").write_text('{"10": ["c"], "2": ["a", "b"]}')
    assert list(read_shard_map(tmp_path, "train").items()) == [(2, ["a", "b"]), (10, ["c"])]
    (tmp_path / "train_meta.pkl").write_bytes(pickle.dumps({0: ["other"]}))
    assert list(read_shard_map(tmp_path, "train")) == [2, 10]


@pytest.mark.parametrize(
    "content", ["[]", '{"x": []}', '{"-1": []}', f'{{"{2**63}": []}}', '{"01": []}', '{"0": "abc"}', '{"0": [1]}', "{"]
)
def test_wrong_shard_maps_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "train_meta.json").write_text(content)
    with pytest.raises(DataError, match=r"train_meta\.json"):
        read_shard_map(tmp_path, "train")


def test_a_missing_map_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train_meta\.json: no such file, nor train_meta\.pkl.*shard_feature\.py"):
        ShardedFeatureStore(tmp_path, "train")


def test_published_maps_are_not_executed(tmp_path: Path) -> None:
    (tmp_path / "train_meta.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(DataError, match=r"train_meta\.pkl.*system"):
        read_shard_map(tmp_path, "train")


def test_a_wrong_width_names_video_width_and_key(folder: Path) -> None:
    store = FeatureStore(folder)
    check_width(store, DIM)
    check_width(store, DIM, store.ids())
    message = r"video 'a\.b' are 8 wide, the model expects 512\. Set model\.input_dim: 8"
    with pytest.raises(DataError, match=message):
        check_width(store, 512, ["a.b"])
    with pytest.raises(DataError, match=message):
        check_feature_width(store["a.b"], "a.b", 512)
    with pytest.raises(DataError, match="empty"):
        check_width(store, 512, [])


def test_an_id_list_is_text_with_an_id_per_line(tmp_path: Path) -> None:
    (tmp_path / "ids.lst").write_bytes("\ufeffa\n\n b \r\nvidéo".encode())
    assert read_id_list(tmp_path / "ids.lst", "--split train") == ["a", "b", "vidéo"]
    (tmp_path / "latin.lst").write_bytes(b"vid\xe9o\n")
    (tmp_path / "empty.lst").write_text("\n")
    for name, message in {
        "latin": "not a text file in UTF-8",
        "empty": "lists no videos",
        "gone": "cannot read",
    }.items():
        with pytest.raises(DataError, match=f"--split train: .*{name}.lst|{message}") as caught:
            read_id_list(tmp_path / f"{name}.lst", "--split train")
        assert message in str(caught.value) and f"{name}.lst" in str(caught.value)
