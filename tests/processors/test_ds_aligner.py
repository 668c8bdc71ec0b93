"""DSAligner: the first seconds of a clip with a whole sentence."""

import numpy as np
import pytest
import torch

from mmpt.processors.ds_aligner import DSAligner
from mmpt.utils.errors import DataError
from mmpt.utils.registry import build

ALIGNER = DSAligner({"bert_name": "tests/data/tiny_bert", "split": "test"})


def test_first_seconds_and_whole_sentence() -> None:
    feature = np.arange(80, dtype=np.float16).reshape(40, 2)
    item = ALIGNER("video7", feature, [9, 8, 7])
    assert set(item) == {"caps", "cmasks", "vfeats", "vmasks", "video_id"} and item["video_id"] == "video7"
    assert torch.equal(item["vfeats"], torch.from_numpy(feature[:32]).float()) and item["vmasks"].all()
    assert item["caps"][:7].tolist() == [2, 3, 9, 8, 7, 3, 0] and item["cmasks"].sum() == 6


def test_short_clip_is_padded_and_named_with_its_seconds() -> None:
    item = ALIGNER(("abc", 10, 14), np.ones((4, 2), np.float32), [9])
    assert item["vmasks"].tolist() == [True] * 4 + [False] * 28 and item["video_id"] == "abc_10_14"


def test_didemo_name_is_the_same_class() -> None:
    assert type(build("aligner", "DiDeMoAligner", {"bert_name": "tests/data/tiny_bert"})) is DSAligner


@pytest.mark.parametrize("feature", [np.ones((0, 2)), np.ones(3), np.ones((1, 2, 3))])
def test_bad_features_name_the_video(feature: np.ndarray) -> None:
    with pytest.raises(DataError, match="video video7"):
        ALIGNER("video7", feature, [9])


def test_bad_ids_name_the_video() -> None:
    with pytest.raises(DataError, match="video video7"):
        ALIGNER("video7", np.ones((3, 2)), "a raw sentence")
