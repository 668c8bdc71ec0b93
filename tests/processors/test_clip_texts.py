"""The public text files of every task, what is used of them, and what is said of wrong ones."""

import json
import pickle

import numpy as np
import pytest
from frame_samples import MASK, TINY_BERT, settings, word, write_frames
from hypothesis import given
from hypothesis import strategies as st

from mmpt.processors.base import holdout
from mmpt.processors.clip_text_processor import ClipTextProcessor, draw_sentences
from mmpt.processors.clip_texts import few_videos
from mmpt.processors.msrvtt_qa import Choice
from mmpt.processors.open_questions import OpenQuestion
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.registry import build

CAPTIONS = [{"video": "v1", "caption": "w1 w2"}, {"video": "v1", "caption": "w3"}, {"video": "v2", "caption": "w4"}]
PARAGRAPH = {"video": "v3", "caption": ["w1 w2", "w3", " w4 "]}
CHOICE = {"video": "v1", "question": "w0", "option_0": "w1", "option_1": "w2", "option_2": "w3", "answer": 2}


def read(tmp_path, content, kind="Retrieval", split="test", **more):
    file = tmp_path / "txt.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    paths = dict.fromkeys(("train_path", "val_path", "test_path"), str(file))
    return build("meta_processor", f"Clip{kind}MetaProcessor", {"split": split, **paths, **more})


def test_captions_of_all_splits_in_one_file(tmp_path):
    content = {"train": CAPTIONS, "val": CAPTIONS[2:], "test": [PARAGRAPH, {"video": 7, "caption": "w5"}]}
    assert read(tmp_path, content, split="train").data == [("v1", "w1 w2"), ("v1", "w3"), ("v2", "w4")]
    assert read(tmp_path, content, split="valid").data == [("v2", "w4")]
    meta = read(tmp_path, content)
    assert meta.data == [("v3", ["w1 w2", "w3", "w4"]), ("7", "w5")] and meta.num_labels is None
    assert pickle.loads(pickle.dumps(meta)).data == meta.data
    assert read(tmp_path, CAPTIONS).data == read(tmp_path, {"test": CAPTIONS}).data


def test_choices(tmp_path):
    plain = {key: value for key, value in CHOICE.items() if key not in ("question", "option_2")} | {"answer": 0}
    meta = read(tmp_path, {"test": [CHOICE]}, "Choice")
    assert meta.data == [("v1", Choice(2, ("w1", "w2", "w3"), "w0"))]
    meta = read(tmp_path, {"test": [CHOICE, plain]}, "Choice")  # MSRVTT-MC has no questions
    assert meta.data[1] == ("v1", Choice(0, ("w1", "w2"), "", 3))


def test_questions_as_violet_writes_them(tmp_path):
    items = [{"video": "v", "question": "w1", "answer": 1}, {"video": "v", "question": "w2", "answer": -1}]
    content = {"train": items[:1], "test": [{**items[1], "answer_text": "w9"}], "vocab": ["w5", "w6"]}
    meta = read(tmp_path, content, "Question", "train")
    assert meta.data == [("v", OpenQuestion("w1", "w6", 1))]
    assert meta.labels == ["w5", "w6"] and meta.num_labels == 2
    assert read(tmp_path, content, "Question").data == [("v", OpenQuestion("w2", "w9", -1))]
    alone = read(tmp_path, {"test": items[:1]}, "Question")  # classes without a vocabulary
    assert alone.data == [("v", OpenQuestion("w1", "", 1))] and alone.num_labels is None


