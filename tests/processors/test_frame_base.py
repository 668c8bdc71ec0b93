"""From stored frames to model inputs: a worked example, clips in seconds, damage, and the same in every process."""

import json
import pickle

import numpy as np
import pytest
import torch
from frame_samples import CLS, PAD, SEP, TINY_BERT, grey, settings, word, write_frames
from torch.utils.data import DataLoader

from mmpt.datasets.mmdataset import MMDataset
from mmpt.processors.annotations import features_of
from mmpt.processors.base import UnusableItemError
from mmpt.processors.frame_base import FrameAligner, FrameVideoProcessor
from mmpt.processors.frame_transforms import FrameTransform
from mmpt.store.frame_store import StoredFrames
from mmpt.store.images import decode_image, encode_jpeg
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.registry import build

VIDEOS = {"long": 10, "short": 2, "one": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    write_frames(folder / "frames", VIDEOS)
    write_frames(folder / "untimed", {"v": 2}, seconds=False)
    items = [{"video": name, "caption": f"w{number} w1"} for number, name in enumerate([*VIDEOS] * 2)]
    (folder / "txt.json").write_text(json.dumps({"train": items, "val": items[:2], "test": items}))
    rows = [
        {"video": "long", "start": 4.2, "end": 7.9, "text": "w3", "options": ["w4", "w5"], "answer": 1},
        {"video": "long", "start": 1.4, "end": 1.9, "text": "w6", "options": ["w7", "w8"], "answer": 0},
        {"video": "short", "text": "w9", "options": ["w10", "w11", "w12"], "answer": 2},
        {"video": "long", "start": 30, "end": 31, "text": "after the end", "options": ["w1", "w2"], "answer": 0},
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def dataset(folder, split="test", meta="ClipRetrievalMetaProcessor", **more):
    paths = {f"{name}_path": str(folder / "txt.json") for name in ("train", "val", "test")}
    section = settings(folder, split, **{**paths, **more})
    parts = (meta, "FrameVideoProcessor", more.get("text", "ClipTextProcessor"), more.get("aligner", "FrameAligner"))
    kinds = ("meta_processor", "video_processor", "text_processor", "aligner")
    return MMDataset(*(build(kind, name, section) for kind, name in zip(kinds, parts, strict=True)))


def levels(item):
    """Return which frames are in an item: each is of one grey, 10 times its number."""
    return [round(float(frame.float().mean()) / 10) for frame in item["vfeats"]]


def test_an_item(folder):
    item = dataset(folder, image_transform="img_center_crop")[0]
    assert item["vfeats"].shape == (4, 3, 16, 16) and item["vfeats"].dtype == torch.uint8
    assert levels(item) == [0, 3, 6, 9] and item["vmasks"].tolist() == [True] * 4
    assert item["caps"].tolist() == [CLS, word(0), word(1), SEP, *[PAD] * 4] and item["caps"].dtype == torch.int64
    assert item["cmasks"].tolist() == [True] * 4 + [False] * 4
    assert item["video_id"] == "long" and item["text"] == "w0 w1"


def test_too_few_frames_are_filled_up_with_black_ones(folder):
    data = dataset(folder, image_transform="img_center_crop")
    assert levels(data[1]) == [0, 1, 0, 0] and data[1]["vmasks"].tolist() == [True, True, False, False]
    assert data[2]["vmasks"].tolist() == [True, False, False, False] and not data[2]["vfeats"][1:].any()


def test_videos_have_keys_of_their_own(folder):
    data = dataset(folder, "train")
    batch = data.collater([data[index] for index in range(6)])
    assert batch["video_key"].dtype == torch.int64 and batch["video_key"].shape == (6,)
    same = batch["video_key"][:, None] == batch["video_key"]
    assert same.tolist() == [[a == b for a in batch["video_id"]] for b in batch["video_id"]]
    assert "text" not in batch


@pytest.mark.parametrize("name", ["pad_resize", "img_rand_crop", "vid_rand_crop"])
def test_pixels_are_those_of_the_transform(folder, name):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20, 30, 3), dtype=np.uint8) for _ in range(4)]
    stored = StoredFrames.of([encode_jpeg(image) for image in images])
    for split in ("train", "valid"):
        aligner = FrameAligner(settings(folder, split, image_transform=[name]))
        vfeats, _ = aligner.frames("v", stored, np.random.default_rng(1))
        generator = np.random.default_rng(1) if split == "train" else None
        expected = FrameTransform(name, 16)([decode_image(image) for image in stored], generator)
        assert np.array_equal(vfeats.numpy(), expected)


