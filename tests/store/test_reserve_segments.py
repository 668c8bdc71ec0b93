"""MERLOT Reserve's segments: windows, their words, and what is played faster."""

import numpy as np
import pytest

from mmpt.store.reserve_segments import SpeedUp, plan_windows, reserve_segments
from mmpt.store.word_times import Word


def encode(words: list[str]) -> list[list[int]]:
    return [[ord(c) for c in word] for word in words]


def words_at(*seconds: float) -> list[Word]:
    return [Word("ab", second, second + 0.25) for second in seconds]


def test_windows_follow_each_other_and_leave_the_end_out() -> None:
    assert plan_windows([], 16) == [(0, 5, 1), (5, 10, 1), (10, 15, 1)]
    assert plan_windows([], 15.9) == [(0, 5, 1), (5, 10, 1)]
    assert plan_windows([], 5.9) == []
    assert plan_windows([], 15, end_margin=0)[-1] == (10, 15, 1)


def test_words_belong_to_the_window_that_they_begin_in() -> None:
    words = [Word("a", 0.0, 0.5), Word("bc", 4.9, 5.4), Word("d", 5.0, 5.5), Word("e", 11, 12)]
    segments = reserve_segments(words, encode, plan_windows(words, 16))
    assert [segment.tokens for segment in segments] == [encode(["abc"])[0], encode(["d"])[0], encode(["e"])[0]]
    assert segments[0].token_times == [(0, 0.5), (4.9, 5.0), (4.9, 5.0)]
    assert segments[1].token_times == [(0, 0.5)]
    assert [segment.mid for segment in segments] == [2.5, 7.5, 12.5]


def test_times_of_a_window_that_is_played_faster_are_divided_by_its_speed() -> None:
    (segment,) = reserve_segments(words_at(12), encode, [(10, 20, 2)])
    assert segment.token_times == [(1, 1.125)] * 2
    assert (segment.start, segment.end, segment.speed, segment.mid) == (10, 20, 2, 15)


def test_few_words_are_played_faster() -> None:
    rule = SpeedUp(stop_chance=0)
    assert plan_windows([], 31, rule) == [(0, 15, 3), (15, 30, 3)]
    assert plan_windows([], 26, rule) == [(0, 15, 3), (15, 25, 2)]
    many = words_at(*np.arange(0, 5, 0.5))  # ten in the first window
    assert plan_windows(many, 21, rule)[0] == (0, 5, 1)
    later = words_at(*np.arange(5, 10, 0.3))  # seventeen in the second
    assert plan_windows(later, 21, rule)[:2] == [(0, 5, 1), (5, 10, 1)]
    some = words_at(*np.arange(0, 10, 1))  # five each
    assert plan_windows(some, 21, rule)[0] == (0, 10, 2)


def test_the_chance_to_stop_depends_on_the_generator_alone() -> None:
    plans = [plan_windows([], 3000, SpeedUp(), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]
    speeds = np.array([speed for _, _, speed in plans[0]])
    assert np.mean(speeds == 1) == pytest.approx(0.1, abs=0.06)
    assert np.mean(speeds == 3) == pytest.approx(0.81, abs=0.08)