def test_questions_as_lavender_writes_them(tmp_path):
    classes = {"w5": 1, "w6": 0, "w7": 1}
    items = [
        {"video": "v", "question": "a [MASK]", "answer": 1},
        {"video": "v", "question": "b", "answer_text": "w6"},
        {"video": "v", "question": "c", "answer_text": "w8"},
        {"video": "v", "question": "d", "answer": "w7"},
        {"video": "v", "question": "e", "answer": 0, "answer_text": 2},
    ]
    meta = read(tmp_path, {"test": items, "ans2label": classes}, "Question")
    assert [text for _, text in meta.data] == [
        OpenQuestion("a [MASK]", "w5", 1),
        OpenQuestion("b", "w6", 0),
        OpenQuestion("c", "w8", -1),
        OpenQuestion("d", "w7", 1),
        OpenQuestion("e", "2", 0),
    ]
    assert meta.labels == ["w6", "w5"]
    assert read(tmp_path, {"test": items[2:3]}, "Question").data == [("v", OpenQuestion("c", "w8", -1))]


def test_records_by_the_thousand_are_what_they_are_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr("mmpt.processors.clip_text_files.RUN", 3)
    captions = {f"v{number}": [f" w{number} ", "another"] for number in range(12)}
    captions |= {" v4 ": ["w4 w4"], "v7": "w7", "vé": ["w1"], "v9": [" "], "v10": [], "v11": [5]}
    write_frames(tmp_path / "store", {name: 1 for name in captions if name != "v5"} | {"v4": 1})
    for frames in ({}, {"frame_path": str(tmp_path / "store")}):
        meta = read(tmp_path, {"train": captions}, "Pretraining", "train", max_missing=0.9, **frames)
        missing = {"v9", "v10"} | ({"v5"} if frames else set())
        expected = {"v7": "w7", "v11": "5", "vé": "w1", " v4 ": "w4 w4"}
        assert meta.data == [
            (name.strip(), expected.get(name, f"w{name[1:]}")) for name in captions if name not in missing
        ]
    with pytest.raises(DataError, match=r"'v3': caption: expected text, found \[.w1.\]"):
        read(tmp_path, {"train": captions | {"v3": [["w1"]]}}, "Pretraining", "train")


def test_pretraining_takes_the_first_caption_of_several_data_sets(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"train": {"v1": ["w1", "w2"], "v2": "w3"}, "val": {}}))
    (tmp_path / "b.json").write_text(json.dumps({"train": [{"video": "v3", "caption": ["w4"]}]}))
    files = [str(tmp_path / name) for name in ("a.json", "b.json")]
    for given_files in (files, {"webvid": files[0], "cc3m": files[1]}):
        meta = build("meta_processor", "ClipPretrainingMetaProcessor", {"split": "train", "train_path": given_files})
        assert meta.data == [("v1", "w1"), ("v2", "w3"), ("v3", "w4")]
    for bad in ([], [1], {"a": None}):
        with pytest.raises(ConfigError, match="dataset.train_path: .* is no path, list of paths"):
            build("meta_processor", "ClipPretrainingMetaProcessor", {"split": "train", "train_path": bad})
    with pytest.raises(ConfigError, match="dataset.test_path: names several files; open_ended reads one"):
        build("meta_processor", "ClipQuestionMetaProcessor", {"split": "test", "test_path": files})
    with pytest.raises(ConfigError, match="dataset.val_path: not set"):
        build("meta_processor", "ClipQuestionMetaProcessor", {"split": "valid", "test_path": files[0]})


def test_validation_is_held_out_where_the_file_has_none(tmp_path):
    items = [{"video": f"v{number}", "caption": "w1"} for number in range(60)]
    names = [item["video"] for item in items]
    held = set(np.array(names)[holdout(names, 0.2)])
    splits = {
        split: {video for video, _ in read(tmp_path, {"train": items}, split=split, val_holdout=0.2).data}
        for split in ("train", "valid")
    }
    assert splits == {"valid": held, "train": {*names} - held}
    whole = {"train": items, "val": items[:1]}
    assert len(read(tmp_path, whole, split="train", val_holdout=0.2)) == 60
    assert len(read(tmp_path, whole, split="valid", val_holdout=0.2)) == 1
    other = {"val_path": str(tmp_path / "other.json")}
    assert len(read(tmp_path, {"train": items}, split="train", val_holdout=0.2, **other)) == 60


