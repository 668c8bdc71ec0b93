"""Items of captioning: inputs, labels and references, and the caption texts of MSR-VTT."""

import json

import numpy as np
import pytest
import torch

from mmpt.datasets.mmdataset import MMDataset
from mmpt.processors.base import VideoProcessor
from mmpt.processors.captioning import (
    DSNLGAligner,
    MSRVTTNLGMetaProcessor,
    MSRVTTNLGTextProcessor,
    NLGTextProcessor,
)
from mmpt.processors.msrvtt import MSRVTTTextProcessor
from mmpt.utils.errors import DataError

BERT = "tests/data/tiny_bert"
CLS, SEP, PAD = 2, 3, 0


def aligner(split: str) -> DSNLGAligner:
    return DSNLGAligner({"bert_name": BERT, "split": split, "max_video_len": 4, "max_len": 12})


FEATURE = np.arange(12, dtype=np.float16).reshape(6, 2)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_training_reads_the_shifted_text_and_predicts_it(split: str) -> None:
    item = aligner(split)(("abc", 3, 9), FEATURE, ([9, 8, 7], "W4 w3, w2!"))
    assert item["caps"].tolist() == [CLS, SEP, CLS, 9, 8, 7, PAD, PAD]
    assert item["text_label"].tolist() == [-100, -100, 9, 8, 7, SEP, -100, -100]
    assert item["cmasks"].tolist() == [True] * 6 + [False] * 2
    assert item["ref"] == "W4 w3, w2!" and item["video_id"] == "abc_3_9"
    assert item["caps"].dtype == item["text_label"].dtype == torch.int64
    assert torch.equal(item["vfeats"], torch.from_numpy(FEATURE[:4]).float()) and item["vmasks"].all()


def test_a_text_that_fills_the_block_keeps_its_end() -> None:
    item = aligner("train")("abc", FEATURE, (list(range(10, 30)), "long"))
    assert item["caps"].tolist() == [CLS, SEP, CLS, 10, 11, 12, 13, 14]
    assert item["text_label"].tolist() == [-100, -100, 10, 11, 12, 13, 14, SEP] and item["cmasks"].all()


def test_a_test_gives_the_prompt_alone() -> None:
    item = aligner("test")("abc", FEATURE, ([9, 8, 7], ["first", "second"]))
    assert item["caps"].tolist() == [CLS, SEP, CLS] and item["ref"] == ["first", "second"]
    assert item["cmasks"].tolist() == [True] * 8
    assert item["text_label"].tolist() == [CLS, SEP, 9, 8, 7, SEP, PAD, PAD]


def test_a_bad_clip_is_named() -> None:
    with pytest.raises(DataError, match="video abc: its features hold no second"):
        aligner("train")("abc", FEATURE[:0], ([9], "w4"))


def test_text_and_ids() -> None:
    assert NLGTextProcessor({"bert_name": BERT})("W4 w3 nonsense") == ([9, 8, 1], "W4 w3 nonsense")


@pytest.fixture
def msrvtt(tmp_path):
    sentences = [{"video_id": f"video{i}", "caption": f"w{i} w{j}"} for i in range(3) for j in range(4)]
    (tmp_path / "data.json").write_text(json.dumps({"sentences": sentences}))
    (tmp_path / "list.csv").write_text("video_id,sentence\nvideo0,w9 w9\nvideo2,w8 w8\n")
    (tmp_path / "feat").mkdir()
    for i in range(3):
        np.save(tmp_path / "feat" / f"video{i}.npy", FEATURE)
    paths = {key: str(tmp_path / "list.csv") for key in ("train_path", "val_path", "test_path")}
    return {**paths, "json_path": str(tmp_path / "data.json"), "bert_name": BERT, "vfeat_dir": str(tmp_path / "feat")}


def test_a_test_of_msrvtt_has_all_captions_of_a_video(msrvtt) -> None:
    config = {**msrvtt, "split": "test"}
    assert MSRVTTNLGMetaProcessor(config).data == [("video0", "video0"), ("video2", "video2")]
    text = MSRVTTNLGTextProcessor(config)
    assert text("video2") == ([7, 5], [f"w2 w{j}" for j in range(4)])
    assert text("w9 w9") == ([14, 14], "w9 w9")  # a sentence of a list
    plain = {key: value for key, value in config.items() if key != "json_path"}
    assert MSRVTTNLGMetaProcessor(plain).data == [("video0", "w9 w9"), ("video2", "w8 w8")]
    assert MSRVTTNLGTextProcessor(plain)("w9 w9") == ([14, 14], "w9 w9")


def test_training_on_msrvtt_draws_the_caption_that_retrieval_draws(msrvtt) -> None:
    config = {**msrvtt, "split": "train"}
    text, retrieval = MSRVTTNLGTextProcessor(config), MSRVTTTextProcessor(config)
    drawn = set()
    for seed in range(20):
        ids, caption = text("video1", rng=np.random.default_rng(seed))
        assert ids == retrieval("video1", rng=np.random.default_rng(seed))
        drawn.add(caption)
    assert drawn == {f"w1 w{j}" for j in range(4)}
    with pytest.raises(DataError, match=r"no captions for video 'video9'"):
        text("video9")


def test_items_of_several_references_collate(msrvtt) -> None:
    config = {**msrvtt, "split": "test", "max_video_len": 4, "max_len": 12}
    parts = (MSRVTTNLGMetaProcessor, VideoProcessor, MSRVTTNLGTextProcessor, DSNLGAligner)
    dataset = MMDataset(*(part(config) for part in parts))
    batch = dataset.collater([dataset[0], dataset[1]])
    assert [len(one) for one in batch["ref"]] == [4, 4] and batch["caps"].shape == (2, 3)
    assert batch["text_label"].shape == (2, 8) and batch["video_id"] == ["video0", "video2"]