def test_only_the_frames_that_are_looked_at_are_read(folder):
    class Counted(StoredFrames):
        def read(self, k):
            asked.append(k)
            return super().read(k)

    asked: list[int] = []
    images = [np.frombuffer(grey(k), np.uint8) for k in range(32)]
    FrameAligner(settings(folder)).frames("v", Counted(images, range(32), np.zeros(32)))
    assert asked == [0, 10, 21, 31]


def test_an_item_depends_on_seed_epoch_and_index_alone(folder):
    data = dataset(folder, "train", image_transform=["img_rand_crop"], num_frames=2)
    data.set_epoch(3)
    loader = DataLoader(data, 2, num_workers=1, collate_fn=MMDataset.collater, multiprocessing_context="spawn")
    batches = list(loader)
    assert pickle.loads(pickle.dumps(data)).video_processor.frame_path == data.video_processor.frame_path
    alone = data.collater([data[index] for index in (5, 4, 3, 2, 1, 0)])
    for key in ("vfeats", "vmasks", "caps", "video_key"):
        assert torch.equal(torch.cat([batch[key] for batch in batches]), alone[key].flip(0)), key
    first, epochs = data[0]["vfeats"], []
    for epoch in range(4, 10):
        data.set_epoch(epoch)
        epochs.append(torch.equal(data[0]["vfeats"], first))
    assert not all(epochs)
    tested = dataset(folder, "test", image_transform=["img_rand_crop"], num_frames=2)
    before = tested[0]["vfeats"]
    tested.set_epoch(9)
    assert torch.equal(tested[0]["vfeats"], before)


def test_clips_of_a_corpus_of_ones_own(folder):
    corpus = {f"{name}_path": str(folder / "rows.jsonl") for name in ("test",)}
    more = {**corpus, "max_missing": 0.3, "image_transform": "img_center_crop"}
    data = dataset(folder, meta="CorpusRetrievalMetaProcessor", **more)
    assert len(data) == 3, "a clip after the end is left out"
    # frames stand at 1, 3, 5 .. 19 s; the clips are 4-8 s and 1-2 s
    assert levels(data[0])[:2] == [2, 3] and data[0]["vmasks"].tolist() == [True, True, False, False]
    assert levels(data[1])[0] == 0 and data[1]["vmasks"].sum() == 1
    assert data[0]["video_id"] == "long_4_8" and data[0]["video_key"] != data[1]["video_key"]
    more["aligner"] = "VIOLETMultipleChoiceAligner"
    asked = dataset(folder, meta="CorpusQAMetaProcessor", **more)
    item = asked[0]
    assert item["caps"][:2, 1].tolist() == [word(4), word(5)] and item["option_mask"].tolist() == [True, True, False]
    assert item["answers"].tolist() == [1] and item["options"] == ["w4", "w5"]
    said = dataset(folder, meta="CorpusCaptioningMetaProcessor", **{**more, "aligner": "FrameAligner"})
    assert said[2]["text"] == "w9"


def test_lists_of_other_corpora(folder):
    (folder / "test.csv").write_text("video_id,sentence\nlong,w1 w2\nshort,w3\nabsent,w4\n")
    more = {"test_path": str(folder / "test.csv"), "max_missing": 0.5}
    data = dataset(folder, meta="MSRVTTMetaProcessor", text="MSRVTTTextProcessor", **more)
    assert [data[index]["video_id"] for index in range(len(data))] == ["long", "short"]


