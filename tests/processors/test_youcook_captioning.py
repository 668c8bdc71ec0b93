"""YouCook2 lists of videos for captioning, from hand-made files in the public format."""

import json

import numpy as np
import pytest

from mmpt.processors.youcook import YoucookMetaProcessor
from mmpt.processors.youcook_captioning import YoucookNLGMetaProcessor
from mmpt.utils.errors import ConfigError, DataError

DATABASE = {
    "vid_A": {
        "duration": 10.5,
        "subset": "validation",
        "recipe_type": "101",
        "annotations": [
            {"id": 0, "segment": [2, 5], "sentence": "Cut the onion. "},
            {"id": 1, "segment": [4.5, 99.2], "sentence": "fry it"},
        ],
    },
    "vidB": {"annotations": [{"id": 0, "segment": [0, 1], "sentence": "serve"}]},
    "other": {"annotations": [{"id": 0, "segment": [0, 1], "sentence": "of another list"}]},
}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "val_list.txt").write_text("101/vid_A\n\n113/vidB\n")
    (tmp_path / "annotations.json").write_text(json.dumps({"database": DATABASE}))
    (tmp_path / "feat").mkdir()
    np.save(tmp_path / "feat" / "vid_A.npy", np.arange(20, dtype=np.float16).reshape(10, 2))
    np.save(tmp_path / "feat" / "vidB.npy", np.ones((3, 2), np.float16))
    return tmp_path


def config(files, **more):
    base = {"test_path": "val_list.txt", "trainval_annotation": "annotations.json", "vfeat_dir": "feat"}
    return {**{key: str(files / name) for key, name in base.items()}, "split": "test", **more}


def test_every_clip_of_the_listed_videos_with_its_sentence(files) -> None:
    meta = YoucookNLGMetaProcessor(config(files))
    wanted = [(("vid_A", 2, 5), "Cut the onion."), (("vid_A", 4, 100), "fry it"), (("vidB", 0, 1), "serve")]
    assert meta.data == wanted and len(meta) == 3 and meta.split == "test"
    # As the clips of retrieval, whose list names them one by one.
    clips = [{"id": "vid_A_0"}, {"id": "vid_A_1"}, {"id": "vidB_0"}]
    (files / "clips.json").write_text(json.dumps(clips))
    listed = config(files, test_path=str(files / "clips.json"), use_annotation_text=True)
    assert YoucookMetaProcessor(listed).data == wanted


def test_validation_holds_out_whole_videos(files) -> None:
    lines = [f"1/video{number}" for number in range(40)]
    (files / "val_list.txt").write_text("\n".join(lines))
    database = {line[2:]: DATABASE["vid_A"] for line in lines}
    (files / "annotations.json").write_text(json.dumps({"database": database}))
    path = str(files / "val_list.txt")
    sides = [
        YoucookNLGMetaProcessor(
            config(files, split=split, train_path=path, val_path=path, val_holdout=0.3, vfeat_dir=None)
        )
        for split in ("train", "valid")
    ]
    train, valid = ({video for (video, _, _), _ in side.data} for side in sides)
    assert train | valid == set(database) and not train & valid and len(sides[0]) == 2 * len(train)


def test_what_cannot_be_used_is_counted(files, caplog) -> None:
    (files / "val_list.txt").write_text("101/vid_A\n113/vidB\n113/gone\n")
    broken = {**DATABASE, "vidB": {"annotations": [*DATABASE["vidB"]["annotations"], {"segment": [2, 2]}, "?"]}}
    broken["vidB"]["annotations"].append({"segment": [50, 60], "sentence": "after the end"})
    (files / "annotations.json").write_text(json.dumps({"database": broken}))
    with caplog.at_level("WARNING"):
        meta = YoucookNLGMetaProcessor(config(files, max_missing=0.6))
    assert len(meta) == 3
    assert "4 of 7 clips are left out" in caplog.text and "gone" in caplog.text and "vidB_1" in caplog.text
    assert "1 whose segment begins after the features end (for example vidB_3)" in caplog.text
    with pytest.raises(DataError, match=r"max_missing 0\.1"):
        YoucookNLGMetaProcessor(config(files))


def test_wrong_files_and_keys_are_named(files) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.trainval_annotation: not set"):
        YoucookNLGMetaProcessor(config(files, trainval_annotation=None))
    with pytest.raises(DataError, match=r"val_list\.txt: '\.\.' is not a video id"):
        (files / "val_list.txt").write_text("101/..\n")
        YoucookNLGMetaProcessor(config(files))
    with pytest.raises(DataError, match=r"dataset\.test_path: no such file"):
        YoucookNLGMetaProcessor(config(files, test_path=str(files / "absent.txt")))
    with pytest.raises(DataError, match=r"annotations\.json: no dict 'database'"):
        (files / "val_list.txt").write_text("101/vid_A\n")
        (files / "annotations.json").write_text("{}")
        YoucookNLGMetaProcessor(config(files))
