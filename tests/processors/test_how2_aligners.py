"""ClipSamplingAligner: what is sampled is what the base class would lay out, and nothing else."""

import logging
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.processors.base import UnusableItemError
from mmpt.processors.how2_aligners import ClipSamplingAligner
from mmpt.processors.sampling import TextClips
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.registry import build

CONFIG = {
    "bert_name": "tests/data/tiny_bert",
    "max_video_len": 32,
    "max_len": 96,
    "clip_per_video": 4,
    "sampled_min_len": 8,
    "sampled_max_len": 64,
    "sampled_video_min_len": 3,
    "sampled_video_max_len": 32,
}
NAMES = {
    "FixedLenAligner": False,
    "VariedLenAligner": False,
    "StartClipAligner": False,
    "OverlappedAligner": False,
    "VideoRetriAligner": True,
    "VideoRetriOverlappedAligner": True,
}


def lenient(name: str, config: dict[str, Any]) -> ClipSamplingAligner:
    """An aligner that takes ids unique in a video: they are more than the words of the tiny vocabulary."""
    aligner = build("aligner", name, config)
    aligner.vocab_size = 1 << 20
    return aligner


ALIGNERS = {name: lenient(name, CONFIG) for name in NAMES}


def make_video(rng: np.random.Generator, seconds: int, captions: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Features that hold video-unique numbers, captions every four seconds with ids unique in the video."""
    feature = rng.standard_normal((seconds, 6)).astype(np.float16)
    start = np.sort(rng.uniform(0, seconds - 0.01, captions))
    lengths = rng.integers(0, 12, captions)
    first = 100 + np.cumsum(lengths) - lengths
    cap = [list(range(a, a + n)) for a, n in zip(first.tolist(), lengths.tolist(), strict=True)]
    return feature, {"start": start.tolist(), "end": (start + rng.uniform(0, 6, captions)).tolist(), "cap": cap}


def check_samples(aligner: ClipSamplingAligner, item: dict[str, Any], feature: np.ndarray, text: dict) -> None:
    """Rebuild every sample of one video with the base class's own layout."""
    for k in range(aligner.clips_per_video):
        video_start, video_end, text_start, text_end = (
            int(item[key][k]) for key in ("video_start", "video_end", "text_start", "text_end")
        )
        assert 0 <= video_start < video_end <= len(feature) and video_end - video_start <= aligner.max_video_len
        assert 0 <= text_start < text_end <= len(text["cap"])
        vfeats, vmasks = aligner._build_video_seq(feature, {"start": [video_start], "end": [video_end]})
        caps, cmasks = aligner._build_text_seq(text, range(text_start, text_end))
        for key, expected in (("vfeats", vfeats), ("vmasks", vmasks), ("caps", caps), ("cmasks", cmasks)):
            assert item[key][k].dtype == expected.dtype
            assert torch.equal(item[key][k], expected), key


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(NAMES)),
    sizes=st.lists(st.tuples(st.integers(1, 80), st.integers(1, 30)), min_size=1, max_size=4),
    seed=st.integers(0, 10_000),
)
def test_samples_are_what_the_base_layout_gives(name: str, sizes: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    aligner = ALIGNERS[name]
    videos = [make_video(rng, *size) for size in (sizes if NAMES[name] else sizes[:1])]
    ids = [f"v{i}" for i in range(len(videos))]
    if NAMES[name]:
        item = aligner(ids, [video for video, _ in videos], [text for _, text in videos], rng=rng)
        assert item["video_id"] == ids and item["caps"].shape == (len(ids), 4, 64)
        assert item["vfeats"].shape == (len(ids), 4, 32, 6) and item["video_start"].shape == (len(ids), 4)
        for i, (feature, text) in enumerate(videos):
            check_samples(aligner, {key: value[i] for key, value in item.items()}, feature, text)
    else:
        item = aligner(("v0", 0, 0, 0), *videos[0], rng=rng)
        assert item["video_id"] == "v0" and item["caps"].shape == (4, 64) and item["vfeats"].shape == (4, 32, 6)
        check_samples(aligner, item, *videos[0])


def test_published_size_of_a_group() -> None:
    rng = np.random.default_rng(0)
    aligner = lenient("VideoRetriOverlappedAligner", {**CONFIG, "clip_per_video": 16})
    videos = [make_video(rng, 100, 20) for _ in range(32)]
    item = aligner([str(i) for i in range(32)], [v for v, _ in videos], [t for _, t in videos], rng=rng)
    assert item["vfeats"].shape == (32, 16, 32, 6) and item["caps"].shape == (32, 16, 64)
    assert {key: value.dtype for key, value in item.items() if key != "video_id"} == {
        "caps": torch.int64,
        "cmasks": torch.bool,
        "vfeats": torch.float32,
        "vmasks": torch.bool,
        **dict.fromkeys(("video_start", "video_end", "text_start", "text_end"), torch.int64),
    }


def test_fixed_span_starts_with_its_captions_and_is_cut_to_32_seconds() -> None:
    text = {"start": [2.5, 10.0, 20.5], "end": [4.0, 15.5, 70.2], "cap": [[5], [6], [7]]}
    aligner = build("aligner", "StartClipAligner", {**CONFIG, "clip_per_video": 1})
    item = aligner("v", np.ones((90, 2), np.float32), text, rng=np.random.default_rng(0))
    # Three words are fewer than 61, so the run takes all captions: seconds 2 to 71, of which 32 fit.
    assert [int(item[key]) for key in ("text_start", "text_end", "video_start", "video_end")] == [0, 3, 2, 34]
    assert item["caps"][0, :6].tolist() == [2, 3, 5, 6, 7, 3]
    item = aligner("v", np.ones((20, 2), np.float32), text, rng=np.random.default_rng(0))
    assert [int(item[key]) for key in ("text_end", "video_start", "video_end")] == [2, 2, 16]


def test_start_clip_always_contains_the_first_caption() -> None:
    feature, text = make_video(np.random.default_rng(1), 200, 60)
    item = ALIGNERS["StartClipAligner"]("v", feature, text, rng=np.random.default_rng(0))
    assert item["text_start"].tolist() == [0] * 4
    assert len(set(item["text_end"].tolist())) == 1  # with nothing on its left there is one way to grow


def test_text_and_video_lengths_follow_their_ranges() -> None:
    rng = np.random.default_rng(0)
    captions = 400
    text = {"start": list(range(captions)), "end": list(range(1, captions + 1)), "cap": [[5]] * captions}
    config = CONFIG | {"clip_per_video": 4000, "sampled_min_len": 8, "sampled_max_len": 12}
    config |= {"sampled_video_min_len": 3, "sampled_video_max_len": 6}
    item = build("aligner", "OverlappedAligner", config)("v", np.zeros((captions, 1), np.float16), text, rng=rng)
    for low_key, high_key, low, high in (("text_start", "text_end", 8, 12), ("video_start", "video_end", 3, 6)):
        lengths, counts = np.unique((item[high_key] - item[low_key]).numpy(), return_counts=True)
        assert lengths.tolist() == list(range(low, high + 1))
        expected = 4000 / len(lengths)
        assert ((counts - expected) ** 2 / expected).sum() < 28  # chi-square, 4 degrees: once in 10^5
    # The clip grows from a second inside the run: they touch.
    assert (item["video_start"] <= item["text_end"]).all() and (item["video_end"] >= item["text_start"]).all()


def test_overlapped_clips_of_a_short_video_take_all_of_it() -> None:
    text = {"start": [0.0], "end": [2.0], "cap": [[5, 6]]}
    item = ALIGNERS["OverlappedAligner"]("v", np.ones((2, 3), np.float32), text, rng=np.random.default_rng(0))
    assert item["video_start"].tolist() == [0] * 4 and item["video_end"].tolist() == [2] * 4
    assert item["vmasks"].sum(dim=1).tolist() == [2] * 4


@pytest.mark.parametrize("name", sorted(name for name, grouped in NAMES.items() if not grouped))
def test_captions_outside_the_video_are_left_out_and_counted(name: str, caplog: pytest.LogCaptureFixture) -> None:
    text = {"start": [0.0, 3.0, 5.0, 40.0], "end": [2.0, 1.0, 90.0, 50.0], "cap": [[5], [6], [7], [8]]}
    aligner = build("aligner", name, CONFIG)
    with caplog.at_level(logging.WARNING):
        for seed in range(20):
            item = aligner("vid", np.ones((10, 2), np.float16), text, rng=np.random.default_rng(seed))
            assert set(item["caps"].unique().tolist()) <= {0, 2, 3, 5, 7}
            assert item["vmasks"].any(dim=1).all()
            assert set(item["text_start"].tolist()) <= {0, 2} and set(item["text_end"].tolist()) <= {1, 3}
    assert aligner.dropped_captions == 40 and len(caplog.records) == 1 and "vid" in caplog.text


def test_words_of_left_out_captions_do_not_reach_their_neighbours() -> None:
    text = {"start": [0.0, 50.0, 1.0], "end": [1.0, 60.0, 2.0], "cap": [[5, 6], [7, 8, 9], [10]]}
    item = ALIGNERS["FixedLenAligner"]("v", np.ones((10, 2)), text, rng=np.random.default_rng(0))
    assert item["caps"][:, :6].tolist() == [[2, 3, 5, 6, 10, 3]] * 4


def test_videos_without_usable_captions_leave_their_group() -> None:
    feature, text = make_video(np.random.default_rng(0), 30, 6)
    late = {"start": [30.0], "end": [31.0], "cap": [[5]]}
    none: dict[str, list] = {"start": [], "end": [], "cap": []}
    aligner = lenient("VideoRetriOverlappedAligner", CONFIG)
    item = aligner(
        ["a", "b", "c", "d"],
        [feature, feature * 2, feature * 3, feature * 4],
        [none, text, late, text],
        rng=np.random.default_rng(0),
    )
    assert item["video_id"] == ["b", "d"] and item["caps"].shape == (2, 4, 64) and aligner.dropped_videos == 2
    for i, scaled in enumerate((feature * 2, feature * 4)):
        check_samples(aligner, {key: value[i] for key, value in item.items()}, scaled, text)


def test_nothing_usable_is_an_error_that_names_the_video() -> None:
    for text in ({"start": [], "end": [], "cap": []}, {"start": [9.0], "end": [9.5], "cap": [[5]]}):
        with pytest.raises(UnusableItemError, match="vid7"):
            ALIGNERS["FixedLenAligner"](("vid7", 0, 0, 0), np.ones((9, 2)), text, rng=np.random.default_rng(0))
        with pytest.raises(UnusableItemError, match="vid7"):
            ALIGNERS["VideoRetriAligner"](["vid7"], [np.ones((9, 2))], [text], rng=np.random.default_rng(0))
    empty = np.ones((0, 2))
    with pytest.raises(UnusableItemError, match="vid7"):
        ALIGNERS["OverlappedAligner"]("vid7", empty, {"start": [0], "end": [1], "cap": [[5]]})
    with pytest.raises(UnusableItemError, match="no videos"):
        ALIGNERS["VideoRetriAligner"]([], [], [])


def test_bad_features_and_captions_name_the_video() -> None:
    _, text = make_video(np.random.default_rng(0), 9, 2)
    with pytest.raises(DataError, match=r"video v0: shape \(9,\)"):
        ALIGNERS["FixedLenAligner"]("v0", np.ones(9), text)
    with pytest.raises(DataError, match="video b have 3 values per second, those of a 2"):
        ALIGNERS["VideoRetriAligner"](["a", "b"], [np.ones((9, 2)), np.ones((9, 3))], [text, text])
    with pytest.raises(DataError, match="captions of v0"):
        ALIGNERS["FixedLenAligner"]("v0", np.ones((9, 2)), {"start": [0.0], "end": [1.0]})
    with pytest.raises(DataError, match="captions of v0"):
        ALIGNERS["FixedLenAligner"]("v0", np.ones((9, 2)), {"start": [0.0], "end": [1.0, 2.0], "cap": [[1]]})


def test_dicts_and_arrays_of_captions_give_the_same() -> None:
    feature, text = make_video(np.random.default_rng(0), 60, 15)
    one, other = (
        ALIGNERS["OverlappedAligner"]("v", feature, kind, rng=np.random.default_rng(5))
        for kind in (text, TextClips.of(text))
    )
    assert all(torch.equal(one[key], other[key]) for key in one if key != "video_id")


def test_equal_generators_give_equal_items_and_inputs_are_left_alone() -> None:
    feature, text = make_video(np.random.default_rng(0), 60, 15)
    feature.setflags(write=False)
    aligner = ALIGNERS["OverlappedAligner"]
    first, second, other = (aligner("v", feature, text, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[key], second[key]) for key in first if key != "video_id")
    assert not torch.equal(first["video_start"], other["video_start"])


@pytest.mark.parametrize(
    ("change", "preset", "key"),
    [
        ({"clip_per_video": None}, {}, "clip_per_video or dataset.subsampling"),
        ({"sampled_min_len": None}, {"text_length": "varied"}, "sampled_min_len"),
        ({"sampled_min_len": 65}, {"text_length": "varied"}, "sampled_max_len"),
        ({"sampled_video_max_len": None}, {"video_clip": "overlapped"}, "sampled_video_max_len"),
        ({"sampled_video_max_len": 33}, {"video_clip": "overlapped"}, "exceeds max_video_len"),
        ({}, {"center": "last"}, "center"),
    ],
)
def test_config_errors_name_the_key(change: dict[str, Any], preset: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        ClipSamplingAligner({**CONFIG, **change}, **preset)


def test_clip_per_video_wins_over_subsampling() -> None:
    assert ClipSamplingAligner({**CONFIG, "subsampling": 9}).clips_per_video == 4
    assert ClipSamplingAligner({**CONFIG, "subsampling": 9, "clip_per_video": None}).clips_per_video == 9


@pytest.mark.parametrize("wrong", [64, -1])
def test_token_ids_outside_the_vocabulary_are_refused(wrong: int) -> None:
    aligner = build("aligner", "VideoRetriOverlappedAligner", CONFIG)
    good, bad = ({"start": [0.0], "end": [2.0], "cap": [[5, token]]} for token in (63, wrong))
    features = [np.zeros((5, 4), np.float16)] * 2
    aligner(["a", "b"], features, [good, good])
    with pytest.raises(DataError, match=rf"video b: token id {wrong}, .*tiny_bert' has 64 tokens"):
        aligner(["a", "b"], features, [good, bad])
