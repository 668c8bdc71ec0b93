"""DiDeMo in its two protocols, from a hand-made file in the public format."""

import json
import pickle

import numpy as np
import pytest

from mmpt.processors.didemo import DiDeMoMetaProcessor, DiDeMoParagraphMetaProcessor
from mmpt.utils.errors import DataError

FIRST = "54322086@N00_2408598493_274c77d26a.avi"
SECOND = "1234@N01_5.mov"
RECORDS = [
    {"annotation_id": 1, "video": FIRST, "description": "a dog runs", "times": [[0, 0], [0, 1]], "num_segments": 6},
    {"annotation_id": 2, "video": SECOND, "description": " the sea ", "times": [[2, 2]], "num_segments": 6},
    {"annotation_id": 3, "video": FIRST, "description": "it stops", "times": [[5, 5]], "num_segments": 6},
]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "test_data.json").write_text(json.dumps(RECORDS))
    (tmp_path / "feat").mkdir()
    for name in (FIRST.removesuffix(".avi"), SECOND):  # with and without the extension
        np.save(tmp_path / "feat" / f"{name}.npy", np.zeros((30, 4), np.float16))
    return tmp_path


def config(files, **more):
    return {"split": "test", "test_path": str(files / "test_data.json"), "vfeat_dir": str(files / "feat"), **more}


def test_moment_protocol(files):
    meta = DiDeMoMetaProcessor(config(files))
    first = FIRST.removesuffix(".avi")
    assert [meta[i] for i in range(len(meta))] == [(first, "a dog runs"), (SECOND, "the sea"), (first, "it stops")]
    assert meta.data[0]["times"] == [[0, 0], [0, 1]] and meta.data[0]["video"] == first
    assert pickle.loads(pickle.dumps(meta))[2] == (first, "it stops")


def test_paragraph_protocol(files):
    meta = DiDeMoParagraphMetaProcessor(config(files))
    assert [meta[i] for i in range(len(meta))] == [
        (FIRST.removesuffix(".avi"), "a dog runs it stops"),
        (SECOND, "the sea"),
    ]
    assert meta.data[0]["sentences"] == ["a dog runs", "it stops"]


def test_paragraphs_need_no_times(files):
    records = [{key: record[key] for key in ("video", "description")} for record in RECORDS]
    (files / "test_data.json").write_text(json.dumps(records))
    assert len(DiDeMoParagraphMetaProcessor(config(files))) == 2
    with pytest.raises(DataError, match="test_data.json: record 0: no key 'times'"):
        DiDeMoMetaProcessor(config(files))


def test_without_a_feature_folder_names_are_those_of_the_file(files):
    assert DiDeMoMetaProcessor(config(files, vfeat_dir=None))[0] == (FIRST, "a dog runs")


def test_unusable_records_are_counted_up_to_a_limit(files, caplog):
    extra = [
        {"video": "gone.avi", "description": "x", "times": [[0, 0]]},
        {"video": FIRST, "description": " ", "times": [[0, 0]]},
        {"video": FIRST, "description": "x", "times": []},
    ]
    (files / "test_data.json").write_text(json.dumps(RECORDS + extra))
    with pytest.raises(DataError, match="3 of 6 items"):
        DiDeMoMetaProcessor(config(files))
    assert len(DiDeMoMetaProcessor(config(files, max_missing=0.5))) == 3
    for reason in ("1 without features (for example gone.avi)", "1 without a description", "1 without times"):
        assert reason in caplog.text


def test_holdout_splits_by_video_and_not_by_how_features_are_named(files):
    records = [{"video": f"v{i}.avi", "description": f"d{k}", "times": [[0, 0]]} for i in range(60) for k in range(2)]
    (files / "test_data.json").write_text(json.dumps(records))
    settings = {key: str(files / "test_data.json") for key in ("train_path", "val_path")} | {"val_holdout": 0.3}
    held_out = []
    for ending in ("", ".avi"):
        folder = files / f"feat{ending}"
        folder.mkdir(exist_ok=True)
        for i in range(60):
            np.save(folder / f"v{i}{ending}.npy", np.zeros((2, 2)))
        splits = {
            split: DiDeMoParagraphMetaProcessor(config(files, split=split, vfeat_dir=str(folder), **settings)).data
            for split in ("train", "valid")
        }
        assert len(splits["train"]) + len(splits["valid"]) == 60 and splits["valid"]
        held_out.append({record["video"].removesuffix(".avi") for record in splits["valid"]})
    assert held_out[0] == held_out[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "lists no items"),
        ({"video": "v"}, "expected a list of records"),
        ([{"video": "../x.avi", "description": "d", "times": []}], "'../x.avi' is not a video id"),
        ([{"vidoe": "x.avi", "description": "d", "times": []}], "Did you mean 'vidoe'"),
    ],
)
def test_wrong_lists(files, content, message):
    (files / "test_data.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as error:
        DiDeMoMetaProcessor(config(files))
    assert "test_data.json" in str(error.value)
