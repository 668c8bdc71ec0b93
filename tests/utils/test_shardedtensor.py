"""ShardedTensor: what is written comes back, what was changed or half-written never does."""

import json
import multiprocessing
import os
import pickle
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmpt.utils import shardedtensor, shardedtensor_writer
from mmpt.utils.errors import DataError
from mmpt.utils.shardedtensor import ShardedTensor, ShardedTensorWriter, open_shared
from mmpt.utils.shardedtensor_files import UnfinishedShardError, read_index, read_npy, shard_paths, write_index

DTYPES = ["<f2", "<f4", "<f8", "<i4", "<i8", "|u1", "<u2", "|b1", ">f4", "<c8", "<U3"]
SMALL_BLOCK = 64


def ragged(dtype: str, lengths: list[int], item_shape: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(len(lengths))
    return [rng.integers(0, 2**15, (n, *item_shape)).astype(dtype) for n in lengths]


def write(path: Path, items: list[np.ndarray], ids: list[str] | None = None, block_bytes: int = SMALL_BLOCK) -> Path:
    with ShardedTensorWriter(path, items[0].dtype, items[0].shape[1:], {"fps": 1}, block_bytes) as writer:
        for i, item in enumerate(items):
            writer.append(item, None if ids is None else ids[i])
    return path


@pytest.fixture
def features(tmp_path: Path) -> Path:
    items = ragged("<f2", [3, 0, 40, 1, 17], (4,))
    return write(tmp_path / "x", items, ["a", "b", "c", "d", "e"])


def assert_same(shard: ShardedTensor, items: list[np.ndarray]) -> None:
    assert len(shard) == len(items)
    assert shard.lengths().tolist() == [len(item) for item in items]
    for i, item in enumerate(items):
        for got in (shard[i], shard[i - len(items)]):
            assert got.dtype == item.dtype and got.shape == item.shape
            np.testing.assert_array_equal(got, item)


# --- what is written comes back


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


# --- what was changed is found


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 0x10
    file.write_bytes(content)


def test_a_changed_byte_is_found_in_every_block(features: Path) -> None:
    data = shard_paths(features).data
    offset = data.stat().st_size - 61 * 8
    blocks = -(-61 * 8 // SMALL_BLOCK)
    owners = np.repeat(np.arange(5), [3 * 8, 0, 40 * 8, 8, 17 * 8])
    for block in range(blocks):
        position = min(block * SMALL_BLOCK + 13, 61 * 8 - 1)
        flip(data, offset + position)
        shard = ShardedTensor.load(features)
        with pytest.raises(DataError, match=rf"x_data.npy: the bytes of block {block} .*write the shard again"):
            shard.verify()
        with pytest.raises(DataError, match=rf"block {block} .*{owners[position]} \({'abcde'[owners[position]]}\)"):
            shard[int(owners[position])]
        readable = [i for i in range(5) if block not in blocks_of(shard, i)]
        for i in readable:
            shard[i]
        assert len(readable) >= 1
        flip(data, offset + position)
    assert ShardedTensor.load(features).verify() == blocks


def blocks_of(shard: ShardedTensor, i: int) -> set[int]:
    begin, end = int(shard.starts[i]) * 8, int(shard.starts[i + 1]) * 8
    return {byte // SMALL_BLOCK for byte in range(begin, end)}


def test_damage_names_every_item_of_the_block_and_no_other(features: Path) -> None:
    data = shard_paths(features).data
    flip(data, data.stat().st_size - 1)  # the last block: rows 56 to 60
    with pytest.raises(DataError) as caught:
        ShardedTensor.load(features).verify()
    assert "items 4 (e) are" in str(caught.value)


@pytest.mark.parametrize("suffix", ["_data.npy", "_starts.npy", "_ids.json", "_index.json"])
def test_any_changed_byte_of_any_file_is_an_error_or_changes_nothing(tmp_path: Path, suffix: str) -> None:
    items = ragged("<f2", [2, 3], (4,))
    write(tmp_path / "x", items, ["a", "b"])
    file = tmp_path / f"x{suffix}"
    errors = 0
    for position in range(file.stat().st_size):
        flip(file, position)
        try:
            shard = ShardedTensor.load(tmp_path / "x")
            shard.verify()
            assert_same(shard, items)
            assert shard.ids == ["a", "b"]
        except DataError as error:
            assert "x_" in str(error)
            errors += 1
        flip(file, position)
    assert errors > 0.5 * file.stat().st_size or suffix != "_index.json"
    assert errors >= 10


def test_verify_looks_again_and_reading_does_not(features: Path) -> None:
    shard = ShardedTensor.load(features)
    assert shard[2].shape == (40, 4)
    data = shard_paths(features).data
    with open(data, "r+b") as file:
        file.seek(data.stat().st_size - 61 * 8 + 3 * 8 + 2)
        file.write(b"\xaa\xaa")
    shard[2]
    with pytest.raises(DataError, match="block 0"):
        shard.verify()
    unchecked = ShardedTensor.load(features, verify="off")
    unchecked[2]
    with pytest.raises(DataError, match="block 0"):
        unchecked.verify()
    with pytest.raises(DataError, match="block 0"):
        unchecked.save(features.with_name("copy"))
    assert not shard_paths(features.with_name("copy")).index.exists()


@pytest.mark.parametrize("suffix", ["_data.npy", "_starts.npy", "_ids.json", "_index.json"])
@pytest.mark.parametrize("kept", [0, 5, 0.5, -2])
def test_a_cut_file_is_an_error(features: Path, suffix: str, kept: float) -> None:
    file = Path(f"{features}{suffix}")
    size = file.stat().st_size
    os.truncate(file, int(kept * size) if 0 < kept < 1 else size + kept if kept < 0 else int(kept))
    with pytest.raises(DataError, match=f"x{suffix}"):
        ShardedTensor.load(features).verify()


@pytest.mark.parametrize("suffix", ["_data.npy", "_starts.npy", "_ids.json"])
def test_missing_and_grown_files_are_errors(features: Path, suffix: str) -> None:
    file = Path(f"{features}{suffix}")
    with open(file, "ab") as grown:
        grown.write(b"\0" * 8)
    if suffix != "_starts.npy":  # numbers after the end of the starts are never read
        with pytest.raises(DataError, match=f"x{suffix}"):
            ShardedTensor.load(features)
    file.unlink()
    with pytest.raises(DataError, match=f"x{suffix}"):
        ShardedTensor.load(features)


def test_files_of_two_shards_do_not_mix(tmp_path: Path) -> None:
    one = write(tmp_path / "one", ragged("<i4", [2, 3], ()), ["a", "b"])
    two = write(tmp_path / "two", [item + 1 for item in ragged("<i4", [2, 3], ())], ["c", "d"])
    for suffix in ("_data.npy", "_ids.json"):
        content = Path(f"{one}{suffix}").read_bytes()
        Path(f"{one}{suffix}").write_bytes(Path(f"{two}{suffix}").read_bytes())
        with pytest.raises(DataError):
            ShardedTensor.load(one).verify()
        Path(f"{one}{suffix}").write_bytes(content)
    ShardedTensor.load(one).verify()


def test_an_index_of_a_later_version_says_so(features: Path) -> None:
    index = read_index(features)
    assert index is not None
    write_index(features, {**index, "version": 2})
    with pytest.raises(DataError, match="index version 2"):
        ShardedTensor.load(features)


# --- the published layout, without an index


def legacy(path: Path, data: np.ndarray, starts: list[int] | np.ndarray) -> Path:
    np.save(f"{path}_data.npy", data)
    np.save(f"{path}_starts.npy", np.asarray(starts))
    return path


def test_published_shards_load(tmp_path: Path) -> None:
    items = ragged("<f2", [3, 0, 2], (512,))
    shard = ShardedTensor.load(legacy(tmp_path / "x", np.concatenate(items), np.array([0, 3, 3, 5])))
    assert_same(shard, items)
    assert shard.ids is None and shard.index is None and shard.verify() == 0
    assert_same(pickle.loads(pickle.dumps(shard)), items)
    shard.save(tmp_path / "y")
    assert ShardedTensor.load(tmp_path / "y").verify() == 1
    assert_same(
        ShardedTensor.load(legacy(tmp_path / "z", np.empty((0, 2)), np.array([0, 0], np.int32))), [np.empty((0, 2))]
    )


@pytest.mark.parametrize("starts", [[0, 3, 4], [0, 3, 6], [1, 3, 5], [0, 4, 3, 5], [], [[0, 5]], [0.0, 5.0]])
def test_published_shards_are_checked(tmp_path: Path, starts: list[int]) -> None:
    legacy(tmp_path / "x", np.zeros((5, 2)), starts)
    with pytest.raises(DataError, match=r"x_starts\.npy"):
        ShardedTensor.load(tmp_path / "x")


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="plain array"):
        read_npy(tmp_path / "x.npy")
    np.save(tmp_path / "y.npy", np.zeros(2, dtype=[("a", "f4")]))
    with pytest.raises(DataError, match="plain array"):
        read_npy(tmp_path / "y.npy")
    (tmp_path / "z.npy").write_bytes(b"PK\x03\x04 not numpy")
    with pytest.raises(DataError, match=r"not an \.npy file"):
        read_npy(tmp_path / "z.npy")


# --- crashes

OLD, NEW = ragged("<i4", [4, 1, 3], ()), [item + 7 for item in ragged("<i4", [1, 4, 3], ())]


def run_and_die(write_it: Callable[[], object], step: int) -> bool:
    """Run in a child that dies at once before file operation number ``step``; return whether it died."""
    child = os.fork()
    if child == 0:
        calls = 0

        def dying(real: Callable[..., object]) -> Callable[..., object]:
            def operation(*args: object, **kwargs: object) -> object:
                nonlocal calls
                if calls == step:
                    os._exit(9)
                calls += 1
                return real(*args, **kwargs)

            return operation

        for name in ("replace", "unlink", "fsync", "chmod"):
            setattr(os, name, dying(getattr(os, name)))
        try:
            write_it()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.parametrize("older", ["none", "ours", "published"])
@pytest.mark.parametrize("ids", [None, ["a", "b", "c"]])
def test_a_crash_at_any_step_leaves_the_old_the_new_or_an_error(
    tmp_path: Path, older: str, ids: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shardedtensor, "_PAUSE_SECONDS", 0)
    outcomes = []
    step = 0
    while True:
        path = tmp_path / str(step) / "x"
        path.parent.mkdir()
        if older == "ours":
            write(path, OLD, ["o1", "o2", "o3"])
        elif older == "published":
            legacy(path, np.concatenate(OLD), np.cumsum([0, *map(len, OLD)]))
        died = run_and_die(lambda path=path: write(path, NEW, ids), step)
        try:
            shard = ShardedTensor.load(path, verify="off")
        except DataError as error:
            outcomes.append("unfinished" if isinstance(error, UnfinishedShardError) else "missing")
        else:
            outcomes.append("new" if len(shard[0]) == 1 else "old")
            assert_same(shard, NEW if outcomes[-1] == "new" else OLD)
            if outcomes[-1] == "new":
                assert shard.ids == ids
        write(path, NEW, ids)  # whatever is left, writing again works and cleans up
        assert_same(ShardedTensor.load(path), NEW)
        assert not list(path.parent.glob(".*_data.npy.tmp")) and not list(path.parent.glob(".*_starts.npy.tmp"))
        if not died:
            break
        step += 1
    first = "missing" if older == "none" else "old"
    order = [first, "unfinished", "new"]
    assert outcomes == sorted(outcomes, key=order.index) and set(outcomes) == set(order)
    assert outcomes.count("unfinished") >= 4


def test_an_error_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardedTensorWriter(tmp_path / "x", "f4") as writer:
        writer.append(np.zeros(3, "f4"))
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    with pytest.raises(DataError, match=r"x_data\.npy: no such file"):
        ShardedTensor.load(tmp_path / "x")


def test_an_error_in_the_block_keeps_the_older_shard(features: Path) -> None:
    before = sorted(os.listdir(features.parent))
    with pytest.raises(RuntimeError), ShardedTensorWriter(features, "f4") as writer:
        writer.append(np.zeros(3, "f4"))
        raise RuntimeError
    assert sorted(os.listdir(features.parent)) == before
    assert ShardedTensor.load(features).verify()


def test_a_full_disk_at_the_commit_leaves_no_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shardedtensor_writer, "write_index", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "x", NEW)
    assert os.listdir(tmp_path) == []


def test_the_unfinished_temporary_file_is_named(tmp_path: Path) -> None:
    writer = ShardedTensorWriter(tmp_path / "x", "f4")
    with pytest.raises(DataError, match="unfinished write"):
        ShardedTensor.load(tmp_path / "x")
    with pytest.raises(DataError, match="another process is writing"):
        ShardedTensorWriter(tmp_path / "x", "f4")
    with writer:
        pass
    assert len(ShardedTensor.load(tmp_path / "x")) == 0


def test_a_shard_without_ids_replaces_one_with_ids(features: Path) -> None:
    write(features, NEW)
    assert ShardedTensor.load(features).ids is None
    assert not shard_paths(features).ids.exists()


# --- several processes


def read_sums(shard: ShardedTensor, connection: "multiprocessing.connection.Connection") -> None:
    connection.send([int(shard[i].sum()) for i in range(len(shard))])


def test_spawned_readers_reopen_by_path(tmp_path: Path) -> None:
    items = ragged("<i8", [5, 0, 900], (3,))
    shard = ShardedTensor.load(write(tmp_path / "x", items))
    assert len(pickle.dumps(shard)) < 500
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    readers = [context.Process(target=read_sums, args=(shard, pipe[1])) for pipe in pipes]
    for reader in readers:
        reader.start()
    for pipe in pipes:
        assert pipe[0].poll(60)
        assert pipe[0].recv() == [int(item.sum()) for item in items]
    for reader in readers:
        reader.join()
        assert reader.exitcode == 0


def test_a_pickled_shard_that_was_rewritten_is_refused(features: Path) -> None:
    content = pickle.dumps(ShardedTensor.load(features))
    pickle.loads(content)
    write(features, NEW)
    with pytest.raises(DataError, match="rewritten while it was in use"):
        pickle.loads(content)


def test_readers_beside_a_writer_never_see_a_mixture(tmp_path: Path) -> None:
    """Every generation has the same shapes; only the values tell them apart."""
    path = tmp_path / "x"

    def generation(value: int) -> None:
        write(path, [np.full(50, value), np.full(30, value)], [f"{value}-a", f"{value}-b"])

    generation(0)
    child = os.fork()
    if child == 0:
        try:
            for value in range(1, 25):
                generation(value)
                time.sleep(0.02)
        finally:
            os._exit(0)
    seen, ended = set(), False
    while not ended:
        ended = os.waitpid(child, os.WNOHANG)[0] == child
        try:
            shard = ShardedTensor.load(path, verify="off")
        except DataError as error:  # a slow disk: the shard was being replaced at each attempt
            assert not ended and ("being written" in str(error) or "being rewritten" in str(error))
            continue
        assert shard.ids is not None
        value = int(shard[0][0])
        assert (shard.data == value).all() and shard.ids == [f"{value}-a", f"{value}-b"]
        seen.add(value)
    assert 24 in seen


def test_open_shared_opens_once_and_again_when_rewritten(features: Path) -> None:
    first = open_shared(features)
    assert open_shared(os.path.relpath(features)) is first
    assert open_shared(features, verify="off") is not first
    write(features, NEW)
    assert open_shared(features) is not first
    assert_same(open_shared(features), NEW)
    assert first[2].shape == (40, 4)  # an open shard keeps its files
