"""The vectorised samplers against one-step-at-a-time versions of the same description."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt.processors.sampling import (
    TextClips,
    center_seconds,
    grow_text_runs,
    grow_video_clips,
    kept_words,
    pass_over,
    span_clips,
    usable_clips,
)

DRAWS = 40_000


def grow_one_run(rng, center, words, start, end, limit):
    """One text run, one caption at a time."""
    run = [center]
    total, span = words[center], max(end[center] - start[center], 0.0)
    while (run[0] > 0 or run[-1] + 1 < len(words)) and total < limit and span < 256:
        if rng.random() < 0.5 and run[-1] + 1 < len(words):
            run.append(run[-1] + 1)
            total += words[run[-1]]
        elif run[0] > 0:
            run.insert(0, run[0] - 1)
            total += words[run[0]]
        else:
            run.append(run[-1] + 1)
            total += words[run[-1]]
        span = end[run[-1]] - start[run[0]]
    return run[0], run[-1]


def exact_runs(center, words, start, end, limit):
    """Probability of each run, by following both outcomes of every draw."""
    found: Counter = Counter()

    def follow(first, last, probability):
        span = end[last] - start[first] if (first, last) != (center, center) else max(end[last] - start[first], 0.0)
        left, right = first > 0, last + 1 < len(words)
        if not (left or right) or sum(words[first : last + 1]) >= limit or span >= 256:
            found[first, last] += probability
        elif left and right:
            follow(first, last + 1, probability / 2)
            follow(first - 1, last, probability / 2)
        else:
            follow(first - left, last + right, probability)

    follow(center, center, 1.0)
    return found


def exact_clips(center, video_len, max_len):
    """Probability of each video clip, by following both outcomes of every step."""
    state = {(center, center): 1.0}
    for _ in range(min(max_len, video_len)):
        after: Counter = Counter()
        for (start, end), probability in state.items():
            if start > 0 and end < video_len:
                after[start - 1, end] += probability / 2
                after[start, end + 1] += probability / 2
            else:
                after[(start - 1, end) if start > 0 else (start, end + 1)] += probability
        state = after
    return state


def assert_distribution(drawn: Counter, expected: dict) -> None:
    """Chi-square test that fails once in about 10^6 runs, on bins of at least five expected draws."""
    total = sum(drawn.values())
    assert set(drawn) <= {key for key, probability in expected.items() if probability > 0}
    bins = [(drawn[key], probability * total) for key, probability in expected.items() if probability * total >= 5]
    statistic = sum((seen - wanted) ** 2 / wanted for seen, wanted in bins)
    degrees = max(len(bins) - 1, 1)
    # Wilson-Hilferty: the cube root of chi-square / degrees is close to normal.
    spread = math.sqrt(2 / (9 * degrees))
    assert ((statistic / degrees) ** (1 / 3) - (1 - spread**2)) / spread < 4.9


@pytest.mark.parametrize("center", [0, 2, 5])
@pytest.mark.parametrize("limit", [1, 8, 20, 1000])
def test_text_runs_have_the_distribution_of_single_steps(center: int, limit: int) -> None:
    words = np.array([3, 0, 4, 7, 2, 5])
    start = np.array([0.0, 2, 3, 10, 11, 300], dtype=np.float32)
    end = np.array([2.0, 3, 9, 11, 20, 310], dtype=np.float32)
    fill = np.full(DRAWS, center)
    rng = np.random.default_rng(center * 7 + limit)
    first, last = grow_text_runs(rng, fill, fill * 0, fill * 0 + 6, words, start, end, fill * 0 + limit)
    drawn = Counter(zip(first.tolist(), last.tolist(), strict=True))
    assert_distribution(drawn, exact_runs(center, words.tolist(), start.tolist(), end.tolist(), limit))


def test_exact_runs_agree_with_single_steps() -> None:
    words, start, end = [3, 1, 4, 1, 5], [0.0, 1, 2, 3, 4], [1.0, 2, 3, 4, 5]
    rng = np.random.default_rng(0)
    drawn = Counter(grow_one_run(rng, 1, words, start, end, 8) for _ in range(20_000))
    assert_distribution(drawn, exact_runs(1, words, start, end, 8))


def test_runs_stop_at_256_seconds() -> None:
    start = np.array([0.0, 100, 300], dtype=np.float32)
    end = np.array([10.0, 110, 310], dtype=np.float32)
    center = np.full(200, 1)
    first, last = grow_text_runs(
        np.random.default_rng(0), center, center * 0, center * 0 + 3, np.ones(3, int), start, end, center * 0 + 99
    )
    # 0..1 spans 110 s and may grow on to the whole; nothing stops before 256 s.
    assert set(zip(first.tolist(), last.tolist(), strict=True)) == {(0, 2)}
    end[2] = 360.0
    first, last = grow_text_runs(
        np.random.default_rng(0), center, center * 0, center * 0 + 3, np.ones(3, int), start, end, center * 0 + 99
    )
    assert set(zip(first.tolist(), last.tolist(), strict=True)) == {(0, 2), (1, 2)}


@settings(max_examples=100, deadline=None)
@given(
    videos=st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=8), min_size=1, max_size=5),
    limit=st.integers(1, 64),
    seed=st.integers(0, 999),
)
def test_runs_stay_in_their_video_and_contain_their_centre(videos, limit, seed) -> None:
    rng = np.random.default_rng(seed)
    words = np.concatenate([np.array(video) for video in videos])
    start = np.concatenate([np.arange(len(video), dtype=np.float32) for video in videos])
    counts = np.array([len(video) for video in videos])
    high = np.repeat(np.cumsum(counts), 3)
    low = high - np.repeat(counts, 3)
    center = rng.integers(low, high)
    before = center.copy()
    first, last = grow_text_runs(rng, center, low, high, words, start, start + 1, np.full(len(center), limit))
    np.testing.assert_array_equal(center, before)
    assert ((low <= first) & (first <= center) & (center <= last) & (last < high)).all()
    for a, b, left, right in zip(first, last, low, high, strict=True):
        total = words[a : b + 1].sum()
        assert total >= limit or (a == left and b == right - 1)  # grown until full
        assert a == b or total - max(words[a], words[b]) < limit  # at most one caption over


@pytest.mark.parametrize(
    ("center", "video_len", "max_len"), [(0, 20, 6), (3, 20, 10), (19, 20, 6), (5, 10, 8), (2, 5, 9), (0, 1, 4)]
)
def test_video_clips_have_the_distribution_of_single_steps(center: int, video_len: int, max_len: int) -> None:
    fill = np.full(DRAWS, 1)
    start, end = grow_video_clips(np.random.default_rng(3), fill * center, fill * video_len, fill * max_len)
    drawn = Counter(zip(start.tolist(), end.tolist(), strict=True))
    assert_distribution(drawn, exact_clips(center, video_len, max_len))


@given(st.data())
def test_video_clips_lie_inside_and_have_their_length(data) -> None:
    video_len = data.draw(st.integers(1, 100))
    center, max_len = data.draw(st.integers(0, video_len - 1)), data.draw(st.integers(1, 64))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    start, end = grow_video_clips(rng, np.full(50, center), np.full(50, video_len), np.full(50, max_len))
    assert (start >= 0).all() and (end <= video_len).all() and (end - start == min(max_len, video_len)).all()
    assert (start <= center).all() and (end >= center).all()


def test_centre_is_uniform_over_the_run_both_ends_included() -> None:
    first, last = np.full(DRAWS, 2.7, np.float32), np.full(DRAWS, 6.1, np.float32)
    drawn = Counter(center_seconds(np.random.default_rng(0), first, last, np.full(DRAWS, 50)).tolist())
    assert_distribution(drawn, dict.fromkeys(range(2, 8), 1 / 6))


def test_centre_is_clamped_and_degenerate_runs_take_their_midpoint() -> None:
    first = np.array([8.0, 6.0, 4.0, 3.0], dtype=np.float32)
    last = np.array([np.inf, 3.0, 4.0, 1e30], dtype=np.float32)
    center = center_seconds(np.random.default_rng(0), first, last, np.array([9, 9, 9, 4]))
    assert center.tolist() == [8, 4, 4, 3]


def test_spans_are_clipped_and_never_empty() -> None:
    start, end = span_clips(
        np.array([1.9, 3.0, -2.0, 9.5, 5.0], np.float32),
        np.array([4.1, 3.0, 1.0, 99.0, 2.0], np.float32),
        np.array([10, 10, 10, 10, 10]),
    )
    assert list(zip(start.tolist(), end.tolist(), strict=True)) == [(1, 5), (3, 4), (0, 1), (9, 10), (5, 6)]


def test_usable_captions_begin_inside_the_video_and_end_after_they_begin() -> None:
    start = np.array([0.0, 5.0, 9.9, 10.0, np.nan, 3.0], np.float32)
    end = np.array([1.0, 4.0, 30.0, 12.0, 5.0, np.nan], np.float32)
    assert usable_clips(start, end, np.full(6, 10)).tolist() == [True, False, True, False, False, False]


def test_text_clips_read_as_the_documented_dict() -> None:
    plain = {"start": [0.0, 2.5, 4.0], "end": [2.0, 4.0, 5.0], "cap": [[7, 8], [], [9]]}
    clips = TextClips.of(plain)
    assert dict(clips) == plain and clips.count == 3 and TextClips.of(clips) is clips
    padded = TextClips.from_padded(
        np.array([[0, 2], [2.5, 4], [4, 5]], np.float32), np.array([[7, 8, -1], [-1] * 3, [9, -1, -1]], np.int32)
    )
    assert dict(padded) == plain
    assert dict(TextClips.of({"start": [], "end": [], "cap": []})) == {"start": [], "end": [], "cap": []}
    with pytest.raises(ValueError, match="2 starts, 1 ends and 1 captions"):
        TextClips.of({"start": [0, 1], "end": [1], "cap": [[1]]})


def exact_kept_runs(center, words, start, end, limit, keep_prob):
    """Probability of each set of captions taken, by following every draw of a run that steps over some."""
    found: Counter = Counter()

    def follow(low, high, kept, probability):
        span = max(end[kept[-1]] - start[kept[0]], 0.0)
        sides = ([low - 1] if low > 0 else []) + ([high + 1] if high + 1 < len(words) else [])
        if not sides or sum(words[i] for i in kept) >= limit or span >= 256:
            found[kept] += probability
            return
        for met in sides:
            share = probability / len(sides)
            follow(min(low, met), max(high, met), tuple(sorted((*kept, met))), share * keep_prob)
            follow(min(low, met), max(high, met), kept, share * (1 - keep_prob))

    follow(center, center, (center,), 1.0)
    return found


@pytest.mark.parametrize("keep_prob", [0.3, 0.8])
@pytest.mark.parametrize(("center", "limit"), [(0, 8), (2, 8), (2, 12), (5, 1000)])
def test_runs_that_step_over_captions_have_the_distribution_of_single_steps(
    center: int, limit: int, keep_prob: float
) -> None:
    words = np.array([3, 1, 4, 7, 2, 5])
    start = np.array([0.0, 2, 3, 10, 11, 250], dtype=np.float32)
    end = np.array([2.0, 3, 9, 11, 20, 310], dtype=np.float32)
    # Captions of another video on either side, which no run may touch.
    words, start, end = (np.concatenate((x[:2] + 99, x, x[:2] + 99)) for x in (words, start, end))
    fill = np.full(DRAWS, center + 2)
    low, high = np.full(DRAWS, 2), np.full(DRAWS, 8)
    rng = np.random.default_rng(center * 7 + limit)
    passed = pass_over(rng, fill, low, high, keep_prob)
    first, last = grow_text_runs(rng, fill, low, high, words, start, end, np.full(DRAWS, limit), passed)
    offsets = np.concatenate(([0], np.cumsum(words)))
    tokens, bounds = kept_words(np.repeat(np.arange(len(words)), words), offsets, first, last, low, passed)
    assert len(tokens) == bounds[-1] and bounds[0] == 0
    drawn: Counter = Counter()
    for a, b, begin, stop in zip(first.tolist(), last.tolist(), bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        run = tokens[begin:stop]
        kept = tuple(np.unique(run).tolist())
        assert (kept[0], kept[-1]) == (a, b) and np.array_equal(run, np.repeat(kept, words[list(kept)]))
        drawn[tuple(i - 2 for i in kept)] += 1
    own = (x[2:8].tolist() for x in (words, start, end))
    assert_distribution(drawn, exact_kept_runs(center, *own, limit, keep_prob))


def test_stepping_over_nothing_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    words, start = rng.integers(0, 9, 30), np.arange(30.0)
    center, low, high, limit = rng.integers(0, 30, 500), np.zeros(500, int), np.full(500, 30), np.full(500, 25)
    passed = pass_over(rng, center, low, high, 1.0)
    assert not passed.any()
    runs = [
        grow_text_runs(np.random.default_rng(1), center, low, high, words, start, start + 1, limit, given)
        for given in (None, passed)
    ]
    assert all(np.array_equal(one, other) for one, other in zip(*runs, strict=True))
    offsets = np.concatenate(([0], np.cumsum(words)))
    tokens, bounds = kept_words(np.arange(offsets[-1]), offsets, *runs[0], low, passed)
    expected = [np.arange(offsets[a], offsets[b + 1]) for a, b in zip(*runs[0], strict=True)]
    assert np.array_equal(tokens, np.concatenate(expected)) and np.array_equal(
        np.diff(bounds), list(map(len, expected))
    )
