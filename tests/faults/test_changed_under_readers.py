"""Shards and feature files that change while data workers read them: a named error or whole data, never a crash."""

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from mmpt.store.features import Features, FeatureStore, ShardedFeatureStore
from mmpt.utils.errors import DataError
from mmpt.utils.files import atomic_open, write_json
from mmpt.utils.npy import CutFileError
from mmpt.utils.shardedtensor import ShardedTensor, ShardedTensorWriter

ROWS, DIM, VIDEOS = 600, 64, 40  # 75 KiB a video, 3 MiB a file: several blocks of a checksum
GATE = 6


def value_of(number: int) -> float:
    return float(number % 7 + 1)


def write_shard(folder: Path, name: str, first: int, offset: float = 0.0) -> None:
    with ShardedTensorWriter(folder / name, np.float16, (DIM,)) as writer:
        for number in range(first, first + VIDEOS // 2):
            writer.append(np.full((ROWS, DIM), value_of(number) + offset, np.float16), f"v{number}")


def sharded(folder: Path) -> ShardedFeatureStore:
    """Write two shards of twenty videos."""
    half = VIDEOS // 2
    for shard in range(2):
        write_shard(folder, f"train_{shard}", shard * half)
    ids = [f"v{number}" for number in range(VIDEOS)]
    write_json(folder / "train_meta.json", {"0": ids[:half], "1": ids[half:]})
    return ShardedFeatureStore(folder, "train")


def single(folder: Path) -> FeatureStore:
    """Write one file per video."""
    for number in range(VIDEOS):
        np.save(folder / f"v{number}.npy", np.full((ROWS, DIM), value_of(number), np.float16))
    return FeatureStore(folder)


class Videos(Dataset):
    """Sums of features; from the item ``GATE`` on only after the file ``go`` is there."""

    def __init__(self, store: Features, folder: Path) -> None:
        self.store, self.go = store, folder / "go"

    def __len__(self) -> int:
        return VIDEOS

    def __getitem__(self, index: int) -> float:
        while index >= GATE and not self.go.exists():
            time.sleep(0.01)
        return float(np.asarray(self.store[f"v{index}"], np.float64).mean())


def read(store: Features, folder: Path, method: str, damage: Callable[[], object], workers: int = 1) -> list[float]:
    """Read everything in data workers; the damage is done after the first item, while workers wait at the gate."""
    gc.collect()  # an iterator of an earlier test would be collected in the worker, and wait there for its own
    loader = DataLoader(
        Videos(store, folder), batch_size=None, num_workers=workers, multiprocessing_context=method, prefetch_factor=2
    )
    means: list[float] = []
    batches: Any = iter(loader)
    try:
        for mean in batches:
            if not means:
                damage()
                (folder / "go").touch()
            means.append(float(mean))
    finally:
        # Left to an error's traceback it would be collected in parts, tell its workers nothing, and wait 5 s for them.
        batches._shutdown_workers()
    return means


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 3)


def flip_last_byte(file: Path) -> None:
    with open(file, "r+b") as opened:
        opened.seek(-1, os.SEEK_END)
        last = opened.read(1)
        opened.seek(-1, os.SEEK_END)
        opened.write(bytes([last[0] ^ 1]))


def remove(folder: Path, pattern: str) -> None:
    for file in folder.glob(pattern):
        file.unlink()


EXPECTED = [value_of(number) for number in range(VIDEOS)]
METHODS = ["fork", pytest.param("spawn", marks=pytest.mark.slow)]


@pytest.mark.parametrize("method", METHODS)
def test_an_open_shard_that_is_cut(tmp_path, method):
    """Touching the lost pages of the mapping would end the worker with SIGBUS."""
    store = sharded(tmp_path)
    store["v0"]
    with pytest.raises(DataError, match=r"train_0_data\.npy: was cut from \d+ to \d+ bytes while it was in use"):
        read(store, tmp_path, method, lambda: cut(tmp_path / "train_0_data.npy"))


@pytest.mark.parametrize("method", METHODS)
def test_a_shard_that_is_deleted_before_it_is_opened(tmp_path, method):
    store = sharded(tmp_path)
    with pytest.raises(DataError, match=r"train_1_data\.npy: no such file"):
        read(store, tmp_path, method, lambda: remove(tmp_path, "train_1_*"))


@pytest.mark.parametrize("pattern", ["train_1_data.npy", "train_1_starts.npy", "train_1_ids.json"])
def test_one_file_of_a_shard_that_is_deleted(tmp_path, pattern):
    store = sharded(tmp_path)
    with pytest.raises(DataError, match=pattern.replace(".", r"\.")):
        read(store, tmp_path, "fork", lambda: remove(tmp_path, pattern))


def test_an_open_shard_that_is_deleted_stays_whole(tmp_path):
    store = sharded(tmp_path)
    store["v0"], store[f"v{VIDEOS - 1}"]
    assert read(store, tmp_path, "fork", lambda: remove(tmp_path, "train_*"), workers=2) == EXPECTED


def test_an_open_shard_that_is_replaced_is_read_to_its_end(tmp_path):
    store = sharded(tmp_path)
    store["v0"]
    means = read(store, tmp_path, "fork", lambda: write_shard(tmp_path, "train_0", 0, offset=100.0))
    assert means == EXPECTED  # an open shard keeps its files: nothing old and new is mixed


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bit_that_flips_in_what_was_not_read_yet(tmp_path, workers):
    store = sharded(tmp_path)
    store["v0"]
    with pytest.raises(DataError, match=r"train_0_data\.npy: the bytes of block 1 .* were changed.*\(v13\)"):
        read(store, tmp_path, "fork", lambda: flip_last_byte(tmp_path / "train_0_data.npy"), workers)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"video 'v9': .*v9\.npy: \d+ bytes where its header promises \d+"),
        (os.unlink, r"video 'v9': .*v9\.npy: no such file"),
        (lambda file: file.write_bytes(b""), r"video 'v9': .*v9\.npy: not an \.npy file"),
        (lambda file: (file.unlink(), file.mkdir()), r"video 'v9': .*v9\.npy: cannot be read"),
    ],
)
def test_a_feature_file_that_is_damaged_between_reads(tmp_path, damage, message):
    with pytest.raises(DataError, match=message):
        read(single(tmp_path), tmp_path, "fork", lambda: damage(tmp_path / "v9.npy"))


def test_a_feature_file_that_is_replaced_is_the_old_or_the_new_one(tmp_path):
    def replace() -> None:
        with atomic_open(tmp_path / "v9.npy", "wb") as file:
            np.save(file, np.full((3, DIM), 100, np.float16))

    means = read(single(tmp_path), tmp_path, "fork", replace, workers=2)
    assert means == [*EXPECTED[:9], 100.0, *EXPECTED[10:]]


def test_a_cut_shard_in_this_process(tmp_path):
    sharded(tmp_path)
    shard = ShardedTensor.load(tmp_path / "train_0")
    whole = shard[3].copy()
    content = (tmp_path / "train_0_data.npy").read_bytes()
    cut(tmp_path / "train_0_data.npy")
    for attempt in (lambda: shard[0], lambda: shard[19], shard.verify):
        with pytest.raises(CutFileError, match=r"train_0_data\.npy: was cut"):
            attempt()
    with pytest.raises(DataError, match="bytes where its header promises"):
        ShardedTensor.load(tmp_path / "train_0")
    (tmp_path / "train_0_data.npy").write_bytes(content)  # in place: the mapping is whole again
    np.testing.assert_array_equal(shard[3], whole)
    assert torch.from_numpy(shard[3].copy()).shape == (ROWS, DIM)