def test_videos_without_frames_are_counted(tmp_path):
    write_frames(tmp_path / "frames", {"v1": 1})
    more = {"frame_path": str(tmp_path / "frames")}
    assert read(tmp_path, {"test": CAPTIONS}, max_missing=0.4, **more).data == [("v1", "w1 w2"), ("v1", "w3")]
    with pytest.raises(DataError, match=r"txt.json: 1 of 3 items are left out: 1 without frames \(for example v2\)"):
        read(tmp_path, {"test": CAPTIONS}, **more)
    content = {"test": [*CAPTIONS, {"video": "v1", "caption": " "}, {"video": "v1", "caption": []}]}
    with pytest.raises(DataError, match=r"2 without a caption \(for example test, record 3, test, record 4\)"):
        read(tmp_path, content)


@given(st.integers(1, 40), st.floats(0.01, 1), st.integers(2, 50), st.integers(-9, 9))
def test_few_videos(videos, fraction, number, seed):
    items = [(f"v{index % videos}", index) for index in range(2 * videos)]
    part = few_videos(items, fraction, seed)
    assert len({video for video, _ in part}) == max(1, round(fraction * videos)) and len(part) % 2 == 0
    assert part == [item for item in items if item in part] == few_videos(items, fraction, seed)
    some = few_videos(items, number, seed)
    assert len(some) == 2 * min(number, videos)
    smaller, larger = sorted((part, some), key=len)
    assert {*smaller} <= {*larger}, "smaller parts are parts of larger ones"
    if videos == 40 and len(part) < 40:
        assert len({tuple(few_videos(items, fraction, other)) for other in range(5)}) > 1


def test_a_part_of_training_alone(tmp_path):
    items = [{"video": f"v{number}", "caption": "w1"} for number in range(20)]
    content = {"train": items, "val": items, "test": items}
    sizes = [len(read(tmp_path, content, split=split, data_ratio=0.25)) for split in ("train", "valid", "test")]
    assert sizes == [5, 20, 20]
    assert len(read(tmp_path, content, split="train", data_ratio=7)) == 7
    assert len(read(tmp_path, content, split="train", data_ratio=1)) == 20
    for ratio in (0, -1, 2.5):
        with pytest.raises(ConfigError, match="dataset.data_ratio"):
            read(tmp_path, content, split="train", data_ratio=ratio)


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("Retrieval", '{"test": [', "txt.json: not a JSON file"),
        ("Retrieval", "3", "txt.json: expected an object with the splits"),
        ("Retrieval", {"train": []}, "txt.json: no split 'test' \\(there is train\\)"),
        ("Retrieval", {"tests": []}, "no split 'test'.*Did you mean 'tests'"),
        ("Retrieval", {"test": 3}, "txt.json: test: expected a list of records, found 3"),
        ("Retrieval", {"test": []}, "gives an empty test split"),
        ("Retrieval", {"test": [*CAPTIONS, 3]}, "txt.json: test, record 3: expected an object, found 3"),
        ("Retrieval", {"test": [{"vid": "v", "caption": "c"}]}, "record 0: no key 'video'.*Did you mean 'vid'"),
        ("Retrieval", {"test": [{"video": "v", "captions": "c"}]}, "record 0: no key 'caption'.*'captions'"),
        ("Retrieval", {"test": [{"video": "v", "caption": {}}]}, "record 0: caption: expected text, found {}"),
        ("Retrieval", {"test": [{"video": "v", "caption": ["c", 1.5]}]}, "caption 1: expected text, found 1.5"),
        ("Retrieval", {"test": [{"video": ["v"], "caption": "c"}]}, "record 0: video: expected text"),
        ("Retrieval", {"test": {"v": ["a"]}}, "txt.json: test, 'v': no key 'caption'"),
        ("Pretraining", {"test": {"v": [3.5]}}, "txt.json: test, 'v': caption: expected text, found 3.5"),
        ("Choice", {"test": [{**CHOICE, "answer": 3}]}, "record 0: answer: 3 is not the index of an option, 0 to 2"),
        ("Choice", {"test": [{**CHOICE, "answer": "1"}]}, "answer: '1' is not the index"),
        ("Choice", {"test": [{**CHOICE, "answer": True}]}, "answer: True is not the index"),
        ("Choice", {"test": [{"video": "v", "option_0": "a", "answer": 0}]}, "no key 'option_1'"),
        ("Question", {"test": [{"video": "v", "answer": 0}]}, "no key 'question'"),
        ("Question", {"test": [{"video": "v", "question": "q"}]}, "no key 'answer'"),
        ("Question", {"test": [{"video": "v", "question": "q", "answer": -2}]}, "answer: -2 is not the class"),
        (
            "Question",
            {"vocab": ["a"], "test": [{"video": "v", "question": "q", "answer": 1}]},
            "record 0: answer: 1 is not the class of an answer, nor -1 for none; the vocabulary has 1 answers",
        ),
        ("Question", {"vocab": {}, "test": []}, "txt.json: vocab: expected a list of answers"),
        ("Question", {"ans2label": {"a": -1}, "test": []}, "ans2label: 'a': -1 is not a class"),
        ("Question", {"ans2label": {"a": 10**9}, "test": []}, "ans2label: 'a': 1000000000 is not a class"),
    ],
)
def test_wrong_files_are_named_with_the_record(tmp_path, kind, content, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, content, kind)


