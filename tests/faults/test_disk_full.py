"""A full disk: the error names the file, the old file stays, nothing temporary is left, and a rerun goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fault_samples import Levels, write_videos

from mmpt.evaluators.base import save_arrays
from mmpt.store.caption_files import deduplicate_file
from mmpt.store.extraction import ExtractionOptions, extract_features
from mmpt.store.feature_shards import shard_split, write_shard_map
from mmpt.store.features import FeatureStore, ShardedFeatureStore
from mmpt.store.video_list import find_videos
from mmpt.utils.errors import DataError, StorageError
from mmpt.utils.files import atomic_open, read_json, write_json
from mmpt.utils.shardedtensor import ShardedTensor, ShardedTensorWriter
from mmpt.utils.weight_files import save_safetensors

PAGE = 4096


def write_text(path: Path) -> None:
    with atomic_open(path) as file:
        file.write("x" * 100_000)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "text": write_text,
    "json": lambda path: write_json(path, ["x"] * 50_000),
    "metrics.npy": lambda path: save_arrays(path, ranks=np.zeros(50_000)),
    "embeddings.npz": lambda path: save_arrays(path, text=np.zeros(20_000), video=np.ones(20_000)),
    "weights.safetensors": lambda path: save_safetensors(path, {"w": torch.zeros(50_000)}),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("older", [False, True])
def test_a_file_keeps_its_content(small_disk, name, older):
    path = small_disk.folder / "out" / name
    if older:
        path.parent.mkdir()
        path.write_bytes(b"older")
    small_disk.leave(2 * PAGE)
    with pytest.raises(StorageError, match=rf"{name}.*({small_disk.says})"):
        WRITERS[name](path)
    assert small_disk.listing() == (["out", f"out/{name}"] if older else ["out"])
    assert not older or path.read_bytes() == b"older"
    small_disk.make_room()
    WRITERS[name](path)
    assert path.stat().st_size > 5 * PAGE


def write_shard(path: Path, value: int, rows: int) -> None:
    with ShardedTensorWriter(path, np.float16, (8,)) as writer:
        for number in range(10):
            writer.append(np.full((rows, 8), value, np.float16), f"v{number}")


@pytest.mark.parametrize("older", [False, True])
def test_a_shard_is_the_old_one_or_none(small_disk, older):
    path = small_disk.folder / "shard"
    if older:
        write_shard(path, 1, 3)
    before = small_disk.listing()
    small_disk.leave(2 * PAGE)
    with pytest.raises(StorageError, match=rf"shard_data\.npy.*({small_disk.says})"):
        write_shard(path, 2, 500)
    assert small_disk.listing() == before
    if older:
        shard = ShardedTensor.load(path)
        assert shard.verify() and shard[9].tolist() == [[1] * 8] * 3
    small_disk.make_room()
    write_shard(path, 2, 500)
    assert ShardedTensor.load(path)[9].shape == (500, 8)


def test_wherever_the_disk_fills_the_shard_is_the_old_or_the_new_one(tmpfs):
    """From no room at all up to enough, page by page: data, starts, ids, index and marker each hit the end once."""
    path = tmpfs.folder / "shard"
    write_shard(path, 1, 3)
    before = tmpfs.listing()
    failed = 0
    for room in range(0, 64 * PAGE, PAGE):
        tmpfs.leave(room)
        try:
            write_shard(path, 2, 200)
        except StorageError as error:
            assert "the disk is full" in str(error) and "shard_" in str(error)
            assert tmpfs.listing() == before
            shard = ShardedTensor.load(path)
            assert shard.verify() and shard[0].tolist() == [[1] * 8] * 3
            failed += 1
        else:
            break
    assert failed >= 8 + 3  # 32 KiB of data, then one page for each of the others
    assert ShardedTensor.load(path)[0][0, 0] == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_extraction_keeps_what_is_done_and_goes_on(small_disk, tmp_path, workers):
    items = find_videos([write_videos(tmp_path / "videos", "abc")])
    out, dim = small_disk.folder / "out", 8 * PAGE  # 128 KiB a video
    options = ExtractionOptions(workers=workers)

    def fill(call: int) -> None:
        if list(out.glob("*.npy")):
            small_disk.leave(8 * PAGE)

    with pytest.raises(StorageError, match=rf"/[abc]\.npy.*({small_disk.says})"):
        extract_features(items, Levels(dim, fill), out, options)
    store = FeatureStore(out)
    done = store.ids()
    assert done and len(done) < 3 and store[done[0]].shape == (2, dim)
    assert not [name for name in small_disk.listing() if name.endswith(".tmp")]
    small_disk.make_room()
    summary = extract_features(items, Levels(dim), out, options)
    assert (summary.done, summary.skipped, summary.failed) == (3 - len(done), len(done), 0)
    assert FeatureStore(out).ids() == ["a", "b", "c"]
    assert sorted(read_json(out / "manifest.json")["videos"]) == ["a", "b", "c"]


def test_no_room_for_the_record_of_a_video(tmpfs, tmp_path):
    """The features fit and the journal does not: they are extracted again, not taken for what they may not be."""
    items = find_videos([write_videos(tmp_path / "videos", "ab")])
    out = tmpfs.folder / "out"
    with pytest.raises(StorageError, match=r"manifest\.j.*the disk is full"):
        extract_features(items, Levels(4, lambda call: tmpfs.leave(PAGE)), out, ExtractionOptions(workers=0))
    tmpfs.make_room()
    summary = extract_features(items, Levels(4), out)
    assert (summary.done, summary.failed) == (2, 0) and FeatureStore(out).ids() == ["a", "b"]
    assert read_json(out / "manifest.json")["videos"]["a"]["status"] == "done"


def test_feature_shards_that_are_complete_are_kept(small_disk, tmp_path):
    (tmp_path / "feat").mkdir()
    for number, name in enumerate("abcd"):
        np.save(tmp_path / "feat" / f"{name}.npy", np.full((2, 16), number, np.float16))
    store, ids = FeatureStore(tmp_path / "feat"), list("abcd")
    np.save(tmp_path / "feat" / "c.npy", np.full((5000, 16), 2, np.float16))
    small_disk.leave(20 * PAGE)
    with pytest.raises(StorageError, match=rf"train_1_data\.npy.*({small_disk.says})"):
        shard_split(store, small_disk.folder, "train", ids, shard_size=2, progress=False)
    with pytest.raises(DataError, match=r"train_meta\.json: no such file"):
        ShardedFeatureStore(small_disk.folder, "train")
    small_disk.make_room()
    outcome = shard_split(store, small_disk.folder, "train", ids, shard_size=2, progress=False)
    assert outcome.written == 1 and len(outcome.shards) == 2  # the first was kept
    write_shard_map(small_disk.folder, "train", outcome)
    assert ShardedFeatureStore(small_disk.folder, "train")["c"].shape == (5000, 16)


def test_captions_that_are_deduplicated_are_kept(small_disk, tmp_path):
    captions = {f"v{number}": {"start": [0], "end": [1], "text": ["word " * 400]} for number in range(60)}
    source, target = tmp_path / "raw.json", small_disk.folder / "dedup.json"
    source.write_text(json.dumps(captions))
    small_disk.leave(12 * PAGE)
    with pytest.raises(StorageError, match=rf"dedup\.json.*({small_disk.says})"):
        deduplicate_file(source, target)
    assert not target.exists()
    small_disk.make_room()
    report = deduplicate_file(source, target)
    assert report.skipped > 5 and report.done + report.skipped == 60
    assert sorted(read_json(target)) == sorted(captions)


@pytest.mark.slow  # fairseq is imported
def test_copies_of_checkpoints(small_disk, tmp_path):
    pytest.importorskip("fairseq")
    from mmpt.tasks.fairseq_checkpoints import copy_atomically

    source, target = tmp_path / "checkpoint1.pt", small_disk.folder / "checkpoint_last.pt"
    source.write_bytes(bytes(100_000))
    target.write_bytes(b"older")
    small_disk.leave(2 * PAGE)
    with pytest.raises(StorageError, match=rf"checkpoint_last\.pt.*({small_disk.says}).*as they were"):
        copy_atomically(str(source), str(target), overwrite=True)
    assert target.read_bytes() == b"older" and small_disk.listing() == ["checkpoint_last.pt"]
    small_disk.make_room()
    copy_atomically(str(source), str(target), overwrite=True)
    assert target.stat().st_size == 100_000
