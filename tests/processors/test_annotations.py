"""Times of annotated segments: one rule for all corpora."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpt.processors.annotations import segment_times, whole_seconds


@pytest.mark.parametrize(
    ("pair", "seconds"),
    [([0, 3], (0, 3)), (("1.5", "4.2"), (1, 5)), ([2.0, 2.1], (2, 3)), ([4.5, 4.5], (4, 5)), ([0, 1e-9], (0, 1))],
)
def test_usable_segments(pair, seconds):
    times = segment_times(pair)
    assert times == tuple(map(float, pair)) and whole_seconds(*times) == seconds


@pytest.mark.parametrize(
    "pair",
    [
        *([4, 4], [9.0, 8.9], [8.9, 8.2], [-1, 3], [-0.5, 0.5], [math.nan, 3], [1, math.nan], [1, math.inf]),
        *([1], [1, 2, 3], [], "12", None, 5, [None, 2], ["a", 2], [[1], 2], [10**400, 10**401]),
    ],
)
def test_what_is_no_segment(pair):
    assert segment_times(pair) is None


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_every_usable_segment_touches_a_second(start, end):
    times = segment_times([start, end])
    touched = [second for second in {math.floor(start), math.ceil(end) - 1} if start < second + 1 and end > second]
    if start < end:
        assert times == (start, end) and touched
    if times:
        first, stop = whole_seconds(*times)
        assert first <= start <= end <= stop and first < stop
