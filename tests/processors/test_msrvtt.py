"""MSR-VTT lists and captions, from hand-made files in the public formats."""

import json
import pickle

import numpy as np
import pytest

from mmpt.processors.base import holdout
from mmpt.processors.msrvtt import MSRVTTMetaProcessor, MSRVTTTextProcessor, fixed_caption, read_captions
from mmpt.utils.errors import ConfigError, DataError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "dog", "runs"]


@pytest.fixture
def files(tmp_path):
    """Four training videos, a full test list of three, of which one is the 1k-A test."""
    (tmp_path / "train.csv").write_text("video_id\nvideo0\nvideo1\nvideo2\nvideo3\n")
    (tmp_path / "full.csv").write_text(
        "key,vid_key,video_id,sentence\nret0,msr8,video8,eight\nret1,msr9,video9,nine\nret2,msr8,video8,again\n"
        "ret3,msr7,video7,seven\n"
    )
    (tmp_path / "test.csv").write_text('key,vid_key,video_id,sentence\nret0,msr9,video9,"a dog, running"\n')
    sentences = [
        {"video_id": f"video{i}", "caption": f"{c} {i}", "sen_id": i} for i in (0, 1, 2, 3, 8, 9) for c in "abc"
    ]
    sentences.append({"video_id": "video7", "caption": "only"})
    (tmp_path / "data.json").write_text(json.dumps({"info": {}, "videos": [], "sentences": sentences}))
    folder = tmp_path / "feat"
    folder.mkdir()
    for i in range(10):
        np.save(folder / f"video{i}.npy", np.zeros((3, 4), np.float16))
    bert = tmp_path / "bert"
    bert.mkdir()
    (bert / "vocab.txt").write_text("\n".join(WORDS))
    (bert / "config.json").write_text('{"model_type": "bert"}')
    return tmp_path


def config(files, split="train", **more):
    paths = {"train_path": "train.csv", "val_path": "test.csv", "test_path": "test.csv", "json_path": "data.json"}
    base = {key: str(files / name) for key, name in paths.items()}
    return {**base, "split": split, "vfeat_dir": str(files / "feat"), "bert_name": str(files / "bert"), **more}


def test_test_list(files):
    meta = MSRVTTMetaProcessor(config(files, "test", dup=20))
    assert (len(meta), meta[0]) == (1, ("video9", "a dog, running"))


def test_training_list_merges_the_full_test_and_repeats(files):
    merge = {"full_test_path": str(files / "full.csv"), "jsfusion_path": str(files / "test.csv")}
    plain = [(f"video{i}", f"video{i}") for i in range(4)]
    assert MSRVTTMetaProcessor(config(files)).data == plain
    meta = MSRVTTMetaProcessor(config(files, dup=3, **merge))
    assert meta.data == [*plain, ("video8", "video8"), ("video7", "video7")] * 3
    assert MSRVTTMetaProcessor(config(files, "test", **merge)).data == [("video9", "a dog, running")]


def test_half_of_the_merge_warns(files, caplog):
    assert len(MSRVTTMetaProcessor(config(files, full_test_path=str(files / "full.csv")))) == 4
    assert "full_test_path is ignored" in caplog.text


def test_a_held_out_validation_split_shares_no_video_with_training(files):
    names = [f"video{i}" for i in range(300)]
    (files / "train.csv").write_text("video_id\n" + "\n".join(names) + "\n")
    sentences = [{"video_id": name, "caption": f"{c} {name}"} for name in names for c in "abc"]
    (files / "data.json").write_text(json.dumps({"sentences": sentences}))
    for name in names:
        np.save(files / "feat" / f"{name}.npy", np.zeros((3, 4), np.float16))
    settings = {"val_holdout": 0.2, "val_path": str(files / "train.csv")}
    train, valid = (MSRVTTMetaProcessor(config(files, split, **settings)) for split in ("train", "valid"))
    in_train, in_valid = ({video for video, _ in meta.data} for meta in (train, valid))
    assert in_train | in_valid == set(names) and not in_train & in_valid
    assert in_valid == {name for name, held in zip(names, holdout(names, 0.2), strict=True) if held}
    assert 30 < len(in_valid) < 90
    # One caption per video, always the same, not always the first.
    again = MSRVTTMetaProcessor(config(files, "valid", **settings))
    assert again.data == valid.data
    assert all(text[2:] == name for name, text in valid.data)
    assert {text[0] for _, text in valid.data} == set("abc")


def test_every_caption_of_a_test_list_without_sentences_is_a_query(files):
    (files / "test.csv").write_text("video_id\nvideo9\nvideo7\nvideo8\n")
    expected = [("video9", f"{c} 9") for c in "abc"] + [("video7", "only")] + [("video8", f"{c} 8") for c in "abc"]
    assert MSRVTTMetaProcessor(config(files, "test")).data == expected
    valid = MSRVTTMetaProcessor(config(files, "valid", val_path=str(files / "test.csv"))).data
    assert [video for video, _ in valid] == ["video9", "video7", "video8"]
    assert set(valid) <= set(expected)


def test_all_captions_replace_the_sentences_of_a_test_list_alone(files):
    lists = {key: str(files / "full.csv") for key in ("train_path", "val_path", "test_path")}
    every = MSRVTTMetaProcessor(config(files, "test", all_captions=True, **lists))
    # video8 stands twice in the list, and is one video
    assert every.data == [(f"video{i}", f"{c} {i}") for i in (8, 9) for c in "abc"] + [("video7", "only")]
    assert MSRVTTTextProcessor(config(files, "test"))("c 9") == [WORDS.index("c"), WORDS.index("[UNK]")]
    one = [("video8", "eight"), ("video9", "nine"), ("video8", "again"), ("video7", "seven")]
    assert MSRVTTMetaProcessor(config(files, "test", **lists)).data == one
    assert MSRVTTMetaProcessor(config(files, "valid", all_captions=True, **lists)).data == one
    trained = MSRVTTMetaProcessor(config(files, "train", all_captions=True, **lists))
    assert trained.data == [(video, video) for video, _ in one]
    with pytest.raises(ConfigError, match=r"dataset.all_captions.*dataset.json_path"):
        MSRVTTMetaProcessor(config(files, "test", all_captions=True, json_path=None))


