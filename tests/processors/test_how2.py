"""How2 processors: usable videos, groups, sharded and single-file reading, faults."""

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.processors.how2 import (
    How2MetaProcessor,
    How2VideoRetriMetaProcessor,
    PKLJSONStrTextProcessor,
    ShardedHow2MetaProcessor,
    ShardedHow2VideoRetriMetaProcessor,
    ShardedTextProcessor,
    ShardedVideoProcessor,
    VideoRetriTextProcessor,
    VideoRetriVideoProcessor,
)
from mmpt.store.token_encoder import vocabulary_checksum
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.shardedtensor import ShardedTensor
from mmpt.utils.tokenizers import load_tokenizer

BERT = "tests/data/tiny_bert"
SECONDS = {"a": 10, "b": 5, "c": 0, "d": 7, "e": 6, "f": 8}
SHARDS = {0: ["a", "b", "c"], 1: ["d", "e", "f"]}
# b: no captions; d: only after the end of its features; e: only an end before its start; f: one good among bad ones.
CAPTIONS = {
    "a": ([[0, 2], [2, 5]], [[5, 6, 7], [8]]),
    "b": ([], []),
    "c": ([[0, 1]], [[5]]),
    "d": ([[7, 9]], [[6]]),
    "e": ([[3, 2]], [[6]]),
    "f": ([[3, 2], [1, 4], [50, 60]], [[9], [10, 11], [12]]),
}


def feature_of(name: str) -> np.ndarray:
    return (np.arange(SECONDS[name])[:, None] + 100 * ord(name) + np.zeros((1, 4))).astype(np.float16)


def write_shards(folder: Path, split: str = "train", ragged: bool = False, pickled: bool = False) -> dict[str, Any]:
    for shard, names in SHARDS.items():
        prefix = str(folder / f"{split}_{shard}")
        ShardedTensor.from_list([feature_of(name) for name in names]).save(prefix)
        times = [np.array(CAPTIONS[name][0], np.float32).reshape(-1, 2) for name in names]
        ShardedTensor.from_list(times).save(f"{folder}/tok.{split}_{shard}.startends")
        if ragged:
            caps = [np.array(cap, np.int32) for name in names for cap in CAPTIONS[name][1]]
        else:
            caps = [
                np.array([cap + [-1] * (8 - len(cap)) for cap in CAPTIONS[name][1]], np.int32).reshape(-1, 8)
                for name in names
            ]
        ShardedTensor.from_list(caps).save(f"{folder}/tok.{split}_{shard}.caps_ids")
    if pickled:
        (folder / f"{split}_meta.pkl").write_bytes(pickle.dumps(SHARDS))
    else:
        (folder / f"{split}_meta.json").write_text(json.dumps(SHARDS))
    (folder / f"{split}.lst").write_text("\n".join("abcdef"))
    key = {"train": "train_path", "val": "val_path"}[split]
    return {key: str(folder / f"{split}.lst"), "vfeat_dir": str(folder), "tfeat_dir": f"{folder}/tok."}


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return {**write_shards(tmp_path), "split": "train", "max_missing": 1.0}


