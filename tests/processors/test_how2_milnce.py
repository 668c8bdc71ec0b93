"""How2MILNCEAligner: short clips, and the captions nearest to each."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.processors.base import UnusableItemError
from mmpt.processors.how2_milnce import How2MILNCEAligner, nearest_captions
from mmpt.utils.errors import ConfigError
from mmpt.utils.registry import build

CONFIG: dict[str, Any] = {"bert_name": "tests/data/tiny_bert", "max_video_len": 32, "max_len": 96, "clip_per_video": 6}


def lenient(**changes: Any) -> How2MILNCEAligner:
    """An aligner that takes more ids than the tiny vocabulary has: here a caption's words are its number."""
    aligner = How2MILNCEAligner({**CONFIG, **changes})
    aligner.vocab_size = 1 << 20
    return aligner


def make_video(rng: np.random.Generator, seconds: int, captions: int) -> tuple[np.ndarray, dict[str, Any]]:
    feature = rng.standard_normal((seconds, 4)).astype(np.float16)
    start = np.sort(rng.uniform(0, seconds - 0.01, captions))
    cap = [[100 + i] * int(rng.integers(0, 6)) for i in range(captions)]
    return feature, {"start": start.tolist(), "end": (start + rng.uniform(0, 9, captions)).tolist(), "cap": cap}


def nearest_by_search(center: int, start: list[float], end: list[float], count: int) -> int:
    """Grow one caption at a time by the shorter of the two runs, the right one on a tie."""
    run = [center]
    while len(run) < min(count, len(start)):
        choices = []
        if run[-1] + 1 < len(start):
            choices.append([*run, run[-1] + 1])
        if run[0] > 0:
            choices.append([run[0] - 1, *run])
        run = min(choices, key=lambda one: np.float32(end[one[-1]]) - np.float32(start[one[0]]))
    return run[0]


@settings(max_examples=100, deadline=None)
@given(captions=st.integers(1, 12), count=st.integers(1, 6), seed=st.integers(0, 10_000), whole=st.booleans())
def test_candidates_are_the_captions_around_it_that_last_shortest(
    captions: int, count: int, seed: int, whole: bool
) -> None:
    rng = np.random.default_rng(seed)
    start = np.sort(rng.integers(0, 20, captions) if whole else rng.uniform(0, 60, captions)).astype(np.float32)
    end = start + rng.integers(0, 5, captions).astype(np.float32)
    # Between two other videos, whose captions must not be taken.
    others = np.arange(3, dtype=np.float32)
    all_start, all_end = (np.concatenate((others, x, others)) for x in (start, end))
    center = np.arange(captions) + 3
    low, high = np.full(captions, 3), np.full(captions, 3 + captions)
    first = nearest_captions(center, low, high, all_start, all_end, count)
    assert first.tolist() == [3 + nearest_by_search(i, start.tolist(), end.tolist(), count) for i in range(captions)]


def test_an_item_of_the_published_size() -> None:
    feature, text = make_video(np.random.default_rng(0), 60, 15)
    item = lenient()("v", feature, text, rng=np.random.default_rng(0))
    shapes = {key: (tuple(value.shape), value.dtype) for key, value in item.items() if key != "video_id"}
    assert shapes == {
        "caps": ((6, 4, 64), torch.int64),
        "cmasks": ((6, 4, 64), torch.bool),
        "vfeats": ((6, 32, 4), torch.float32),
        "vmasks": ((6, 32), torch.bool),
        **dict.fromkeys(("video_start", "video_end", "text_start", "text_end"), ((6,), torch.int64)),
    }
    assert item["vmasks"].sum(dim=1).tolist() == [3] * 6 and item["video_id"] == "v"
    assert isinstance(build("aligner", "How2MILNCEAligner", CONFIG), How2MILNCEAligner)