def test_the_nearest_frame_and_unknown_times(folder):
    video = FrameVideoProcessor(settings(folder))
    assert video(("long", 5, 5.5)).seconds.tolist() == [5.0]
    assert video(("long", 5.5, 6.9)).seconds.tolist() == [7.0]
    assert video(("long", 90, 91)).seconds.tolist() == [19.0]
    assert len(video("long")) == 10
    untimed = FrameVideoProcessor(settings(folder, frame_path=str(folder / "untimed")))
    assert len(untimed("v")) == 2
    with pytest.raises(DataError, match="untimed: video 'v': the times of its frames are not known"):
        untimed(("v", 0, 5))


def test_how_many_seconds_are_known_of_a_video(folder):
    seconds = features_of({"frame_path": str(folder / "frames")})
    # frames at 1, 3 .. 19 s say that the video has 21; one frame at 1 s, that it has 2
    assert (len(seconds["long"]), len(seconds["short"]), len(seconds["one"])) == (21, 5, 2)
    assert "long" in seconds and "absent" not in seconds
    assert len(features_of({"frame_path": str(folder / "untimed")})["v"]) > 10**9, "the end is open"


def test_damaged_frames_are_left_out_in_training_and_refused_in_tests(tmp_path):
    broken = [grey(0), grey(10)[:200], grey(20)]
    oblong = [encode_jpeg(np.zeros((2, 300, 3), np.uint8))]
    write_frames(tmp_path / "frames", {"a": 3, "b": 3, "c": 1}, b=broken, c=oblong)
    items = [{"video": name, "caption": "w1"} for name in "aba"]
    (tmp_path / "txt.json").write_text(json.dumps({"train": items, "test": items}))
    data = dataset(tmp_path, "train")
    assert data[1]["video_id"] == "a" and data.unusable == {1}
    with pytest.raises(UnusableItemError, match="video b: frame 1 of 3: JPEG: 200 bytes, not decodable"):
        dataset(tmp_path, "test")[1]
    aligner, video = FrameAligner(settings(tmp_path)), FrameVideoProcessor(settings(tmp_path))
    with pytest.raises(UnusableItemError, match="video c: frame 0 of 1: has 300 x 2 pixels"):
        aligner.frames("c", video("c"))
    with pytest.raises(UnusableItemError, match="video d: has no stored frame"):
        aligner.frames("d", StoredFrames.of([]))


def test_texts_are_cut_behind_the_words_that_fit(folder):
    aligner = FrameAligner(settings(folder))
    caps, cmasks = aligner.text([word(number) for number in range(20)])
    assert caps.tolist() == [CLS, *(word(number) for number in range(6)), SEP] and cmasks.all()
    caps, cmasks = aligner.text([])
    assert caps.tolist() == [CLS, SEP, *[PAD] * 6] and cmasks.sum() == 2
    with pytest.raises(DataError, match="video v: expected a flat list of token ids"):
        aligner("v", StoredFrames.of([grey(0)]), ["w1"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_frames": 0}, "dataset.num_frames: 0"),
        ({"max_text_len": 2}, "dataset.max_text_len: 2 has no room"),
        ({"image_transform": "flip"}, "dataset.image_transform: 'flip'"),
    ],
)
def test_settings_that_cannot_be(folder, change, message):
    with pytest.raises(ConfigError, match=message):
        FrameAligner(settings(folder, **change))


def test_paths_that_cannot_be(folder):
    with pytest.raises(ConfigError, match="dataset.frame_path: not set"):
        FrameVideoProcessor({"bert_name": TINY_BERT})
    with pytest.raises(DataError, match="no frame store"):
        FrameVideoProcessor({"frame_path": str(folder / "nothing")})
    with pytest.raises(ConfigError, match="frame_path and dataset.vfeat_dir: both are set"):
        dataset(folder, vfeat_dir=str(folder))
