"""MMDataset: items by (seed, epoch, index) alone, workers, collation, unusable items."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmpt.datasets.mmdataset import MMDataset
from mmpt.processors.base import UnusableItemError
from mmpt.processors.how2 import ShardedHow2VideoRetriMetaProcessor, VideoRetriTextProcessor, VideoRetriVideoProcessor
from mmpt.utils.errors import DataError
from mmpt.utils.files import write_json
from mmpt.utils.registry import build
from mmpt.utils.shardedtensor import ShardedTensor

VIDEOS = 7


class Endless:
    """So many items that a list of their numbers fits into no memory."""

    split, dup = "test", 1

    def __len__(self) -> int:
        return 2**60

    def __getitem__(self, index: int) -> tuple[int, int]:
        return index, index


def test_an_item_costs_nothing_for_the_number_of_items() -> None:
    data = MMDataset(Endless(), lambda video: video, lambda text, rng: text, lambda *parts, rng: {"of": parts})
    assert data[2**59] == {"of": (2**59,) * 3, "idx": 2**59}


def make_dataset(folder: Path, split: str = "train", seed: int = 1) -> MMDataset:
    """A dataset of groups of two videos over shards that lie in ``folder``."""
    rng = np.random.default_rng(0)
    file_split = "train" if split == "train" else "val"
    ids = [f"v{i}" for i in range(VIDEOS)]
    if not (folder / f"{file_split}_meta.json").exists():
        features, times, caps = [], [], []
        for _ in ids:
            start = np.sort(rng.uniform(0, 38, 12))
            times.append(np.stack((start, start + 2), axis=1).astype(np.float32))
            features.append(rng.standard_normal((40, 4)).astype(np.float16))
            caps.append(rng.integers(5, 60, (12, 8)).astype(np.int32))
        for suffix, items in (("", features), (".startends", times), (".caps_ids", caps)):
            ShardedTensor.from_list(items, ids=ids).save(str(folder / f"{file_split}_0{suffix}"))
        write_json(folder / f"{file_split}_meta.json", {0: ids})
        (folder / "ids.lst").write_text("\n".join(ids))
    config = {"split": split, "vfeat_dir": str(folder), "tfeat_dir": f"{folder}/", "bert_name": "tests/data/tiny_bert"}
    config |= dict.fromkeys(("train_path", "val_path", "test_path"), str(folder / "ids.lst"))
    config |= {"num_video_per_batch": 2, "clip_per_video": 3, "sampled_min_len": 8, "sampled_max_len": 64}
    config |= {"sampled_video_min_len": 3, "sampled_video_max_len": 32}
    return MMDataset(
        ShardedHow2VideoRetriMetaProcessor(config),
        VideoRetriVideoProcessor(config),
        VideoRetriTextProcessor(config),
        build("aligner", "VideoRetriOverlappedAligner", config),
        seed=seed,
    )


def assert_equal(one: dict[str, Any], other: dict[str, Any], equal: bool = True) -> None:
    keys = [key for key in one if isinstance(one[key], torch.Tensor)]
    assert one.keys() == other.keys() and keys
    assert all(torch.equal(one[key], other[key]) for key in keys) is equal


def test_items_depend_on_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    dataset, again = make_dataset(tmp_path), make_dataset(tmp_path)
    forwards = [dataset[i] for i in range(len(dataset))]
    backwards = [again[i] for i in reversed(range(len(again)))][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert_equal(one, other)
    assert [item["idx"] for item in forwards] == [0, 1, 2, 3]
    assert_equal(make_dataset(tmp_path, seed=2)[0], forwards[0], equal=False)
    dataset.set_epoch(1)
    assert_equal(dataset[0], forwards[0], equal=False)
    dataset.set_epoch(0)
    assert_equal(dataset[0], forwards[0])


@pytest.mark.parametrize("split", ["valid", "test"])
def test_evaluation_items_are_the_same_in_every_epoch(tmp_path: Path, split: str) -> None:
    dataset = make_dataset(tmp_path, split)
    first = dataset[1]
    dataset.set_epoch(5)
    assert_equal(dataset[1], first)


def global_states() -> tuple[Any, ...]:
    legacy = np.random.get_state()  # noqa: NPY002 - the global state is what is tested
    flags = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    return random.getstate(), legacy[1].tolist(), legacy[2], torch.get_rng_state().tolist(), flags


@pytest.mark.parametrize("split", ["train", "test"])
def test_global_random_states_are_left_alone(tmp_path: Path, split: str) -> None:
    dataset = make_dataset(tmp_path, split)
    before = global_states()
    dataset[0]
    assert global_states() == before


def test_spawned_workers_give_the_same_batches(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    dataset.set_epoch(3)
    dataset[0]  # opens shards, which must not travel
    loader = DataLoader(
        dataset, batch_size=1, collate_fn=dataset.collater, num_workers=1, multiprocessing_context="spawn"
    )
    for index, batch in enumerate(loader):
        assert_equal(batch, dataset.collater([dataset[index]]))


def test_indexes_outside_are_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    assert len(list(dataset)) == len(dataset) == 4
    with pytest.raises(IndexError):
        dataset[-1]


def test_collater_stacks_tensors_and_lists_strings() -> None:
    samples = [{"caps": torch.full((3,), i), "video_id": f"v{i}", "idx": i, "extra": None} for i in range(2)]
    batch = MMDataset.collater(samples)
    assert set(batch) == {"caps", "video_id", "idx"}
    assert batch["caps"].tolist() == [[0] * 3, [1] * 3] and batch["idx"].tolist() == [0, 1]
    assert batch["video_id"] == ["v0", "v1"]


def test_collater_of_one_group_adds_a_leading_dimension(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    item = dataset[0]
    batch = dataset.collater([item])
    assert batch["caps"].shape == (1, 2, 3, 64) and batch["vfeats"].shape == (1, 2, 3, 32, 4)
    assert batch["idx"].tolist() == [0]
    assert batch["video_id"] == [item["video_id"]]


def test_items_that_do_not_stack_name_key_and_videos() -> None:
    samples = [{"vfeats": torch.zeros(32, width), "video_id": f"v{width}"} for width in (512, 4)]
    with pytest.raises(DataError, match=r"'vfeats'.*v512.*v4"):
        MMDataset.collater(samples)
    with pytest.raises(DataError, match="'vfeats'"):
        MMDataset.collater([samples[0], {"video_id": "x"}])


class Meta:
    """Items whose ids are their numbers."""

    def __init__(self, split: str, total: int) -> None:
        self.split, self.total = split, total

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, index: int) -> tuple[int, int]:
        return index, index


def aligned_but(bad: set[int], split: str, total: int = 30) -> MMDataset:
    def align(video_id: int, feature: None, text: None, rng: np.random.Generator) -> dict[str, Any]:
        if video_id in bad:
            raise UnusableItemError(f"video {video_id}: nothing to align")
        return {"source": video_id, "draw": rng.integers(1 << 40)}

    return MMDataset(Meta(split, total), lambda _: None, lambda _, rng: None, align)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_unusable_items_are_counted_and_replaced_by_the_next(split: str, caplog: pytest.LogCaptureFixture) -> None:
    dataset = aligned_but({3, 4, 29}, split)
    first = dataset[3]
    assert (first["source"], first["idx"]) == (5, 3) and dataset.unusable == {3, 4}
    assert dataset[3] == first
    assert dataset[29]["source"] == 0
    assert len(caplog.records) == 3 and "video 29" in caplog.text
    assert aligned_but({3, 4, 29}, split)[3] == first
    dataset.set_epoch(1)
    assert dataset.unusable == set() and dataset[3]["source"] == 5


def test_too_many_unusable_items_stop_the_job() -> None:
    with pytest.raises(DataError, match=r"4 of the 30 items.*video 6"):
        aligned_but({3, 4, 5, 6}, "train")[3]
    with pytest.raises(DataError, match="no item of the train split is usable"):
        aligned_but({0}, "train", total=1)[0]


def test_evaluation_never_replaces_an_item() -> None:
    with pytest.raises(UnusableItemError, match="video 3"):
        aligned_but({3}, "test")[3]


def test_the_limit_of_unusable_items_is_shared_among_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = set(range(0, 200, 13))  # 16 of 200: fewer than a tenth, unless one of four workers meets them all
    alone = aligned_but(bad, "train", total=200)
    assert len([alone[i] for i in range(200)]) == 200 and alone.unusable == bad
    loaded = aligned_but(bad, "train", total=200)
    assert len(list(DataLoader(loaded, batch_size=1, collate_fn=len, num_workers=2, shuffle=False))) == 200
    monkeypatch.setattr("mmpt.datasets.mmdataset.world", lambda: (0, 4))
    alone.set_epoch(1)
    with pytest.raises(DataError, match="6 of the 200 items.*one of 4 processes"):
        [alone[i] for i in range(200)]


def test_few_unusable_items_do_not_stop_a_worker_with_a_small_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmpt.datasets.mmdataset.world", lambda: (0, 8))
    dataset = aligned_but({3, 4, 29}, "train")
    dataset.set_epoch(1)
    assert dataset[3]["source"] == 5 and dataset[29]["source"] == 0
