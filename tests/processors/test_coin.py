"""COIN: lists in the public layout, made by hand, and the windows that they become."""

import json
import logging
import pickle

import numpy as np
import pytest
import torch

from mmpt.processors.base import VideoProcessor, holdout
from mmpt.processors.class_names import list_classes, read_class_names
from mmpt.processors.coin import (
    COINActionSegmentationAligner,
    COINActionSegmentationMetaProcessor,
    COINActionSegmentationTextProcessor,
    second_targets,
)
from mmpt.utils.errors import ConfigError, DataError

BERT = {"bert_name": "tests/data/tiny_bert", "use_fast": False}


def video(subset, *segments, **more):
    annotation = [{"id": str(n), "label": label, "segment": list(times)} for n, label, times in segments]
    return {
        "recipe_type": 13,
        "video_url": "https://example.org/embed/x",
        "class": "ReplaceDoorKnob",
        "duration": 60.5,
        "start": 1.0,
        "end": 50.0,
        "subset": subset,
        "annotation": annotation,
        **more,
    }


DATABASE = {
    "train_a": video("training", (1, "remove the knob", (2.4, 4.2)), (2, "put the lock", (4.5, 9.0))),
    "train_b": video("training", (3, "fasten the screw", (0, 3))),
    "test_a": video("testing", (1, "remove the knob", (0.0, 1.5)), (2, "put the lock", (8.5, 99.0))),
    "-test.b": video("testing"),
}


@pytest.fixture
def files(tmp_path):
    write(tmp_path, DATABASE)
    (tmp_path / "feat").mkdir()
    for name, seconds in {"train_a": 20, "train_b": 5, "test_a": 10, "-test.b": 3}.items():
        np.save(tmp_path / "feat" / f"{name}.npy", np.full((seconds, 4), seconds, np.float16))
    return tmp_path


def write(folder, database):
    (folder / "COIN.json").write_text(json.dumps({"database": database}))


def config(files, **more):
    paths = {key: str(files / "COIN.json") for key in ("train_path", "val_path", "test_path")}
    return {**paths, "vfeat_dir": str(files / "feat"), "split": "train", **more}


def test_subsets_and_labels_of_the_whole_database(files):
    meta = COINActionSegmentationMetaProcessor(config(files))
    assert [name for name, _ in meta.data] == ["train_a", "train_b"]
    assert meta[0] == ("train_a", {"start": [2.4, 4.5], "end": [4.2, 9.0], "label": [1, 2]})
    assert meta.labels == ["O", "remove the knob", "put the lock", "fasten the screw"]
    assert (meta.num_labels, meta.background) == (4, 0)
    for split in ("valid", "test"):
        meta = COINActionSegmentationMetaProcessor(config(files, split=split))
        assert [name for name, _ in meta.data] == ["test_a", "-test.b"]
        # label 3 is in the training subset only, and is a class all the same
        assert meta.labels == ["O", "remove the knob", "put the lock", "fasten the screw"]
    assert meta[1] == ("-test.b", {"start": [], "end": [], "label": []})
    assert pickle.loads(pickle.dumps(meta))[0] == meta[0]


def test_the_real_number_of_classes(files):
    segments = [(n, f"step {n}", (n, n + 1)) for n in range(1, 779)]
    write(files, {"train_a": video("training", *segments[::-1]), "test_a": video("testing", segments[5])})
    meta = COINActionSegmentationMetaProcessor(config(files, split="test"))
    assert meta.num_labels == 779 and meta.labels[778] == "step 778"


def test_validation_on_a_held_out_part_of_training(files):
    names = [f"v{number}" for number in range(60)]
    for name in names:
        np.save(files / "feat" / f"{name}.npy", np.zeros((3, 4), np.float16))
    write(files, {**{name: video("training", (1, "cut", (0, 1))) for name in names}, "test_a": video("testing")})
    held = {name for name, out in zip(names, holdout(names, 0.2), strict=True) if out}
    parts = {
        split: {name for name, _ in COINActionSegmentationMetaProcessor(config(files, split=split, val_holdout=0.2))}
        for split in ("train", "valid", "test")
    }
    assert parts == {"train": set(names) - held, "valid": held, "test": {"test_a"}}
    assert held and len(held) < 30


