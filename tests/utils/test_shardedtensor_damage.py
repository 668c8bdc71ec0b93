"""ShardedTensor: what was changed, cut or mixed up is found; published shards are checked."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from shard_samples import SMALL_BLOCK, assert_same, five_items, legacy, ragged, write

from mmpt.utils.errors import DataError
from mmpt.utils.npy import read_npy
from mmpt.utils.shardedtensor import ShardedTensor
from mmpt.utils.shardedtensor_files import read_index, shard_paths, write_index


@pytest.fixture
def features(tmp_path: Path) -> Path:
    return five_items(tmp_path)


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


def test_starts_that_fit_but_are_others_are_found(features: Path) -> None:
    np.save(shard_paths(features).starts, np.array([0, 2, 3, 43, 44, 61]))
    with pytest.raises(DataError, match=r"x_starts\.npy: was changed"):
        ShardedTensor.load(features)


def test_an_index_of_a_later_version_says_so(features: Path) -> None:
    index = read_index(features)
    assert index is not None
    write_index(features, {**index, "version": 2})
    with pytest.raises(DataError, match="index version 2"):
        ShardedTensor.load(features)


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
