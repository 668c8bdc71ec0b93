"""YouCook2 lists, annotations and clips, from hand-made files in the public formats."""

import json
import os
import pickle

import numpy as np
import pytest

from mmpt.processors.youcook import YoucookMetaProcessor, YoucookVideoProcessor
from mmpt.utils.errors import ConfigError, DataError

RECORDS = [
    {"id": "vid_A_0", "caption": "pickle caption 0"},
    {"id": "vid_A_1", "caption": "pickle caption 1"},
    {"id": "vidB_0", "caption": "pickle caption B"},
]
DATABASE = {
    "vid_A": {
        "annotations": [
            {"id": 0, "segment": [2, 5], "sentence": "cut the onion"},
            {"id": 1, "segment": [4.5, 99.2], "sentence": "fry it"},
        ]
    },
    "vidB": {"annotations": [{"id": 0, "segment": [0, 1], "sentence": "serve"}]},
}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "val.pkl").write_bytes(pickle.dumps(RECORDS))
    (tmp_path / "val.json").write_text(json.dumps(RECORDS))
    (tmp_path / "annotations.json").write_text(json.dumps({"database": DATABASE}))
    folder = tmp_path / "feat"
    folder.mkdir()
    np.save(folder / "vid_A.npy", np.arange(20, dtype=np.float16).reshape(10, 2))
    np.save(folder / "vidB.npy", np.ones((3, 2), np.float16))
    return tmp_path


def config(files, **more):
    base = {"test_path": "val.pkl", "trainval_annotation": "annotations.json", "vfeat_dir": "feat"}
    return {**{key: str(files / name) for key, name in base.items()}, "split": "test", **more}


def rewrite(files, records=None, database=None):
    if records is not None:
        (files / "val.pkl").write_bytes(pickle.dumps(records))
    if database is not None:
        (files / "annotations.json").write_text(json.dumps({"database": database}))


@pytest.mark.parametrize("name", ["val.pkl", "val.json"])
def test_list_and_annotations(files, name):
    clips = [("vid_A", 2, 5), ("vid_A", 4, 100), ("vidB", 0, 1)]
    path = str(files / name)
    meta = YoucookMetaProcessor(config(files, test_path=path))
    assert meta.data == list(zip(clips, [record["caption"] for record in RECORDS], strict=True))
    meta = YoucookMetaProcessor(config(files, test_path=path, use_annotation_text=True))
    assert meta.data == list(zip(clips, ["cut the onion", "fry it", "serve"], strict=True))
    assert pickle.loads(pickle.dumps(meta))[1] == (("vid_A", 4, 100), "fry it")


def test_clips_of_features(files):
    video = YoucookVideoProcessor(config(files))
    assert np.asarray(video(("vid_A", 2, 5))).tolist() == [[4, 5], [6, 7], [8, 9]]
    assert video(("vid_A", 8, 100)).shape == (2, 2)
    for clip in (("vid_A", 10, 12), ("vid_A", 5, 5), ("vid_A", -3, -1)):
        with pytest.raises(DataError, match="'vid_A' cover 10 s, nothing of"):
            video(clip)
    with pytest.raises(DataError, match="vidC"):
        video(("vidC", 0, 1))