@settings(max_examples=60, deadline=None)
@given(seconds=st.integers(1, 60), captions=st.integers(1, 20), count=st.integers(1, 5), seed=st.integers(0, 9999))
def test_candidates_and_clips_are_what_the_base_layout_gives(
    seconds: int, captions: int, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    feature, text = make_video(rng, seconds, captions)
    aligner = lenient(num_candidates=count)
    item = aligner("v", feature, text, rng=rng)
    for k in range(6):
        first, stop = int(item["text_start"][k]), int(item["text_end"][k])
        assert 0 <= first < stop <= captions and stop - first == min(count, captions)
        for c in range(count):
            caps, cmasks = aligner._build_text_seq(text, [min(first + c, captions - 1)])
            assert torch.equal(item["caps"][k, c], caps) and torch.equal(item["cmasks"][k, c], cmasks)
        begin, end = int(item["video_start"][k]), int(item["video_end"][k])
        assert begin >= 0 and end <= seconds and end - begin == min(3, seconds)
        vfeats, vmasks = aligner._build_video_seq(feature, {"start": [begin], "end": [end]})
        assert torch.equal(item["vfeats"][k], vfeats) and torch.equal(item["vmasks"][k], vmasks)


def starts(start: float, end: float, seconds: int = 100, **changes: Any) -> Counter:
    """Where the clips of one caption begin, over many draws."""
    aligner = lenient(clip_per_video=20_000, **changes)
    text = {"start": [start], "end": [end], "cap": [[5]]}
    item = aligner("v", np.ones((seconds, 1), np.float16), text, rng=np.random.default_rng(0))
    return Counter(item["video_start"].tolist())


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ((20.0, 22.0), [18, 19]),  # widened to 18.5..23.5: begins at 18 to floor(23 - 3.2)
        ((20.0, 25.0), [20, 21]),  # five seconds already
        ((10.0, 20.0), [10, 11, 12, 13, 14, 15, 16]),  # floor(20 - 3.2) is the last
        ((0.5, 1.0), [0, 1]),  # widened to 0..5
        ((98.0, 99.0), [96, 97]),  # widened to 96..101, and the last clip of the features begins at 97
        ((99.9, 140.0), [97]),  # begins with the last second: the clip lies before it
    ],
)
def test_clips_lie_in_the_widened_time_of_their_caption(caption: tuple[float, float], expected: list[int]) -> None:
    found = starts(*caption)
    assert sorted(found) == expected
    for number in found.values():
        assert abs(number - 20_000 / len(expected)) < 5 * (20_000 / len(expected)) ** 0.5


def test_sizes_come_from_the_config() -> None:
    assert sorted(starts(20.0, 22.0, min_time=9.0, num_sec=5.9)) == [16, 17, 18, 19]  # 16.5..25.5: floor(25 - 5.9)
    aligner = lenient(num_sec=5.9, num_candidates=2)
    feature, text = make_video(np.random.default_rng(0), 30, 9)
    item = aligner("v", feature, text, rng=np.random.default_rng(0))
    assert item["caps"].shape == (6, 2, 64) and item["vmasks"].sum(dim=1).tolist() == [5] * 6


def test_a_video_of_few_captions_repeats_its_last_one() -> None:
    text = {"start": [0.0, 4.0], "end": [3.0, 9.0], "cap": [[5, 6], [7]]}
    item = lenient()("v", np.ones((20, 2), np.float16), text, rng=np.random.default_rng(0))
    for k in range(6):
        assert [caps[2:5].tolist() for caps in item["caps"][k]] == [[5, 6, 3], [7, 3, 0], [7, 3, 0], [7, 3, 0]]
    assert item["text_start"].tolist() == [0] * 6 and item["text_end"].tolist() == [2] * 6


def test_every_caption_is_a_centre_equally_often() -> None:
    # Far apart, so that a caption's clip tells which it is.
    text = {"start": [10.0, 40.0, 70.0], "end": [15.0, 45.0, 75.0], "cap": [[5], [6], [7]]}
    item = lenient(clip_per_video=9000)("v", np.ones((100, 1)), text, rng=np.random.default_rng(0))
    counts = np.bincount(item["video_start"].numpy() // 30, minlength=3)
    assert ((counts - 3000) ** 2 / 3000).sum() < 23  # chi-square, 2 degrees: once in 10^5


def test_captions_outside_the_video_are_left_out() -> None:
    text = {"start": [0.0, 3.0, 50.0], "end": [2.0, 1.0, 60.0], "cap": [[5], [6], [7]]}
    aligner = lenient()
    item = aligner("v", np.ones((10, 2)), text, rng=np.random.default_rng(0))
    assert set(item["caps"].unique().tolist()) == {0, 2, 3, 5} and aligner.dropped_captions == 2
    with pytest.raises(UnusableItemError, match="vid7"):
        aligner("vid7", np.ones((10, 2)), {"start": [50.0], "end": [60.0], "cap": [[7]]})


def test_equal_generators_give_equal_items() -> None:
    feature, text = make_video(np.random.default_rng(0), 60, 15)
    one, same, other = (lenient()("v", feature, text, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one if key != "video_id")
    assert not torch.equal(one["caps"], other["caps"])


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"num_candidates": 0}, "num_candidates"),
        ({"num_sec": 0.5}, "num_sec"),
        ({"num_sec": 33.0}, "num_sec"),
        ({"min_time": -1.0}, "min_time"),
        ({"clip_per_video": None}, "clip_per_video or dataset.subsampling"),
    ],
)
def test_config_errors_name_the_key(change: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        How2MILNCEAligner({**CONFIG, **change})
