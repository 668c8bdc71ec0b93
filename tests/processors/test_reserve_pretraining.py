"""Items of MERLOT Reserve's pre-training: a whole record, what holds of all items, silence, and every process alike."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_samples import (
    VIDEOS,
    dataset,
    merlot_settings,
    published_files,
    reserve_settings,
    write_sample,
    write_segments,
)
from torch.utils.data import DataLoader, Dataset

from mmpt.modules.reserve_noise import reserve_noise
from mmpt.modules.reserve_tokens import AUDIOSPAN, END, LTOVPOOL, MASK, MASKAUDIO, PAD, START
from mmpt.processors.base import UnusableItemError
from mmpt.store.segment_store import open_segments
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.subwords import load_subwords

KINDS = {"text2audio": 2, "audio2text": 2, "audio_text_matching": 1, "random_text": 1}
SUBSEGMENTS, TARGETS, BUDGET = 24, 6, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_sample(tmp_path_factory.mktemp("segments"))
    write_segments(folder / "chatty", VIDEOS, words=60)
    return folder


@pytest.fixture(scope="module")
def data(folder):
    return dataset(reserve_settings(folder), "Reserve")


@pytest.fixture(scope="module")
def chatty(folder):
    return dataset(reserve_settings(folder, segment_path=str(folder / "chatty")), "Reserve")


def columns(item, kind):
    """Return tokens, subsegments and spans of all sequences of a kind, as arrays (sequences, L)."""
    return tuple(item[f"{kind}{suffix}"].numpy() for suffix in ("", "_audio_ptr", "_text_ptr"))


def test_an_item(folder, data):
    item = data[0]
    sizes = {
        "vfeats": (8, 3, 32, 64),
        "audio_clips": (SUBSEGMENTS, 60, 65),
        "text_spans": (2 * TARGETS + BUDGET, 15),
        "video_src_index": (8,),
    }
    for kind, count in KINDS.items():
        length = 80 if kind in ("text2audio", "audio2text") else 180
        sizes |= {f"{kind}{suffix}": (count, length) for suffix in ("", "_audio_ptr", "_text_ptr")}
    noise = reserve_noise(np.random.default_rng(0), 2 * TARGETS + BUDGET, 4)
    sizes |= {name: tuple(value.shape) for name, value in noise.items()}
    assert {key: tuple(value.shape) for key, value in item.items() if key not in ("video_id", "idx")} == sizes
    dtypes = {key: value.dtype for key, value in item.items() if isinstance(value, torch.Tensor)}
    assert dtypes.pop("vfeats") == torch.uint8 and dtypes.pop("audio_clips") == torch.float16
    assert {dtype for key, dtype in dtypes.items() if key not in noise} == {torch.int64}
    assert item["video_id"] == "long:0-7"
    batch = data.collater([data[index] for index in range(3)])
    assert batch["text2audio"].shape == (3, 2, 80) and batch["audio_clips"].shape == (3, SUBSEGMENTS, 60, 65)


def test_a_record_in_a_test(folder):
    section = reserve_settings(folder, "test", random_text_path=None)
    data = dataset(section, "Reserve")
    number = next(k for k in range(len(data)) if data.meta_processor[k][0][0].video_id == "nine")
    item, stored = data[number], open_segments(section["segment_path"])["nine"]
    assert "random_text" not in item and item["text_spans"].shape == (2 * TARGETS, 15)
    for k in range(8):
        wanted = np.stack([stored.spectrogram(k)[start : start + 60] for start in (2, 64, 126)])
        np.testing.assert_array_equal(item["audio_clips"][3 * k : 3 * k + 3, :, :64], wanted)
        assert abs(item["vfeats"][k, :, :, :50].float().mean() - 10 * k) < 1.5
    assert (item["audio_clips"][:, :, 64] == 1).all() and item["video_src_index"].tolist() == [0] * 8
    tokens = item["audio_text_matching"][0].tolist()
    subwords = load_subwords(section["tokenizer"])
    known = [START, *subwords.encode("title:"), *subwords.encode("w nine"), START, *subwords.encode("tags:"), 30, 31]
    assert tokens[: tokens.index(END) + 1] == [*known, END]


@pytest.mark.skipif(not (published_files() / "reserve").exists(), reason="the published tokenizer is not here")
def test_what_is_known_of_a_video_is_headed_as_published(folder):
    section = reserve_settings(folder, tokenizer=str(published_files() / "reserve" / "lowercase_encoder.json"))
    headings = dataset(section, "Reserve").aligner.headings
    assert headings == {"title": [START, 3388, 35], "description": [START, 2026, 35], "tags": [START, 10884, 35]}


def check(item):
    """Check what holds of every item."""
    spans = item["text_spans"].numpy()
    for kind, first in (("text2audio", 0), ("audio2text", TARGETS)):
        tokens, audio, text = columns(item, kind)
        asked = text >= 0
        assert (asked == np.isin(tokens, (MASK, MASKAUDIO))).all()
        assert np.unique(text[asked]).tolist() == list(range(first, first + TARGETS))
        for group in range(2):
            own = audio[group][audio[group] >= 0]
            assert (own // 12 == group).all() and (np.diff(own) >= 0).all()
        assert ((audio < 0) == (tokens == PAD)).all()
    masked = [
        np.unique(audio[text >= 0]) for _, audio, text in (columns(item, "text2audio"), columns(item, "audio2text"))
    ]
    assert [len(one) for one in masked] == [TARGETS] * 2 and not set(masked[0]) & set(masked[1])
    tokens, audio, text = columns(item, "text2audio")
    for row, pointers, heard in zip(tokens, text, audio, strict=True):
        first = np.flatnonzero(row == MASK)
        assert (row[first + 1] == MASKAUDIO).all() and (row == MASKAUDIO).sum() == len(first)
        assert (pointers[first] == pointers[first + 1]).all() and (heard[first] == heard[first + 1]).all()
    for kind in KINDS:
        tokens, audio, text = columns(item, kind)
        for row, pointers in zip(tokens, audio, strict=True):
            sound = pointers[row == AUDIOSPAN]
            assert all(run.tolist() == [run[0]] * 6 for run in sound.reshape(-1, 6))  # whole runs, each of one
            assert len(set(sound.tolist())) * 6 == len(sound)
            filled = row != PAD
            assert filled[: filled.sum()].all() and row.max() < 266 and row.min() >= 0
        assert text.min() >= -1 and text.max() < len(spans)
    tokens, audio, text = columns(item, "audio_text_matching")
    assert audio[tokens == LTOVPOOL].tolist() == list(range(0, SUBSEGMENTS, 3)) and (text == -1).all()
    assert (np.diff(audio[audio >= 0]) >= 0).all()
    tokens, audio, text = columns(item, "random_text")
    assert text[tokens == MASK].tolist() == list(range(2 * TARGETS, 2 * TARGETS + BUDGET))
    assert not np.isin(spans, range(1, 10)).any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_what_holds_of_all_items(data, chatty, seed):
    for source in (data, chatty):
        source.set_epoch(seed)
        check(source[seed % len(source)])


def test_over_long_sequences_are_counted(chatty, caplog):
    chatty.aligner.cut.cut = 0
    chatty.set_epoch(0)
    for index in range(len(chatty)):
        chatty[index]
    assert "are cut: dataset.lang_seq_len" in caplog.text


def test_words_are_in_a_sequence_or_in_a_span(folder):
    section = reserve_settings(folder, lang_seq_len=400)
    data, store = dataset(section, "Reserve"), open_segments(section["segment_path"])
    for epoch in range(6):
        data.set_epoch(epoch)
        for index in range(len(data)):
            item, record = data[index], data.meta_processor[index][0]
            words = [store[name].tokens(first + k) for name, first, count in record for k in range(count)]
            tokens, _, text = columns(item, "text2audio")
            found = []
            for token, span in zip(tokens.ravel(), text.ravel(), strict=True):
                found += (
                    [] if token in (PAD, MASKAUDIO) else item["text_spans"][span].tolist() if span >= 0 else [token]
                )
            assert sorted(k for k in found if k) == sorted(np.concatenate(words).tolist())


def test_nobody_speaks(folder, tmp_path):
    (tmp_path / "ids.txt").write_text("silent")
    data = dataset(reserve_settings(folder, train_path=str(tmp_path / "ids.txt")), "Reserve")
    for epoch in range(8):
        data.set_epoch(epoch)
        item = data[0]
        check(item)
        assert not item["text_spans"][: 2 * TARGETS].any()
        assert set(item["audio2text"].unique().tolist()) <= {PAD, MASK, AUDIOSPAN}  # none is shown as no words


def test_matching_is_by_sound_or_by_words_of_all_segments(data):
    kinds = []
    for epoch in range(100):
        data.set_epoch(epoch)
        tokens = data[0]["audio_text_matching"]
        sounds = int((tokens == AUDIOSPAN).sum())
        assert sounds in (0, 6 * SUBSEGMENTS)
        kinds.append(sounds == 0)
    assert 35 < sum(kinds) < 65


class Both(Dataset):
    """Items of both families."""

    def __init__(self, *data):
        self.data = data

    def __len__(self):
        return len(self.data[0])

    def __getitem__(self, index):
        return [one[index] for one in self.data]


def as_they_are(samples):
    return samples[0]


def same(item, wanted):
    return item.keys() == wanted.keys() and all(
        torch.equal(item[key], value) if isinstance(value, torch.Tensor) else item[key] == value
        for key, value in wanted.items()
    )


def test_items_depend_on_seed_epoch_and_index_alone(folder, data):
    merlot = dataset(merlot_settings(folder), "MERLOT")
    for one in (data, merlot):
        one.set_epoch(3)
    here = [[one[index] for one in (data, merlot)] for index in range(len(data))]
    loader = DataLoader(
        Both(data, merlot), batch_size=1, num_workers=1, multiprocessing_context="spawn", collate_fn=as_they_are
    )
    for index, (items, wanted) in enumerate(zip(loader, here, strict=True)):
        assert all(map(same, items, wanted)), index
    for one in (data, merlot):
        one.set_epoch(4)
    for one, (item, other) in zip((data, merlot), zip(here[0], [data[0], merlot[0]], strict=True), strict=True):
        assert not torch.equal(item["vfeats"], other["vfeats"]), one


def test_text_without_frames_has_1024_positions_at_most_however_long_the_others(folder):
    item = dataset(reserve_settings(folder, seq_len=1312), "Reserve")[0]
    lengths = {kind: item[kind].shape[1] for kind in KINDS}
    assert lengths == {"text2audio": 80, "audio2text": 80, "audio_text_matching": 1024, "random_text": 1024}


def test_training_alone_cuts_sequences(folder):
    cut = {}
    for split in ("train", "valid", "test"):
        data, rng = dataset(reserve_settings(folder, split), "Reserve"), np.random.default_rng(0)
        record = data.meta_processor[0][0]
        stored = data.video_processor(record)
        cut[split] = sum(int(data.aligner(record, stored, stored, rng)["noise_split"].sum()) for _ in range(30))
    assert 2 < cut.pop("train") < 30  # of 4 sequences each, one in ten
    assert cut == {"valid": 0, "test": 0}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"tokenizer": None}, "dataset.tokenizer: not set"),
        ({"tokenizer": "/nowhere"}, "dataset.tokenizer"),
        ({"image_grid": [3, 4]}, "dataset.image_grid"),
        ({"mask_rate": 0.6}, "dataset.mask_rate"),
        ({"mask_rate": 0.01}, "dataset.mask_rate"),
        ({"lang_seq_len": 11}, "dataset.lang_seq_len: 11 has no room for 12 masks"),
        ({"seq_len": 7}, "dataset.seq_len"),
        ({"text_span_length": 0}, "dataset.text_span_length"),
        ({"text_span_budget": -1}, "dataset.text_span_budget"),
    ],
)
def test_settings_that_cannot_be(folder, section, message):
    with pytest.raises(ConfigError, match=message):
        dataset(reserve_settings(folder, **section), "Reserve")


def test_what_an_item_cannot_do_without(folder, tmp_path, data):
    merlot = dataset(reserve_settings(folder, segment_path=str(folder / "merlot_store")), "Reserve")
    with pytest.raises(DataError, match="holds no spectrograms"):
        merlot[0]
    short = dataset(reserve_settings(folder, num_segments=4), "Reserve")
    record = short.meta_processor[0][0]
    with pytest.raises(DataError, match=r"long:0-3: 4 segments, dataset\.num_segments is 8"):
        data.aligner(record, *[short.video_processor(record)] * 2)
    stored = data.video_processor(data.meta_processor[0][0])
    stored._places[0][0].image = lambda k: np.frombuffer(b"damaged", np.uint8)
    with pytest.raises(UnusableItemError, match="video long: segment 0: neither JPEG nor PNG"):
        data.aligner(data.meta_processor[0][0], stored, stored)