def text_processor(split="test", **more):
    return ClipTextProcessor({"bert_name": TINY_BERT, "split": split, **more})


def test_texts_of_every_kind():
    text = text_processor()
    assert text("w1 w2") == [word(1), word(2)] and text("w1 w2").text == "w1 w2"
    assert pickle.loads(pickle.dumps(text("w1"))).text == "w1"
    assert text("w1 [MASK] w2") == [word(1), MASK, word(2)]
    assert text(["w1 w2", "w3"]).text == "w1 w2 w3"
    choice = text(Choice(1, ("w1", "w2 w3"), "w4", 5))
    assert choice == Choice(1, [[word(1)], [word(2), word(3)]], [word(4)], 5, ("w4", "w1", "w2 w3"))
    assert text((0, ("w1", "w2"))).options == [[word(1)], [word(2)]]  # of MSR_MC_test.csv
    asked = text(OpenQuestion("w1 w2", "w3", 4))
    assert asked == OpenQuestion([word(1), word(2)], [word(3)], 4, ("w1 w2", "w3"))
    assert text(OpenQuestion("w1")).answer_text == []


def test_sentences_are_drawn_in_training_alone():
    sentences, training = ["w1", "w2", "w3"], text_processor("train")
    drawn = {training(sentences, np.random.default_rng(seed)).text for seed in range(300)}
    # every part in every order: 3 of one sentence, 6 of two, 6 of three
    assert len(drawn) == 15 and all(len({*text.split()}) == len(text.split()) for text in drawn)
    for split in ("valid", "test"):
        assert text_processor(split)(sentences, np.random.default_rng(1)).text == "w1 w2 w3"
    assert training(sentences).text == "w1 w2 w3"
    lengths = [len(draw_sentences(sentences, np.random.default_rng(seed))) for seed in range(600)]
    assert min(lengths.count(number) for number in (1, 2, 3)) > 150


def test_a_whole_config_validates(tmp_path):
    from omegaconf import OmegaConf

    from mmpt.utils.schema import validate

    names = {"meta_processor": "ClipQuestionMetaProcessor", "video_processor": "FrameVideoProcessor"}
    names |= {"text_processor": "ClipTextProcessor", "aligner": "VIOLETOpenEndedAligner"}
    section = {**settings(tmp_path), **names, "train_path": "txt.json", "data_ratio": 0.5, "data_ratio_seed": 3}
    assert validate(OmegaConf.create({"dataset": section}), "job.yaml") == []
    with pytest.raises(ConfigError, match="unknown key 'dataset.image_transforms'.*'image_transform'"):
        validate(OmegaConf.create({"dataset": {**section, "image_transforms": "pad_resize"}}), "job.yaml")