def test_records_may_carry_their_own_times(files):
    records = [
        {"id": "vid_A_0", "caption": "x", "start": 1.2, "end": 3},
        {"id": "vidB_7", "caption": "y", "segment": [0, 2]},
    ]
    rewrite(files, records)
    meta = YoucookMetaProcessor(config(files, trainval_annotation=None))
    assert meta.data == [(("vid_A", 1, 3), "x"), (("vidB", 0, 2), "y")]
    rewrite(files, RECORDS)
    with pytest.raises(DataError, match="'vid_A_0' has neither segment nor start and end.*trainval_annotation"):
        YoucookMetaProcessor(config(files, trainval_annotation=None))
    with pytest.raises(ConfigError, match="use_annotation_text: needs dataset.trainval_annotation"):
        YoucookMetaProcessor(config(files, trainval_annotation=None, use_annotation_text=True))


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        ([10, 12], "begins after the features end"),
        ([4, 4], "times are not 0 <= start < end"),
        ([5, 3], "times are not 0 <= start < end"),
        ([-1, 3], "times are not 0 <= start < end"),
        ([float("nan"), 3], "times are not 0 <= start < end"),
        (["a", 3], "times are not 0 <= start < end"),
        ([1], "times are not 0 <= start < end"),
        (None, "times are not 0 <= start < end"),
    ],
)
def test_unusable_segments_are_counted(files, segment, reason, caplog):
    database = json.loads(json.dumps(DATABASE))
    database["vid_A"]["annotations"][1]["segment"] = segment
    rewrite(files, database=database)
    with pytest.raises(DataError, match=f"1 of 3 items.*{reason}.*vid_A_1"):
        YoucookMetaProcessor(config(files))
    assert len(YoucookMetaProcessor(config(files, max_missing=0.34))) == 2
    assert reason in caplog.text


def test_missing_features_annotations_and_texts_are_counted(files, caplog):
    records = [
        *RECORDS,
        {"id": "gone_0", "caption": "x"},
        {"id": "vidB_9", "caption": "x"},
        {"id": "vid_A_0", "caption": " "},
        {"id": "unknown_0", "caption": "x"},
    ]
    rewrite(files, records, {**DATABASE, "gone": DATABASE["vidB"]})
    assert len(YoucookMetaProcessor(config(files, max_missing=0.6))) == 3
    for reason in (
        "1 without features (for example gone_0)",
        "2 without an annotation (for example vidB_9, unknown_0)",
        "1 without a caption (for example vid_A_0)",
    ):
        assert reason in caplog.text


def test_holdout_splits_by_video_not_by_clip(files):
    records = [{"id": f"v{i}_{clip}", "caption": "x", "start": 0, "end": 2} for i in range(80) for clip in range(4)]
    rewrite(files, records)
    for i in range(80):
        np.save(files / "feat" / f"v{i}.npy", np.zeros((2, 2)))
    path = str(files / "val.pkl")
    settings = {"train_path": path, "val_path": path, "val_holdout": 0.25, "trainval_annotation": None}
    train, valid = (YoucookMetaProcessor(config(files, split=split, **settings)) for split in ("train", "valid"))
    in_train, in_valid = ({video for (video, _, _), _ in meta.data} for meta in (train, valid))
    assert len(train) + len(valid) == 320 and len(in_train) + len(in_valid) == 80 and len(in_valid) > 5


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "lists no items"),
        ({"id": "v_0"}, "expected a list of records"),
        ([{"id": "v_0", "captoin": "x"}], "record 0: no key 'caption'.*Did you mean 'captoin'"),
        ([{"id": "novideo", "caption": "x"}], "'novideo' is not <video id>_<number"),
        ([{"id": "v_x", "caption": "x"}], "'v_x' is not"),
        ([{"id": 3, "caption": "x"}], "3 is not"),
        ([{"id": "../../etc_0", "caption": "x"}], "'../../etc' is not a video id"),
    ],
)
def test_wrong_lists(files, records, message):
    rewrite(files, records)
    with pytest.raises(DataError, match=message) as error:
        YoucookMetaProcessor(config(files))
    assert "val.pkl" in str(error.value)


def test_wrong_annotation_files(files):
    for content, message in (
        ("[]", "no dict 'database'"),
        ('{"databse": {}}', "Did you mean 'databse'"),
        ("x", "not a JSON"),
    ):
        (files / "annotations.json").write_text(content)
        with pytest.raises(DataError, match=message):
            YoucookMetaProcessor(config(files))


def test_pickled_code_is_not_run(files):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(files / "ran"),)

    rewrite(files, [Evil()])
    with pytest.raises(DataError, match="val.pkl"):
        YoucookMetaProcessor(config(files))
    assert not (files / "ran").exists()
