"""From a segment store to records: lists, splits, sources of segments, damage, and pickling."""

import logging
import pickle

import numpy as np
import pytest
from segment_samples import VIDEOS, merlot_settings, reserve_settings, write_sample

from mmpt.processors.base import UnusableItemError
from mmpt.processors.segment_base import (
    Piece,
    Record,
    RecordSegments,
    SegmentTextProcessor,
    SegmentVideoProcessor,
)
from mmpt.processors.segment_images import MERLOTTransform
from mmpt.processors.segment_meta import MERLOTMetaProcessor, ReserveMetaProcessor, SegmentMetaProcessor
from mmpt.store.images import encode_jpeg
from mmpt.store.segment_store import open_segments
from mmpt.store.segment_writer import SegmentRecord, SegmentStoreWriter
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.files import file_sha256
from mmpt.utils.registry import build
from mmpt.utils.subwords import subwords_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("segments"))


def test_records_of_a_split(folder):
    meta = MERLOTMetaProcessor(merlot_settings(folder))
    assert len(meta) == -(-sum(VIDEOS.values()) // 8) and meta.video_ids == list(VIDEOS) and not meta.skipped
    records = [meta[number] for number in range(len(meta))]
    assert all(record == text and sum(piece.length for piece in record) == 8 for record, text in records)
    assert records[0][0] == (Piece("long", 0, 8),) and records[0][0].name == "long:0-7"
    reserve = ReserveMetaProcessor(reserve_settings(folder))
    assert [reserve[number] for number in range(len(reserve))] == records  # the same sizes


def test_the_listed_videos_alone_are_used_and_held_out_ones_in_one_split(folder, tmp_path):
    names = tmp_path / "ids.txt"
    names.write_text("nine\nlong\nnine\nthree\n")
    meta = MERLOTMetaProcessor(merlot_settings(folder, "valid", val_path=str(names)))
    assert meta.video_ids == ["nine", "long", "three"] and len(meta) == 5
    sides = [
        MERLOTMetaProcessor(merlot_settings(folder, split, val_holdout=0.5)).video_ids for split in ("train", "valid")
    ]
    assert sorted(sides[0] + sides[1]) == sorted(VIDEOS) and all(sides)


def test_without_a_list_all_of_the_store_is_used(folder, tmp_path):
    def ids(split, **more):
        return MERLOTMetaProcessor(merlot_settings(folder, split, **{"train_path": None, "val_path": None, **more}))

    assert ids("train").video_ids == list(VIDEOS)
    sides = [ids(split, val_holdout=0.5).video_ids for split in ("train", "valid")]
    assert sorted(sides[0] + sides[1]) == sorted(VIDEOS) and all(sides)
    names = tmp_path / "ids.txt"
    names.write_text("\n".join(sides[1]))
    assert ids("valid", val_holdout=0.5, train_path=str(names)).video_ids == sides[1]
    with pytest.raises(DataError, match=r"dataset\.train_path: cannot read"):
        ids("valid", val_holdout=0.5, train_path="/nowhere.txt")


def test_videos_that_are_not_there_are_counted_up_to_a_limit(folder, tmp_path):
    names = tmp_path / "ids.txt"
    names.write_text("\n".join([*VIDEOS, "gone"]))
    with pytest.raises(DataError, match=r"1 not in the segment store \(for example gone\)"):
        MERLOTMetaProcessor(merlot_settings(folder, train_path=str(names)))
    meta = MERLOTMetaProcessor(merlot_settings(folder, train_path=str(names), max_missing=0.2))
    assert meta.skipped == {"not in the segment store": 1} and meta.video_ids == list(VIDEOS)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"segment_path": None}, "dataset.segment_path: not set"),
        ({"chunks_in_group": 3}, "dataset.num_chunks: 8 is no multiple"),
        ({"chunks_in_group": 0}, "dataset.num_chunks: 8 is no multiple"),
        ({"split": "test", "test_path": None}, "dataset.test_path: not set"),
        ({"split": "valid", "val_path": None}, "dataset.val_path: not set"),
    ],
)
def test_settings_that_cannot_be(folder, section, message):
    with pytest.raises(ConfigError, match=message):
        MERLOTMetaProcessor({**merlot_settings(folder), **section})
    with pytest.raises(ConfigError, match="num_segment_groups"):
        ReserveMetaProcessor(reserve_settings(folder, num_segment_groups=3))
    with pytest.raises(TypeError, match="does not say how long"):
        SegmentMetaProcessor(merlot_settings(folder))
    with pytest.raises(DataError, match="no segment store"):
        SegmentVideoProcessor({"segment_path": str(folder / "nothing")})
    with pytest.raises(ConfigError, match=r"dataset\.segment_path"):
        SegmentTextProcessor({})