def test_ids_with_gaps_and_another_background(files):
    write(files, {"test_a": video("testing", (0, "cut", (0, 1)), (5, "glue", (1, 2)))})
    with pytest.raises(ConfigError, match=r"dataset\.background: 0 is 'cut' in .*COIN\.json; choose an id"):
        COINActionSegmentationMetaProcessor(config(files, split="test"))
    meta = COINActionSegmentationMetaProcessor(config(files, split="test", background=7))
    assert meta.labels == ["cut", "", "", "", "", "glue", "", "O"]
    assert (meta.num_labels, meta.background) == (8, 7)
    with pytest.raises(ConfigError, match="background: -1 is not a class id"):
        COINActionSegmentationMetaProcessor(config(files, split="test", background=-1))


def test_label_file(files):
    names = {1: "take off the knob", 2: "insert the lock", 3: "tighten the screw"}
    (files / "labels.json").write_text(json.dumps(names))
    (files / "labels.txt").write_text("nothing\n" + "\n".join(names.values()) + "\nsand it\n")
    meta = COINActionSegmentationMetaProcessor(config(files, label_path=str(files / "labels.json")))
    assert meta.labels == ["O", *names.values()]
    meta = COINActionSegmentationMetaProcessor(config(files, label_path=str(files / "labels.txt")))
    assert meta.labels == ["nothing", *names.values(), "sand it"]
    (files / "labels.json").write_text(json.dumps({1: "take off the knob"}))
    with pytest.raises(DataError, match=r"labels\.json: does not name label id 2, 'put the lock' in .*\(2 ids are not"):
        COINActionSegmentationMetaProcessor(config(files, label_path=str(files / "labels.json")))
    for content in ('["a"]', '{"1": 2}', '{"one": "cut"}', "{}"):
        (files / "labels.json").write_text(content)
        with pytest.raises(DataError, match=r"labels\.json"):
            read_class_names(str(files / "labels.json"))
    with pytest.raises(DataError, match=r"nowhere\.txt: cannot be read as a list of names"):
        read_class_names(str(files / "nowhere.txt"))


def test_one_id_with_two_labels_names_both(files):
    write(files, {**DATABASE, "test_b": video("testing", (2, "put the key", (0, 1)))})
    with pytest.raises(
        DataError, match="label id 2 is 'put the lock' in video train_a and 'put the key' in video test_b"
    ):
        COINActionSegmentationMetaProcessor(config(files))


def test_absurd_ids_do_not_fill_the_memory():
    with pytest.raises(DataError, match=r"f: label id 3000000000 \('cut'\) is not in 0 \.\. 99999"):
        list_classes({3_000_000_000: "cut"}, 0, "f")


def test_videos_without_features_are_counted(files, caplog):
    (files / "feat" / "test_a.npy").unlink()
    with pytest.raises(DataError, match=r"1 of 2 videos are left out: 1 without features \(for example test_a\)"):
        COINActionSegmentationMetaProcessor(config(files, split="test"))
    meta = COINActionSegmentationMetaProcessor(config(files, split="test", max_missing=0.5))
    assert [name for name, _ in meta.data] == ["-test.b"]
    assert "1 without features" in caplog.text
    np.save(files / "feat" / "test_a.npy", np.zeros((0, 4), np.float16))
    with pytest.raises(DataError, match="1 whose features hold no second"):
        COINActionSegmentationMetaProcessor(config(files, split="test"))


