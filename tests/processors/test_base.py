"""Base classes: splits, hold-out, the token layout, concatenation of clips."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BatchEncoding

from mmpt.processors.base import (
    Aligner,
    MetaProcessor,
    TextProcessor,
    VideoProcessor,
    holdout,
    read_id_list,
    video_name,
)
from mmpt.utils.errors import ConfigError, DataError

BERT = "tests/data/tiny_bert"
CLS, SEP, PAD = 2, 3, 0
ALIGNER = Aligner({"bert_name": BERT})


def test_two_words_make_five_marked_tokens_of_64() -> None:
    caps, cmasks = ALIGNER._build_text_seq([17, 23])
    assert caps.dtype == torch.int64 and cmasks.dtype == torch.bool
    assert caps.tolist() == [CLS, SEP, 17, 23, SEP] + [PAD] * 59
    assert cmasks.tolist() == [True] * 5 + [False] * 59


@pytest.mark.parametrize("words", [61, 62, 500])
def test_text_is_cut_to_61_words(words: int) -> None:
    caps, cmasks = ALIGNER._build_text_seq(list(range(100, 100 + words)))
    assert caps.tolist() == [CLS, SEP, *range(100, 161), SEP]
    assert cmasks.all()


@pytest.mark.parametrize(
    "feature",
    [
        [7, 8],
        (7, 8),
        np.array([7, 8], dtype=np.int32),
        torch.tensor([7, 8]),
        torch.tensor([[7, 8]]),
        {"input_ids": [7, 8]},
        BatchEncoding({"input_ids": [7, 8]}),
        {"cap": [[7, 8], [9]], "start": [0.0, 1.0], "end": [1.0, 2.0]},
    ],
)
def test_every_kind_of_text_feature(feature: object) -> None:
    assert ALIGNER._build_text_seq(feature)[0][:6].tolist() == [CLS, SEP, 7, 8, SEP, PAD]


def test_chosen_clips_are_concatenated_in_the_order_given() -> None:
    feature = {"cap": [[5], [6, 7], [], [8]]}
    assert ALIGNER._build_text_seq(feature, [3, 2, 1])[0][:6].tolist() == [CLS, SEP, 8, 6, 7, SEP]


def test_no_words_leave_three_specials() -> None:
    caps, cmasks = ALIGNER._build_text_seq([])
    assert caps[:4].tolist() == [CLS, SEP, SEP, PAD] and cmasks.sum() == 3


@pytest.mark.parametrize("feature", ["onion", [[1, 2], [3, 4]], [0.5], {"cap": []}])
def test_text_that_is_no_list_of_ids_is_refused(feature: object) -> None:
    with pytest.raises(DataError):
        ALIGNER._build_text_seq(feature)


def test_video_defaults_to_its_first_seconds() -> None:
    feature = np.arange(120, dtype=np.float16).reshape(40, 3)
    vfeats, vmasks = ALIGNER._build_video_seq(feature)
    assert vfeats.dtype == torch.float32 and vmasks.dtype == torch.bool and vmasks.all()
    np.testing.assert_array_equal(vfeats, feature[:32].astype(np.float32))


def test_short_video_is_padded_with_zeros() -> None:
    vfeats, vmasks = ALIGNER._build_video_seq(np.ones((5, 3), dtype=np.float32))
    assert vfeats.shape == (32, 3) and vmasks.tolist() == [True] * 5 + [False] * 27
    assert vfeats.sum() == 15


@given(
    clips=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 60)), min_size=1, max_size=5),
    seconds=st.integers(1, 50),
)
def test_clips_are_concatenated_until_full(clips: list[tuple[int, int]], seconds: int) -> None:
    feature = np.arange(1, seconds + 1, dtype=np.float32)[:, None]
    expected = [value for start, end in clips for value in feature[start:end, 0]][:32]
    start, end = zip(*clips, strict=True)
    vfeats, vmasks = ALIGNER._build_video_seq(feature, {"start": start, "end": end})
    assert vfeats[:, 0].tolist() == expected + [0.0] * (32 - len(expected))
    assert int(vmasks.sum()) == len(expected) and vmasks[: len(expected)].all()


def test_video_of_wrong_rank_is_refused() -> None:
    with pytest.raises(DataError, match=r"\(4,\)"):
        ALIGNER._build_video_seq(np.ones(4))


def test_lengths_follow_the_config_and_leave_room_for_a_word() -> None:
    aligner = Aligner({"bert_name": BERT, "max_video_len": 8, "max_len": 24})
    assert aligner._build_text_seq([9])[0].shape == (16,) and aligner.max_text_len == 13
    with pytest.raises(ConfigError, match="max_len 11"):
        Aligner({"bert_name": BERT, "max_video_len": 8, "max_len": 11})


def test_text_processor_gives_plain_ids_and_pickles() -> None:
    processor = pickle.loads(pickle.dumps(TextProcessor({"bert_name": BERT})))
    assert processor("w0 w3") == [5, 8]


def test_video_processor_reads_a_file_per_video(tmp_path: Path) -> None:
    feature = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float16)
    np.save(tmp_path / "a.npy", feature)
    processor = VideoProcessor({"vfeat_dir": str(tmp_path)})
    np.testing.assert_array_equal(processor("a"), feature)
    np.testing.assert_array_equal(processor(("a", 0, 2)), feature)
    with pytest.raises(DataError, match="missing_video"):
        processor("missing_video")
    with pytest.raises(ConfigError, match="vfeat_dir"):
        VideoProcessor({})


def test_meta_processor_names_the_key_of_its_split(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="val_path"):
        _ = MetaProcessor({"split": "valid", "train_path": "x"}).path
    with pytest.raises(DataError, match=r"dataset\.test_path.*gone\.lst"):
        _ = MetaProcessor({"split": "test", "test_path": str(tmp_path / "gone.lst")}).path
    with pytest.raises(ConfigError, match="split"):
        MetaProcessor({"split": "dev"})


def test_id_list_missing_or_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.lst").write_text("\n  \n")
    with pytest.raises(DataError, match=r"train_path.*empty\.lst lists no videos"):
        read_id_list(tmp_path / "empty.lst", "train_path")
    with pytest.raises(DataError, match=r"train_path.*gone\.lst"):
        read_id_list(tmp_path / "gone.lst", "train_path")
    (tmp_path / "ids.lst").write_text("a\n\n b \r\nc")
    assert read_id_list(tmp_path / "ids.lst", "train_path") == ["a", "b", "c"]


def test_holdout_depends_on_the_id_alone_and_hits_the_fraction() -> None:
    ids = [f"video{i}" for i in range(5000)]
    mask = holdout(ids, 0.2)
    assert 0.17 < mask.mean() < 0.23
    np.testing.assert_array_equal(holdout(ids[::-1], 0.2), mask[::-1])
    np.testing.assert_array_equal(holdout(ids[:10] * 2, 0.2), np.tile(mask[:10], 2))
    assert not holdout(ids, 0.0).any()
    assert (holdout(ids, 0.4) | ~mask).all()  # a larger fraction holds out the same videos and more


def test_valid_and_train_split_one_list_without_overlap(tmp_path: Path) -> None:
    ids = [f"v{i}" for i in range(200)]
    path = tmp_path / "ids.lst"
    path.write_text("\n".join(ids))
    config = {"train_path": str(path), "val_path": str(path), "test_path": str(path), "val_holdout": 0.3}
    masks = {split: MetaProcessor({**config, "split": split}).in_split(ids) for split in ("train", "valid", "test")}
    np.testing.assert_array_equal(masks["train"], ~masks["valid"])
    assert masks["test"].all() and 0 < masks["valid"].sum() < 200
    kept_out = [name for name, out in zip(ids, masks["valid"], strict=True) if not out]
    with pytest.raises(DataError, match=r"val_path.*empty valid split"):
        MetaProcessor({**config, "split": "valid"}).in_split(kept_out[:3])
    with pytest.raises(ConfigError, match="val_holdout"):
        MetaProcessor({**config, "val_holdout": 1.0})


def test_video_name() -> None:
    assert video_name("a") == video_name(("a", 1, 2)) == video_name(["a"]) == "a"