def test_sources_of_segments():
    assert Record([Piece("a", 0, 3), Piece("b", 0, 2), Piece("a", 3, 1)]).sources().tolist() == [0, 0, 0, 1, 1, 2]
    assert Record([Piece("a", 0, 2), Piece("a", 4, 2)]).sources().tolist() == [0] * 4
    assert Record([Piece("a", 3, 2), Piece("a", 0, 2)]).sources().tolist() == [0, 0, 1, 1]  # filled up with the first


def test_what_is_stored_of_a_record(folder):
    store = open_segments(str(folder / "reserve_store"))
    record = Record([Piece("four", 2, 2), Piece("nine", 0, 2)])
    segments = pickle.loads(pickle.dumps(SegmentVideoProcessor({"segment_path": str(folder / "reserve_store")})))(
        tuple(record)
    )
    assert len(segments) == 4 and segments.record == record and segments.fields == store.fields
    for n, (name, k) in enumerate([("four", 2), ("four", 3), ("nine", 0), ("nine", 1)]):
        assert segments.image(n).shape == (24, 40, 3) and abs(segments.image(n).mean() - 10 * k) < 1
        np.testing.assert_array_equal(segments.tokens(n), store[name].tokens(k))
        np.testing.assert_array_equal(segments.raw_tokens(n), store[name].raw_tokens(k))
        np.testing.assert_array_equal(segments.token_times(n), store[name].token_times(k))
        assert segments.spectrogram(n).shape == (188, 64) and segments.speed(n) == 1
        assert segments.times(n) == (5 * k, 5 * k + 5) and segments.where(n) == f"video {name}: segment {k}"
    assert segments.meta(0)["title"] == "w four" and segments.meta(2)["title"] == "w nine"


def test_damage_is_told(folder, tmp_path):
    store = open_segments(str(folder / "reserve_store"))
    with pytest.raises(DataError, match="video 'four': 4 segments .* segment 5 is listed"):
        RecordSegments(store, Record([Piece("four", 2, 4)]))
    with pytest.raises(DataError, match="'gone': not among the 6 videos"):
        RecordSegments(store, Record([Piece("gone", 0, 1)]))
    segments = RecordSegments(store, Record([Piece("four", 0, 4)]))
    segments._places[0][0].image = lambda k: np.frombuffer(b"\xff\xd8\xff no", np.uint8)
    with pytest.raises(UnusableItemError, match="video four: segment 0: JPEG"):
        segments.frames(MERLOTTransform((8, 8)), None)
    segments._places[0][0].token_times = lambda k: np.zeros((77, 2))
    with pytest.raises(DataError, match=r"video four: segment 1: \d+ tokens and times of shape"):
        segments.token_times(1)


def test_an_empty_split_is_told(folder):
    with pytest.raises(DataError, match="merlot_store gives an empty valid split with dataset.val_holdout 1e-09"):
        MERLOTMetaProcessor(merlot_settings(folder, "valid", train_path=None, val_path=None, val_holdout=1e-9))


def test_a_store_of_other_ids_is_refused_and_one_that_does_not_say_is_warned_of(folder, tmp_path, caplog):
    record = SegmentRecord(
        [encode_jpeg(np.zeros((8, 8, 3), np.uint8))], [[0, 5]], [2.5], [1.0], [np.array([110])], None
    )
    hashes = {kind: {file.name: file_sha256(file) for file in subwords_files(folder / name)}
              for kind, name in (("merlot", "merlot"), ("reserve", "reserve.json"))}  # fmt: skip
    stores = {
        "right": {"kind": "merlot", "tokenizer": {f"old_{name}": value for name, value in hashes["merlot"].items()}},
        "other": {"kind": "merlot", "tokenizer": {"encoder.json": "0" * 64, "vocab.bpe": "1" * 64}},
        "reserves": {"kind": "reserve", "tokenizer": hashes["reserve"]},
        "silent": {},
    }
    for name, producer in stores.items():
        with SegmentStoreWriter(tmp_path / name, frozenset({"images", "tokens"}), producer) as writer:
            writer.add("v", record)

    def text(name):
        return SegmentTextProcessor(merlot_settings(folder, segment_path=str(tmp_path / name)))

    with caplog.at_level(logging.WARNING):
        assert len(text("right").store) == 1 and not caplog.records
        text("silent")
    assert "does not say which tokenizer made its ids" in caplog.text
    with pytest.raises(DataError, match=r"other: another tokenizer made its ids .*extract the segments again"):
        text("other")
    with pytest.raises(DataError, match="its ids are of the kind reserve, dataset.tokenizer: .* is merlot"):
        text("reserves")
    for family, settings, wrong in (
        ("MERLOT", merlot_settings, "reserve.json"),
        ("Reserve", reserve_settings, "merlot"),
    ):
        with pytest.raises(ConfigError, match=f"dataset.tokenizer: .* is of the kind .*, not {family.lower()}"):
            build("aligner", f"{family}PretrainingAligner", settings(folder, tokenizer=str(folder / wrong)))