def test_segments_beyond_the_features(files, caplog):
    caplog.set_level(logging.INFO)
    meta = COINActionSegmentationMetaProcessor(config(files, split="test"))
    assert meta.left_out == {"skipped": 0, "skipped_segments": 0, "cut_segments": 1}
    assert "1 of 2 segments are cut where the features end" in caplog.text
    wrong = [(1, "a", (10.0, 12.0)), (1, "a", (3, 3)), (1, "a", (5, 2)), (1, "a", (-1, 2)), (1, "a", ("x", 2))]
    good = [(1, "a", (0, 1))] * 3
    write(files, {"test_a": video("testing", *wrong, *good, (1, "a", (9.9, 10.0)))})
    with pytest.raises(DataError, match="5 of 9 segments are left out"):
        COINActionSegmentationMetaProcessor(config(files, split="test"))
    meta = COINActionSegmentationMetaProcessor(config(files, split="test", max_missing=0.6))
    assert meta[0][1] == {"start": [0.0, 0.0, 0.0, 9.9], "end": [1.0, 1.0, 1.0, 10.0], "label": [1, 1, 1, 1]}
    assert "1 that begin after the features end" in caplog.text and "4 whose times are not" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": {}}, "no dict 'database'"),
        ({"database": {"a/b": video("testing")}}, "not a video id"),
        ({"database": {"a": {"annotation": []}}}, "video 'a': no key 'subset'"),
        ({"database": {"a": {"subset": "testing"}}}, "video 'a': no key 'annotation'"),
        ({"database": {"a": video("testing") | {"annotation": [{"label": "x"}]}}}, "no key 'id'"),
        ({"database": {"a": video("testing") | {"annotation": [{"id": 1}]}}}, "no text 'label'"),
        ({"database": {"a": video("testing", ("one", "x", (0, 1)))}}, "label id 'one' is not a whole number"),
        ({"database": {"a": video("training")}}, r"test_path.* gives an empty test split"),
    ],
)
def test_damaged_lists(files, content, message):
    (files / "COIN.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        COINActionSegmentationMetaProcessor(config(files, split="test"))


def test_classes_of_seconds():
    segments = {"start": [2.4, 4.0, 8.9], "end": [4.2, 5.0, 30.0], "label": [1, 2, 3]}
    #                                      [2, 5) is 1, then [4, 5) is 2: the later segment has second 4
    assert second_targets(segments, 10, 0).tolist() == [0, 0, 1, 1, 2, 0, 0, 0, 3, 3]
    assert second_targets(segments, 3, 9).tolist() == [9, 9, 1]
    for wrong in (
        {"start": [1]},
        {"start": [1], "end": [2], "label": []},
        {"start": [1], "end": [2], "label": [-3]},
        {"start": [1], "end": [float("inf")], "label": [1]},
    ):
        with pytest.raises(DataError, match="expected segments with start, end and label lists"):
            second_targets(wrong, 3, 0)


def aligner_config(**more):
    return {**BERT, "max_video_len": 32, "max_len": 96, "sliding_window": 16, "sliding_window_size": 32, **more}


def test_a_short_video_is_one_window():
    feature = np.arange(20 * 4, dtype=np.float16).reshape(20, 4)
    segments = {"start": [3.0], "end": [5.0], "label": [7]}
    item = COINActionSegmentationAligner(aligner_config())("v", feature, segments)
    assert item["targets"].shape == (1, 32) and item["targets"].dtype == torch.int64
    assert (item["targets"] == -100).sum() == 12
    assert item["targets"][0, :20].tolist() == [7 if second in (3, 4) else 0 for second in range(20)]
    assert item["vfeats"].shape == (1, 32, 4) and item["vfeats"].dtype == torch.float32
    assert item["vmasks"].tolist() == [[True] * 20 + [False] * 12]
    assert item["caps"].tolist() == [[2, 3, 0, 3]] and item["cmasks"].tolist() == [[False, True, False, True]]
    assert (item["video_len"], item["video_id"], item["video_start"].tolist()) == (20, "v", [0])
    assert item["video_targets"].tolist() == item["targets"][0, :20].tolist()


@pytest.mark.parametrize(("stride", "starts"), [(8, [0, 8, 16, 24]), (16, [0, 16, 32])])
def test_windows_of_training_and_test(stride, starts):
    feature = np.repeat(np.arange(50, dtype=np.float32)[:, None], 2, axis=1)
    segments = {"start": [20], "end": [40], "label": [3]}
    item = COINActionSegmentationAligner(aligner_config(sliding_window=stride, background=1))("v", feature, segments)
    assert item["video_start"].tolist() == starts
    for row, start in enumerate(starts):
        length = min(32, 50 - start)
        assert item["vfeats"][row, :length, 0].tolist() == list(range(start, start + length))
        assert item["targets"][row, :length].tolist() == item["video_targets"][start : start + length].tolist()
    assert item["video_targets"].tolist() == [1] * 20 + [3] * 20 + [1] * 10


def test_wrong_features_name_the_video():
    aligner = COINActionSegmentationAligner(aligner_config())
    with pytest.raises(DataError, match="video abc: .*no seconds"):
        aligner("abc", np.zeros((0, 4), np.float32), {"start": [], "end": [], "label": []})
    with pytest.raises(DataError, match="video abc: expected segments"):
        aligner("abc", np.zeros((3, 4), np.float32), [1, 2])


def test_from_list_to_item(files):
    section = {
        **config(files, split="test"),
        **aligner_config(sliding_window=2, sliding_window_size=4, max_video_len=4),
    }
    meta, features = COINActionSegmentationMetaProcessor(section), VideoProcessor(section)
    text, aligner = COINActionSegmentationTextProcessor(section), COINActionSegmentationAligner(section)
    video_id, text_id = meta[0]
    item = aligner(video_id, features(video_id), text(text_id, rng=np.random.default_rng(0)))
    assert item["video_targets"].tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 2, 2]
    assert item["video_start"].tolist() == [0, 2, 4, 6]
