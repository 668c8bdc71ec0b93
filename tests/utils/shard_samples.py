"""Small shards for the tests of ShardedTensor."""

from pathlib import Path

import numpy as np

from mmpt.utils.shardedtensor import ShardedTensor, ShardedTensorWriter

SMALL_BLOCK = 64


def ragged(dtype: str, lengths: list[int], item_shape: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(len(lengths))
    return [rng.integers(0, 2**15, (n, *item_shape)).astype(dtype) for n in lengths]


def write(path: Path, items: list[np.ndarray], ids: list[str] | None = None, block_bytes: int = SMALL_BLOCK) -> Path:
    with ShardedTensorWriter(path, items[0].dtype, items[0].shape[1:], {"fps": 1}, block_bytes) as writer:
        for i, item in enumerate(items):
            writer.append(item, None if ids is None else ids[i])
    return path


def assert_same(shard: ShardedTensor, items: list[np.ndarray]) -> None:
    assert len(shard) == len(items)
    assert shard.lengths().tolist() == [len(item) for item in items]
    for i, item in enumerate(items):
        for got in (shard[i], shard[i - len(items)]):
            assert got.dtype == item.dtype and got.shape == item.shape
            np.testing.assert_array_equal(got, item)


def legacy(path: Path, data: np.ndarray, starts: list[int] | np.ndarray) -> Path:
    np.save(f"{path}_data.npy", data)
    np.save(f"{path}_starts.npy", np.asarray(starts))
    return path


def five_items(folder: Path) -> Path:
    """Write items a to e of 3, 0, 40, 1 and 17 rows; the second is empty."""
    return write(folder / "x", ragged("<f2", [3, 0, 40, 1, 17], (4,)), ["a", "b", "c", "d", "e"])
