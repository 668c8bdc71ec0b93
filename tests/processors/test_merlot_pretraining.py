"""Items of MERLOT's pre-training: a worked example, what is drawn, and the same in every process."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_samples import VIDEOS, dataset, merlot_settings, write_sample

from mmpt.modules.attention_masking import masking_noise
from mmpt.modules.merlot_tokens import NEXTCAPTION_START, START
from mmpt.processors.base import UnusableItemError
from mmpt.processors.merlot_pretraining import scramble, shuffle_order
from mmpt.store.segment_store import open_segments
from mmpt.utils.errors import ConfigError, DataError

NOISE = {"mask_gumbel", "mask_left", "mask_right", "mask_choice", "mask_words"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("segments"))


def levels(item):
    """Return the segment that each frame of an item is of: it is of one grey, 10 times its number."""
    return [round(float(frame[:, :20, :20].float().mean()) / 10) for frame in item["vfeats"]]


def test_an_item_of_a_test(folder):
    data = dataset(merlot_settings(folder, "test"), "MERLOT")
    item, stored = data[0], open_segments(str(folder / "merlot_store"))["long"]
    assert set(item) == {"vfeats", "tokens", "shuffled_idx_img", "video_src_ids", "video_id", "idx"} | NOISE
    assert item["vfeats"].shape == (8, 3, 32, 48) and item["vfeats"].dtype == torch.uint8
    assert levels(item) == list(range(8)) and item["video_id"] == "long:0-7"
    for k, row in enumerate(item["tokens"].tolist()):
        words = stored.tokens(k).tolist()[:7]
        assert row == [START, *words, *[0] * (7 - len(words))]
    assert item["tokens"].dtype == item["shuffled_idx_img"].dtype == item["video_src_ids"].dtype == torch.int64
    assert item["video_src_ids"].tolist() == [0] * 8
    for name, value in masking_noise(np.random.default_rng(0), 2, 32, 6, 100, 356).items():
        assert item[name].shape == value.shape and item[name].dtype == value.dtype
    assert item["mask_words"].min() >= 100 and item["mask_words"].max() < 356


def test_a_batch(folder):
    data = dataset(merlot_settings(folder), "MERLOT")
    batch = data.collater([data[index] for index in range(4)])
    assert batch["vfeats"].shape == (4, 8, 3, 32, 48) and batch["tokens"].shape == (4, 8, 8)
    assert batch["mask_gumbel"].shape == (4, 2, 32) and len(batch["video_id"]) == 4


def test_training_takes_either_transcript_and_marks_it(folder):
    data = dataset(merlot_settings(folder, shuffle_chunks=False), "MERLOT")
    stored, raw = open_segments(str(folder / "merlot_store"))["long"], []
    for epoch in range(60):
        data.set_epoch(epoch)
        tokens = data[0]["tokens"]
        starts = set(tokens[:, 0].tolist())
        assert len(starts) == 1
        raw.append(starts == {NEXTCAPTION_START})
        words = stored.raw_tokens if raw[-1] else stored.tokens
        assert [row[row >= 100].tolist() for row in tokens] == [words(k).tolist()[:7] for k in range(8)]
    assert 15 < sum(raw) < 45


def test_words_that_do_not_fit_are_counted(folder, caplog):
    data = dataset(merlot_settings(folder, "test", max_text_len=3), "MERLOT")
    assert data[0]["tokens"].shape == (8, 3)
    assert "are cut at their end" in caplog.text and "video long: segment" in caplog.text


def test_nobody_speaks(folder, tmp_path):
    (tmp_path / "ids.txt").write_text("silent")
    data = dataset(merlot_settings(folder, "test", test_path=str(tmp_path / "ids.txt")), "MERLOT")
    with pytest.raises(UnusableItemError, match="silent:0-7: nobody speaks"):
        data[0]
    (tmp_path / "ids.txt").write_text("nine\nlong\nsilent")
    data = dataset(merlot_settings(folder, train_path=str(tmp_path / "ids.txt")), "MERLOT")
    assert [data[index]["idx"] for index in range(len(data))] == list(range(5)) and len(data.unusable) == 1


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"max_text_len": 1}, "dataset.max_text_len"),
        ({"image_size": [32]}, "dataset.image_size"),
        ({"image_shuffle_prob": 1.5}, "dataset.image_shuffle_prob"),
        ({"shuffle_offset": 3}, "dataset.shuffle_offset"),
        ({"shuffle_offset": 1022}, "dataset.shuffle_offset"),
        ({"tokenizer": None}, "dataset.tokenizer: not set"),
        ({"image_scale": [2, 1]}, "dataset.image_scale"),
    ],
)
def test_settings_that_cannot_be(folder, section, message):
    with pytest.raises(ConfigError, match=message):
        dataset(merlot_settings(folder, **section), "MERLOT")


def test_a_record_of_another_length(folder):
    data = dataset(merlot_settings(folder), "MERLOT")
    other = dataset(merlot_settings(folder, num_chunks=4), "MERLOT")
    with pytest.raises(DataError, match=r"long:0-3: 4 chunks, dataset\.num_chunks is 8"):
        data.aligner(other.meta_processor[0][0], *[other.video_processor(other.meta_processor[0][0])] * 2)


def test_images_lose_their_places_as_specified():
    rng, scrambled, numbers = np.random.default_rng(0), [], []
    for _ in range(800):
        places = scramble(rng, 4, 4, 0.4, 64).reshape(4, 4)
        assert places.dtype == np.int64
        for row in places:
            unknown = row >= 64
            assert (row[~unknown] == np.arange(4)[~unknown]).all() and (row < 68).all()
            assert len(set(row.tolist())) == 4
            scrambled.append(unknown.any())
            numbers += [unknown.sum()] if unknown.any() else []
    assert abs(np.mean(scrambled) - 0.4) < 0.03
    assert np.allclose(np.bincount(numbers) / len(numbers), [0, 0, 1 / 3, 1 / 3, 1 / 3], atol=0.05)
    assert scramble(rng, 3, 1, 1.0, 64).tolist() == [0, 0, 0]
    assert (scramble(rng, 2, 5, 0.0, 64) == [0, 1, 2, 3, 4] * 2).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 99))
def test_the_order_of_videos_changes_and_that_within_them_does_not(lengths, seed):
    sources = np.repeat(np.arange(len(lengths)), lengths)[: sum(lengths) // 4 * 4]
    order = shuffle_order(np.random.default_rng(seed), sources, 4)
    assert sorted(order.tolist()) == list(range(len(sources)))
    shuffled = sources[order]
    for video in set(sources.tolist()):
        for places in (order[shuffled == video], np.flatnonzero(shuffled == video)):
            assert (np.diff(places) == 1).all()

    def alone(of):
        return sum(len(set(group.tolist())) == 1 for group in of.reshape(-1, 4))

    assert alone(shuffled) == alone(sources)


def test_videos_of_a_record_are_shuffled_in_training_alone(folder):
    kept = dataset(merlot_settings(folder, "test"), "MERLOT")
    record = next(index for index in range(len(kept)) if "four" in kept.meta_processor[index][0].name)
    kept = kept[record]
    data, seen = dataset(merlot_settings(folder, image_scale=[1, 1]), "MERLOT"), set()
    for epoch in range(12):
        data.set_epoch(epoch)
        item = data[record]
        seen.add(tuple(item["tokens"][:, 1].tolist()))
        assert item["video_src_ids"].tolist() == [0] * 4 + [1] * 4
    assert len(seen) == 2 and kept["video_src_ids"].tolist() == [0] * 4 + [1] * 4
    assert sum(VIDEOS.values()) == 46
