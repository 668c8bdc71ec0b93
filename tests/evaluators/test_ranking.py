"""Ranks: against brute force, with ties, with several matches, in bounded memory."""

import tracemalloc
import warnings
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpt.evaluators import ranking
from mmpt.evaluators.ranking import ranks, ranks_both, ranks_from_scores, top_items
from mmpt.utils.errors import DataError


def brute_force(scores: np.ndarray, positives: list[set[int]]) -> list[int]:
    """Rank by definition: 1 + others that score at least as high as the best match."""
    result = []
    for row, own in zip(scores, positives, strict=True):
        best = max(row[item] for item in own)
        result.append(1 + sum(score >= best for item, score in enumerate(row) if item not in own))
    return result


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Small whole-number embeddings, so that scores are exact and ties frequent."""
    texts, videos, dim = draw(st.integers(1, 12)), draw(st.integers(1, 9)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    text, video = (rng.integers(-2, 3, (count, dim)).astype(np.float32) for count in (texts, videos))
    return text, video, rng.integers(0, videos, texts)


@given(problems(), st.integers(1, 200))
def test_both_directions_equal_brute_force_for_any_block_size(problem, block_bytes):
    text, video, target = problem
    scores = text @ video.T
    forward, backward = ranks_both(text, video, target, block_bytes)
    assert forward.tolist() == brute_force(scores, [{item} for item in target])
    described = sorted(set(target.tolist()))
    expected = brute_force(scores.T[described], [set(np.flatnonzero(target == item)) for item in described])
    assert backward.tolist() == expected
    assert ranks(text, video, target, block_bytes).tolist() == forward.tolist()
    assert ranks_from_scores(scores, target, block_bytes=block_bytes).tolist() == forward.tolist()


@given(problems(), st.integers(1, 60), st.integers(1, 4), st.booleans())
def test_rows_and_items_some_at_a_time_on_either_library_equal_brute_force(problem, cached_bytes, items, faster):
    text, video, target = problem
    video.flags.writeable = text.flags.writeable = False  # as those of a mapped file
    with (
        mock.patch.object(ranking, "_CACHED_BYTES", cached_bytes),
        mock.patch.object(ranking, "_ITEMS", items),
        mock.patch.object(ranking, "onednn_is_faster", lambda: faster),
        warnings.catch_warnings(action="error"),
    ):
        assert ranks(text, video, target).tolist() == brute_force(text @ video.T, [{item} for item in target])


def test_nan_scores_of_several_parts_are_counted():
    scores = np.zeros((6, 5))
    scores[[0, 2, 5], [4, 1, 0]] = np.nan
    with mock.patch.object(ranking, "_CACHED_BYTES", 80), pytest.raises(DataError, match="3 of 30 scores are NaN"):
        ranks_from_scores(scores, np.arange(6) % 5)


def test_worked_example():
    scores = np.array([[0.9, 0.1, 0.5], [0.2, 0.2, 0.1], [0.3, 0.4, 0.1]])
    assert ranks_from_scores(scores, [0, 1, 2]).tolist() == [1, 2, 3]


@pytest.mark.parametrize("count", [3, 64, 1001])
def test_collapsed_model_ranks_last(count):
    """Equal real-valued embeddings must tie exactly, wherever a matrix product puts them."""
    video = np.tile(np.random.default_rng(0).standard_normal(384).astype(np.float32), (count, 1))
    text = np.random.default_rng(1).standard_normal((count, 384)).astype(np.float32)
    assert (ranks(text, video, np.arange(count)) == count).all()


def test_copies_of_the_right_video_count_against_the_query():
    rng = np.random.default_rng(2)
    video = rng.standard_normal((50, 96)).astype(np.float32)
    video[[7, 23, 49]] = video[3]
    text = 5 * video[[3]]
    assert ranks(text, video, [3]).tolist() == [4]
    assert ranks(text, np.where(video == 0, -0.0, video), [49]).tolist() == [4]


def test_other_captions_of_a_video_do_not_count_against_it():
    text = np.array([[1.0], [3.0], [2.0]], dtype=np.float32)
    video = np.array([[1.0], [-1.0]], dtype=np.float32)
    _, backward = ranks_both(text, video, [0, 0, 1])
    assert backward.tolist() == [1, 2]  # texts 0 and 1 are both right for video 0; text 0 beats text 2 for video 1


def test_score_function_is_asked_in_blocks():
    scores = np.random.default_rng(3).standard_normal((40, 30)).astype(np.float32)
    asked = []

    def block(begin: int, end: int) -> np.ndarray:
        asked.append(end - begin)
        return scores[begin:end]

    target = np.arange(40) % 30
    assert (ranks_from_scores(block, target, 30, block_bytes=30 * 4 * 7) == ranks_from_scores(scores, target)).all()
    assert asked == [7, 7, 7, 7, 7, 5]


def test_memory_stays_bounded():
    rng = np.random.default_rng(4)
    text, video = (rng.standard_normal((12_000, 8)).astype(np.float32) for _ in range(2))
    tracemalloc.start()
    ranks(text, video, np.arange(12_000), block_bytes=8 * 2**20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60 * 2**20  # all scores together are 549 MiB


def test_nan_scores_are_counted():
    scores = np.zeros((6, 5), dtype=np.float32)
    scores[0, 1] = scores[4, 2] = scores[5, 0] = np.nan
    with pytest.raises(DataError, match="3 of 30 scores are NaN"):
        ranks_from_scores(scores, np.zeros(6, int), block_bytes=40)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_counted(value):
    video = np.ones((5, 2))
    video[[2, 4], 1] = value
    with pytest.raises(DataError, match=r"2 of 5 video embeddings hold NaN or infinity \(first: row 2\)"):
        ranks(np.ones((5, 2)), video, np.arange(5))


@pytest.mark.parametrize(
    ("text", "video", "target", "message"),
    [
        ((2, 3), (2, 4), [0, 1], "do not fit together"),
        ((2, 3), (2, 3), [0], "2 texts, but targets"),
        ((2, 3), (2, 3), [0, 2], "but there are 2 items"),
        ((2, 3), (2, 3), [-1, 0], "targets run from -1"),
        ((0, 3), (2, 3), [], "no queries"),
    ],
)
def test_wrong_shapes(text, video, target, message):
    with pytest.raises(DataError, match=message):
        ranks(np.ones(text), np.ones(video), target)


def test_infinite_scores_are_scores():
    assert ranks_from_scores(np.array([[-np.inf, 1.0], [-np.inf, -np.inf]]), [0, 0]).tolist() == [2, 2]


def test_top_items_keeps_the_order_of_equals():
    items, scores = top_items(np.array([[1.0, 2.0, 2.0, 0.0]]), 3)
    assert items.tolist() == [[1, 2, 0]]
    assert scores.tolist() == [[2.0, 2.0, 1.0]]