def test_unusable_videos_are_counted_by_reason(config: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    Path(config["train_path"]).write_text("\n".join("abcdefx"))
    with caplog.at_level(logging.WARNING):
        meta = ShardedHow2MetaProcessor(config)
    assert [meta[index][0] for index in range(len(meta))] == [("a", 0, 0, 0), ("f", 1, 1, 2)]
    assert meta[1] == (("f", 1, 1, 2), ("f", 1, 1, 2)) and len(meta) == 2
    assert meta.skipped == {
        "without features": 2,
        "without captions": 1,
        "without a caption that begins inside the video": 2,
    }
    assert meta.dropped.total() == 4 and len(caplog.records) == 2
    assert "4 of 7 captions" in caplog.text and "tok.: 4 of 7" in caplog.text, "2 of f, of which the third is usable"
    assert "5 of 7 videos" in caplog.text and "(for example d, e)" in caplog.text


def test_too_many_unusable_videos_are_an_error(config: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"4 of 6 videos.*max_missing 0\.5"):
        ShardedHow2MetaProcessor({**config, "max_missing": 0.5})
    Path(config["train_path"]).write_text("x\ny\n")
    with pytest.raises(DataError, match=r"2 of 2 videos.*: 2 without features \(for example x, y\)"):
        ShardedHow2MetaProcessor(config)


def test_without_captions_configured_only_features_count(config: dict[str, Any]) -> None:
    meta = ShardedHow2MetaProcessor({**config, "tfeat_dir": None})
    assert meta.video_ids == ["a", "b", "d", "e", "f"]


def test_repeated_ids_are_read_once(config: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    Path(config["train_path"]).write_text("a\nf\na\n")
    assert ShardedHow2MetaProcessor(config).video_ids == ["a", "f"]
    assert "1 ids are listed more than once" in caplog.text


def test_empty_and_missing_lists_name_file_and_key(config: dict[str, Any]) -> None:
    Path(config["train_path"]).write_text("\n")
    with pytest.raises(DataError, match=r"train_path.*train\.lst"):
        ShardedHow2MetaProcessor(config)
    with pytest.raises(DataError, match=r"train_path.*gone"):
        ShardedHow2MetaProcessor({**config, "train_path": "gone.lst"})
    with pytest.raises(ConfigError, match="vfeat_dir"):
        ShardedHow2MetaProcessor({**config, "vfeat_dir": None})


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("pickled", [False, True])
def test_sharded_reading(tmp_path: Path, ragged: bool, pickled: bool) -> None:
    config = {**write_shards(tmp_path, ragged=ragged, pickled=pickled), "split": "train", "max_missing": 1.0}
    meta, video, text = (cls(config) for cls in (ShardedHow2MetaProcessor, ShardedVideoProcessor, ShardedTextProcessor))
    for (video_id, text_id), name in zip((meta[0], meta[1]), "af", strict=True):
        np.testing.assert_array_equal(video(video_id), feature_of(name))
        read = text(text_id)
        assert list(zip(read["start"], read["end"], strict=True)) == [tuple(map(float, t)) for t in CAPTIONS[name][0]]
        assert read["cap"] == CAPTIONS[name][1]
    assert text(("b", 1, 0, 1))["cap"] == []


def test_processors_pickle_as_paths_and_open_again(config: dict[str, Any]) -> None:
    video, text = ShardedVideoProcessor(config), ShardedTextProcessor(config)
    place = ("f", -1, 1, 2)
    video(place), text(place)
    content = pickle.dumps((video, text))
    assert len(content) < 2000
    video, text = pickle.loads(content)
    assert len(video(place)) == 8 and text(place)["cap"] == CAPTIONS["f"][1]


def test_shards_are_opened_once(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    text = ShardedTextProcessor(config)
    text(("a", 0, 0, 0))
    monkeypatch.setattr("mmpt.processors.how2.open_shared", lambda path: pytest.fail("opened again"))
    text(("b", 1, 0, 1))


def test_test_split_reads_val_shards(tmp_path: Path) -> None:
    config = write_shards(tmp_path, "val")
    config |= {"split": "test", "test_path": config["val_path"], "max_missing": 1.0}
    assert ShardedHow2MetaProcessor(config).video_ids == ["a", "f"]
    assert len(ShardedVideoProcessor(config)(("a", 0, 0, 0))) == 10
    assert ShardedTextProcessor(config).split == "val"


def test_valid_held_out_of_the_training_list_reads_train_shards(config: dict[str, Any]) -> None:
    config |= {"val_path": config["train_path"], "val_holdout": 0.5, "tfeat_dir": None}
    train = ShardedHow2MetaProcessor({**config, "split": "train"}).video_ids
    valid = ShardedHow2MetaProcessor({**config, "split": "valid"}).video_ids
    assert not set(train) & set(valid) and {*train, *valid} == set("abdef")


def test_shards_that_do_not_fit_each_other_are_refused(config: dict[str, Any], tmp_path: Path) -> None:
    ShardedTensor.from_list([np.zeros((1, 8), np.int32)] * 3).save(f"{config['tfeat_dir']}train_1.caps_ids")
    with pytest.raises(DataError, match=r"train_1\.caps_ids.*shard both again"):
        ShardedTextProcessor(config)(("f", 1, 1, 2))
    ShardedTensor.from_list([np.zeros((1, 2), np.float32)] * 2).save(f"{config['tfeat_dir']}train_1.startends")
    with pytest.raises(DataError, match=r"train_1\.startends: holds 2 videos, the shard map names 3"):
        ShardedHow2MetaProcessor(config)
    ShardedTensor.from_list([np.zeros((1, 3), np.float32)] * 3).save(f"{config['tfeat_dir']}train_1.startends")
    with pytest.raises(DataError, match=r"expected \(2,\)"):
        ShardedHow2MetaProcessor(config)
    names = ["d", "f", "e"]
    ShardedTensor.from_list([feature_of(name) for name in names], ids=names).save(str(tmp_path / "train_1"))
    with pytest.raises(DataError, match="another order"):
        ShardedHow2MetaProcessor(config)


def write_files(folder: Path) -> dict[str, Any]:
    for name in "abdef":
        np.save(folder / f"{name}.npy", feature_of(name))
    entries = {
        name: {
            "start": [t[0] for t in times],
            "end": [t[1] for t in times],
            "text": [f"w{i}" for i in range(len(caps))],
        }
        for name, (times, caps) in CAPTIONS.items()
        if name != "b"
    }
    (folder / "captions.json").write_text(json.dumps(entries))
    strings = {name: json.dumps(entry) for name, entry in entries.items()}
    (folder / "captions.pkl").write_bytes(pickle.dumps(strings))
    (folder / "train.lst").write_text("\n".join("abcdef"))
    paths = {"train_path": str(folder / "train.lst"), "vfeat_dir": str(folder)}
    return {**paths, "caption_pkl_path": str(folder / "captions.pkl"), "split": "train", "max_missing": 0.5} | {
        "bert_name": BERT
    }


def test_unsharded_items(tmp_path: Path) -> None:
    meta = How2MetaProcessor(write_files(tmp_path) | {"caption_pkl_path": None})
    assert meta.video_ids == ["a", "b", "d", "e", "f"] and meta[0] == ("a", "a")
    assert meta.skipped == {"without features": 1} and not meta.dropped


def test_unsharded_captions_are_checked_against_the_features(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = write_files(tmp_path)
    np.save(tmp_path / "c.npy", np.zeros((0, 4), np.float16))
    with pytest.raises(DataError, match=r"4 of 6 videos.*max_missing 0\.5"):
        How2MetaProcessor(config)
    caplog.clear()
    meta = How2MetaProcessor(config | {"max_missing": 0.7})
    assert meta.video_ids == ["a", "f"]
    assert meta.skipped == {
        "without features": 1,
        "without captions": 2,  # b is not in the file, and e has none that ends after it begins
        "without a caption that begins inside the video": 1,
    }
    assert meta.dropped == {
        "clips that end before they start": 2,
        "that end before they begin or begin after the features end": 2,
    }
    assert len(caplog.records) == 2
    assert "captions.pkl: 4 of 7 captions are left out" in caplog.text and "(for example d, f)" in caplog.text


def test_malformed_captions_are_governed_by_the_limit(tmp_path: Path) -> None:
    config = write_files(tmp_path) | {"caption_pkl_path": str(tmp_path / "captions.json"), "max_missing": 0.9}
    entries = json.loads((tmp_path / "captions.json").read_text())
    entries["a"]["end"].pop()
    (tmp_path / "captions.json").write_text(json.dumps(entries))
    meta = How2MetaProcessor(config)
    assert meta.video_ids == ["f"] and meta.skipped["with malformed captions"] == 1


def test_shards_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    config = write_shards(tmp_path) | {"bert_name": BERT, "use_fast": False, "split": "train"}
    place = ("a", 0, 0, 0)
    checksum = vocabulary_checksum(load_tokenizer(BERT, False))

    def mark(producer: dict[str, Any]) -> None:
        path = f"{config['tfeat_dir']}train_0.caps_ids"
        ShardedTensor.load(path, mmap_mode=None).save(path, producer)

    mark({"tokenizer": "tiny_bert", "vocabulary_sha256": checksum})
    assert ShardedTextProcessor(config)(place)["cap"] == CAPTIONS["a"][1]
    mark({"tokenizer": "other-bert", "vocabulary_sha256": "0" * 64})
    with pytest.raises(DataError, match=r"train_0\.caps_ids.*'other-bert'.*dataset\.bert_name 'tests/data/tiny_bert'"):
        ShardedTextProcessor(config)(place)
    mark({"tokenizer": "unknown"})
    assert ShardedTextProcessor({**config, "bert_name": "/no/such"})(place)["cap"], "nothing recorded, nothing checked"


@pytest.mark.parametrize("suffix", ["pkl", "json"])
def test_captions_of_one_file(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    config = write_files(tmp_path) | {"caption_pkl_path": str(tmp_path / f"captions.{suffix}")}
    text = PKLJSONStrTextProcessor(config)
    assert dict(text("a")) == {"start": [0, 2], "end": [2, 5], "cap": [[5], [6]]}
    # The caption with end < start is gone, the others are in time order.
    assert dict(text(("f", -1, 0, 0))) == {"start": [1, 50], "end": [4, 60], "cap": [[6], [7]]}
    assert text.dropped == {"clips that end before they start": 1} and "video f" in caplog.text
    assert text("f") is text("f") and text.dropped.total() == 1
    assert text("e")["cap"] == []
    with pytest.raises(DataError, match=r"captions.*'b'"):
        text("b")
    again = pickle.loads(pickle.dumps(text))
    assert again._cache == {} and dict(again("a")) == dict(text("a"))


def test_captions_are_cut_by_tokens_not_characters(tmp_path: Path) -> None:
    long = {"v": json.dumps({"start": [0], "end": [9], "text": ["w1 " * 200]})}
    (tmp_path / "long.pkl").write_bytes(pickle.dumps(long))
    config = {"caption_pkl_path": str(tmp_path / "long.pkl"), "bert_name": BERT}
    assert PKLJSONStrTextProcessor(config)("v")["cap"] == [[6] * 96]
    assert PKLJSONStrTextProcessor(config, max_clip_text_len=3)("v")["cap"] == [[6] * 3]


def test_groups_are_runs_and_the_last_may_be_shorter(config: dict[str, Any]) -> None:
    meta = ShardedHow2VideoRetriMetaProcessor({**config, "tfeat_dir": None, "num_video_per_batch": 2})
    assert meta.video_ids == ["a", "b", "d", "e", "f"]
    videos, texts = meta[0]
    assert videos == texts == [("a", -1, 0, 0), ("b", -1, 0, 1)]
    assert [len(meta[i][0]) for i in range(len(meta))] == [2, 2, 1]


def test_small_corpora_make_one_group(config: dict[str, Any]) -> None:
    meta = ShardedHow2VideoRetriMetaProcessor({**config, "num_video_per_batch": 256})
    assert len(meta) == 1 and len(meta[0][0]) == 2


def test_candidates_replace_the_groups(config: dict[str, Any]) -> None:
    meta = ShardedHow2VideoRetriMetaProcessor({**config, "tfeat_dir": None, "num_video_per_batch": 2})
    meta.set_candidates([["f", "a", "e"]])
    assert len(meta) == 1 and [item[0] for item in meta[0][0]] == ["f", "a", "e"]
    assert meta.video_ids == ["a", "b", "d", "e", "f"]
    for wrong, message in (([], "no groups"), ([["a"], []], "empty group"), ([["a", "zz"]], "not listed: zz")):
        with pytest.raises(DataError, match=message):
            meta.set_candidates(wrong)
    assert len(meta) == 1
    with pytest.raises(ConfigError, match="num_video_per_batch"):
        ShardedHow2VideoRetriMetaProcessor({**config, "num_video_per_batch": 0})


@pytest.mark.parametrize("sharded", [True, False])
def test_groups_are_read_as_lists(tmp_path: Path, sharded: bool) -> None:
    config = write_files(tmp_path) | {"num_video_per_batch": 4, "max_missing": 1.0}
    if sharded:
        config |= write_shards(tmp_path)
    meta_class = ShardedHow2VideoRetriMetaProcessor if sharded else How2VideoRetriMetaProcessor
    ids, _ = meta_class(config)[0]
    features = VideoRetriVideoProcessor(config, sharded=sharded)(ids)
    texts = VideoRetriTextProcessor(config, sharded=sharded)(ids, rng=np.random.default_rng(0))
    for name, feature, text in zip("af", features, texts, strict=True):
        np.testing.assert_array_equal(feature, feature_of(name))
        assert len(text["cap"]) == len(text["start"])
