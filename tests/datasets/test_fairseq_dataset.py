"""The order in which fairseq sees a dataset: by epoch, and without a video twice in a batch."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fairseq")

from mmpt.datasets.fairseq_dataset import FairseqMMDataset
from mmpt.datasets.mmdataset import PADDING_STEP, MMDataset
from mmpt.processors.base import TextProcessor, VideoProcessor
from mmpt.processors.ds_aligner import DSAligner
from mmpt.processors.msrvtt import MSRVTTMetaProcessor

VIDEOS, COPIES = 10, 5


def msrvtt(folder: Path, split: str, rows: int = VIDEOS) -> FairseqMMDataset:
    names = [f"video{number}" for number in range(rows)]
    (folder / "list.csv").write_text("video_id,sentence\n" + "".join(f"{name},w1\n" for name in names))
    for name in names:
        np.save(folder / f"{name}.npy", np.zeros((3, 4), dtype=np.float16))
    config = dict.fromkeys(("train_path", "val_path", "test_path"), str(folder / "list.csv"))
    config |= {"split": split, "vfeat_dir": str(folder), "bert_name": "tests/data/tiny_bert", "dup": COPIES}
    parts = (kind(config) for kind in (MSRVTTMetaProcessor, VideoProcessor, TextProcessor, DSAligner))
    return FairseqMMDataset(MMDataset(*parts))


def test_copies_of_a_list_are_shuffled_each_on_its_own(tmp_path: Path) -> None:
    dataset = msrvtt(tmp_path, "train")
    assert dataset.dataset.meta_processor.dup == COPIES and len(dataset) == VIDEOS * COPIES
    order = dataset.ordered_indices()
    assert sorted(order) == list(range(VIDEOS * COPIES)) and order.dtype == np.int64
    for batch in dataset.batch_by_size(order, max_sentences=VIDEOS):
        videos = [dataset.dataset.meta_processor[int(index)][0] for index in batch]
        assert len(set(videos)) == len(videos) == VIDEOS


def test_the_order_depends_on_the_epoch_in_training_alone(tmp_path: Path) -> None:
    dataset = msrvtt(tmp_path, "train")
    first = dataset.ordered_indices()
    assert np.array_equal(first, dataset.ordered_indices())
    dataset.set_epoch(2)
    assert not np.array_equal(first, dataset.ordered_indices())
    valid = msrvtt(tmp_path, "valid")
    assert valid.dataset.meta_processor.dup == 1
    assert valid.ordered_indices().tolist() == list(range(VIDEOS))


def test_the_last_batch_may_be_smaller(tmp_path: Path) -> None:
    dataset = msrvtt(tmp_path, "train", rows=7)
    sizes = [len(batch) for batch in dataset.batch_by_size(dataset.ordered_indices(), max_sentences=8)]
    assert sizes == [8, 8, 8, 8, 3]


def test_a_worker_without_a_batch_gets_an_item_that_does_not_count(tmp_path: Path) -> None:
    dataset = msrvtt(tmp_path, "train")
    padding, real = dataset.collater([]), dataset.collater([dataset[0]])
    assert padding.pop(PADDING_STEP) is True
    assert padding.keys() == real.keys()
    assert padding["idx"].tolist() == [0]
    assert PADDING_STEP not in real
