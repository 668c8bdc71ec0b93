"""ShardedTensor: what is written comes back, of any dtype and shape."""

import json
import os
import pickle
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from shard_samples import assert_same, five_items, write

from mmpt.utils.errors import DataError
from mmpt.utils.shardedtensor import ShardedTensor, ShardedTensorWriter
from mmpt.utils.shardedtensor_files import read_index

DTYPES = ["<f2", "<f4", "<f8", "<i4", "<i8", "|u1", "<u2", "|b1", ">f4", "<c8", "<U3"]


@pytest.fixture
def features(tmp_path: Path) -> Path:
    return five_items(tmp_path)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_roundtrip_of_any_ragged_array(tmp_path: Path, data: st.DataObject) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    item_shape = tuple(data.draw(st.lists(st.integers(0, 3), max_size=2)))
    lengths = data.draw(st.lists(st.integers(0, 9), max_size=6))
    elements = {"allow_nan": False} if dtype.kind in "fc" else None
    items = [data.draw(hnp.arrays(dtype, (n, *item_shape), elements=elements)) for n in lengths]
    ids = data.draw(st.none() | st.just([f"é {i}" for i in range(len(items))]))
    block = data.draw(st.sampled_from([1, 7, 64, 1 << 20]))
    streamed, saved = tmp_path / "streamed", tmp_path / "saved"
    with ShardedTensorWriter(streamed, dtype, item_shape, block_bytes=block) as writer:
        for i, item in enumerate(items):
            writer.append(item, None if ids is None else ids[i])
    ShardedTensor.from_list(items, ids, dtype, item_shape).save(saved)
    for path in (streamed, saved):
        for mode in ("r", "c", None):
            shard = ShardedTensor.load(path, mode)
            assert_same(shard, items)
            shard.verify()
            assert shard.ids == (ids or None)
            assert_same(pickle.loads(pickle.dumps(shard)), items)


def test_files_of_a_known_shard(tmp_path: Path) -> None:
    write(tmp_path / "x", [np.array([[1, 2]], "<i4"), np.array([[3, 4], [5, 6]], "<i4")], ["v1", "v2"], 16)
    assert sorted(os.listdir(tmp_path)) == ["x_data.npy", "x_ids.json", "x_index.json", "x_starts.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "x_data.npy"), [[1, 2], [3, 4], [5, 6]])
    starts = np.load(tmp_path / "x_starts.npy")
    assert starts.tolist() == [0, 1, 3] and starts.dtype == np.int64
    assert json.loads((tmp_path / "x_ids.json").read_text()) == ["v1", "v2"]
    index = read_index(tmp_path / "x")
    assert index is not None
    assert (index["dtype"], index["item_shape"], index["count"], index["rows"]) == ("<i4", [2], 2, 3)
    raw = np.arange(1, 7, dtype="<i4").tobytes()
    assert index["data_crc32"] == [zlib.crc32(raw[:16]), zlib.crc32(raw[16:])]
    assert index["producer"] == {"fps": 1} and len(index["generation"]) == 32


def test_zero_items_and_all_empty_items(tmp_path: Path) -> None:
    with ShardedTensorWriter(tmp_path / "none", "u1"):
        pass
    assert len(ShardedTensor.load(tmp_path / "none")) == 0
    with pytest.raises(IndexError):
        ShardedTensor.load(tmp_path / "none")[0]
    empty = [np.empty((0, 512), "f2")] * 3
    assert_same(ShardedTensor.load(write(tmp_path / "empty", empty, ["a", "b", "c"])), empty)


def test_indexing_stays_in_range(features: Path) -> None:
    shard = ShardedTensor.load(features)
    for i in (5, -6, 100, -100):
        with pytest.raises(IndexError):
            shard[i]
    assert [len(item) for item in shard] == [3, 0, 40, 1, 17]
    assert len(shard[np.int64(2)]) == 40


def test_items_are_views_and_read_only(features: Path) -> None:
    shard = ShardedTensor.load(features)
    assert np.shares_memory(shard[2], shard.data) and not shard[2].flags.writeable


def test_ids_find_their_items(features: Path, tmp_path: Path) -> None:
    shard = ShardedTensor.load(features)
    assert [shard.position(id) for id in "abcde"] == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match="no item 'z'"):
        shard.position("z")
    with pytest.raises(DataError, match="no ids"):
        ShardedTensor.load(write(tmp_path / "y", [np.zeros(2)])).position("a")


def test_ids_that_were_expected_are_kept_and_others_read(tmp_path: Path) -> None:
    ids = ["a", "é", 'q"']
    ShardedTensor.from_list([[1], [2], [3]], ids).save(tmp_path / "t")
    known = ShardedTensor.load(tmp_path / "t", expected_ids=ids).ids
    assert known == ids and all(one is other for one, other in zip(known or (), ids, strict=True))
    for other in (["a"], ["é", "a", 'q"'], ["a", "e", 'q"'], []):
        assert ShardedTensor.load(tmp_path / "t", expected_ids=other).ids == ids
    (tmp_path / "t_ids.json").write_text(json.dumps(["a", "b", "c"]))
    with pytest.raises(DataError, match=r"t_ids\.json: was changed"):  # also by what was expected
        ShardedTensor.load(tmp_path / "t", expected_ids=["a", "b", "c"])


def test_writing_takes_the_memory_of_one_item(tmp_path: Path) -> None:
    item = np.zeros((1000, 512), "f2")
    tracemalloc.start()
    with ShardedTensorWriter(tmp_path / "x", item.dtype, (512,)) as writer:
        for _ in range(40):
            writer.append(item)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * item.nbytes
    assert ShardedTensor.load(tmp_path / "x").data.nbytes == 40 * item.nbytes


def test_append_refuses_what_does_not_fit(tmp_path: Path) -> None:
    wrong = [np.zeros((2, 5), "f2"), np.zeros((2, 4), "f4"), np.zeros(4, "f2"), np.float16(1)]
    for item in wrong:
        with pytest.raises(DataError, match="'v'"), ShardedTensorWriter(tmp_path / "x", "f2", (4,)) as writer:
            writer.append(item, "v")
    with pytest.raises(DataError, match="comes twice"), ShardedTensorWriter(tmp_path / "x", "f2") as writer:
        writer.append(np.zeros(1, "f2"), "v")
        writer.append(np.zeros(1, "f2"), "v")
    for ids in (["v", None], [None, "v"]):
        with pytest.raises(DataError, match="or none"), ShardedTensorWriter(tmp_path / "x", "f2") as writer:
            for id in ids:
                writer.append(np.zeros(1, "f2"), id)
    with pytest.raises(DataError, match="plain numbers"):
        ShardedTensorWriter(tmp_path / "x", object)
    with pytest.raises(DataError, match="not JSON"):
        ShardedTensorWriter(tmp_path / "x", "f2", producer={"encoder": object()})
    assert os.listdir(tmp_path) == []


def test_from_list_refuses_what_does_not_fit() -> None:
    with pytest.raises(DataError, match="'b'"):
        ShardedTensor.from_list([np.zeros((1, 2)), np.zeros((1, 3))], ["a", "b"])
    with pytest.raises(DataError, match="item 1"):
        ShardedTensor.from_list([np.zeros(2, "f4"), np.zeros(2, "f8")])
    with pytest.raises(DataError, match="no items"):
        ShardedTensor.from_list([])
    assert ShardedTensor.from_list([[], [7, 8]], dtype="int64")[1].tolist() == [7, 8]