def test_a_video_of_a_test_list_without_captions_is_counted(files):
    (files / "test.csv").write_text("video_id\nvideo9\nvideo5\n")
    with pytest.raises(DataError, match=r"1 of 4 items.*1 without a caption \(for example video5\)"):
        MSRVTTMetaProcessor(config(files, "test"))


def test_training_draws_a_caption_with_the_given_generator(files):
    text = MSRVTTTextProcessor(config(files))
    unknown = WORDS.index("[UNK]")
    drawn = [tuple(text("video1", np.random.default_rng(seed))) for seed in range(60)]
    assert set(drawn) == {(WORDS.index(letter), unknown) for letter in "abc"}
    assert drawn == [tuple(text("video1", np.random.default_rng(seed))) for seed in range(60)]
    fixed = fixed_caption("video1", read_captions(files / "data.json"))
    assert text("video1") == [WORDS.index(fixed[0]), unknown]
    with pytest.raises(DataError, match="no captions for video 'video11'.*Did you mean 'video1'"):
        text("video11")


def test_other_splits_tokenise_the_sentence(files):
    text = MSRVTTTextProcessor(config(files, "test"))
    assert text("a dog runs", np.random.default_rng(0)) == [WORDS.index(w) for w in ("a", "dog", "runs")]
    sentence_train = MSRVTTTextProcessor(config(files, json_path=None))
    assert sentence_train("dog") == [WORDS.index("dog")]


def test_training_on_a_list_with_sentences_and_no_caption_file(files):
    meta = MSRVTTMetaProcessor(config(files, train_path=str(files / "full.csv"), json_path=None))
    assert meta[0] == ("video8", "eight") and len(meta) == 4


def test_processors_pickle_as_paths(files):
    meta, text = MSRVTTMetaProcessor(config(files)), MSRVTTTextProcessor(config(files))
    assert len(pickle.dumps(text)) < 1000
    assert pickle.loads(pickle.dumps(text))("video7") == text("video7")
    assert pickle.loads(pickle.dumps(meta)).data == meta.data


def test_videos_without_features_or_captions_are_counted_up_to_a_limit(files, caplog):
    (files / "feat" / "video2.npy").unlink()
    (files / "train.csv").write_text("video_id\nvideo0\nvideo1\nvideo2\nvideo3\nvideo5\n")
    with pytest.raises(
        DataError, match=r"2 of 5 items.*1 without a caption \(for example video5\).*features \(for example video2"
    ):
        MSRVTTMetaProcessor(config(files))
    meta = MSRVTTMetaProcessor(config(files, max_missing=0.4))
    assert [video for video, _ in meta.data] == ["video0", "video1", "video3"]
    assert "2 of 5 items are left out" in caplog.text
    with pytest.raises(ConfigError, match="max_missing"):
        MSRVTTMetaProcessor(config(files, max_missing=1.5))


def test_nothing_left_is_an_error_whatever_the_limit(files):
    for file in (files / "feat").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="4 of 4 items"):
        MSRVTTMetaProcessor(config(files, max_missing=1.0))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a readable CSV"),
        ("video_id\n", "lists no videos"),
        ("video,sentence\nv,s\n", "no column 'video_id'.*Did you mean 'video'"),
        ("video_id,sentense\nvideo1,s\n", "no column 'sentence'.*Did you mean 'sentense'.*json_path"),
        ("video_id,sentence\n../video1,s\n", "'../video1' is not a video id"),
        ("video_id,sentence\n/etc/passwd,s\n", "is not a video id"),
        ("video_id,sentence\n,s\n", "'' is not a video id"),
    ],
)
def test_wrong_lists(files, content, message):
    (files / "test.csv").write_text(content)
    with pytest.raises(DataError, match=message) as error:
        MSRVTTMetaProcessor(config(files, "test", json_path=None))
    assert "test.csv" in str(error.value)


def test_an_id_called_na_is_text(files):
    np.save(files / "feat" / "NA.npy", np.zeros((3, 4)))
    (files / "test.csv").write_text("video_id,sentence\nNA,nan\n")
    assert MSRVTTMetaProcessor(config(files, "test")).data == [("NA", "nan")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "no list 'sentences'"),
        ('{"sentence": []}', "no list 'sentences'.*Did you mean 'sentence'"),
        ('{"sentences": [{"video": "v", "caption": "c"}]}', "sentence 0: no text 'video_id'"),
        ("{", "not a JSON file"),
    ],
)
def test_wrong_caption_files(files, content, message):
    (files / "data.json").write_text(content)
    with pytest.raises(DataError, match=message):
        MSRVTTTextProcessor(config(files))


def test_wrong_settings(files):
    with pytest.raises(ConfigError, match="dup"):
        MSRVTTMetaProcessor(config(files, dup=0))
    with pytest.raises(DataError, match="no such file.*gone.csv"):
        MSRVTTMetaProcessor(config(files, train_path="gone.csv"))
    with pytest.raises(DataError, match="json_path.*gone.json"):
        MSRVTTTextProcessor(config(files, json_path="gone.json"))
    with pytest.raises(DataError, match="no such folder"):
        MSRVTTMetaProcessor(config(files, vfeat_dir="gone"))
