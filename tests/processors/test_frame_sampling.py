"""Which frames are looked at: the published table, and what holds for every number of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpt.processors.frame_sampling import nearest_frame, sample_frames
from mmpt.utils.errors import DataError

#: (wanted, stored) -> frames, by the published code in evaluation.
PUBLISHED = {
    (5, 32): [0, 8, 16, 23, 31],
    (5, 10): [0, 2, 4, 7, 9],
    (4, 32): [0, 10, 21, 31],
    (5, 5): [0, 1, 2, 3, 4],
    (4, 5): [0, 1, 3, 4],
    (5, 7): [0, 2, 3, 4, 6],
}


@pytest.mark.parametrize(("wanted", "stored"), PUBLISHED)
def test_the_published_choice(wanted, stored):
    assert sample_frames(stored, wanted) == PUBLISHED[wanted, stored]


def test_training_begins_with_one_of_the_first():
    # 7 of 5: two apart, begin 0 or 1, end with frame 6; 4 of 32: eight apart, begin 0 .. 7, end 24 later
    of_seven = {tuple(sample_frames(7, 5, np.random.default_rng(seed))) for seed in range(40)}
    assert of_seven == {(0, 2, 3, 4, 6), (1, 2, 4, 5, 6)}
    of_many = {tuple(sample_frames(32, 4, np.random.default_rng(seed))) for seed in range(200)}
    assert of_many == {tuple(range(first, first + 25, 8)) for first in range(8)}


@given(st.integers(1, 300), st.integers(1, 12), st.none() | st.integers(0, 2**32 - 1))
def test_every_choice(stored, wanted, seed):
    rng = None if seed is None else np.random.default_rng(seed)
    frames = sample_frames(stored, wanted, rng)
    assert len(frames) == min(stored, wanted)
    assert frames == sorted(set(frames)) and frames[0] >= 0 and frames[-1] < stored
    if stored <= wanted:
        assert frames == list(range(stored))  # also where the published code stops: two and more, and too few
    elif seed is None and wanted > 1:
        assert (frames[0], frames[-1]) == (0, stored - 1)
        steps = np.diff(frames)
        assert steps.max() - steps.min() <= 2
    elif seed is not None:
        assert frames[0] < -(-stored // wanted)


def test_no_frames_cannot_be_chosen():
    for stored, wanted in ((0, 4), (4, 0)):
        with pytest.raises(ValueError):
            sample_frames(stored, wanted)


def test_the_nearest_frame():
    times = np.array([1.0, 4.0, np.nan, 9.0])
    assert [nearest_frame(times, start, end) for start, end in ((0, 0.5), (5, 6), (6, 8), (20, 30), (2, 3))] == [
        *(0, 1, 3, 3),
        0,  # as near as the other
    ]
    with pytest.raises(DataError, match="times of its frames are not known"):
        nearest_frame(np.array([np.nan]), 0, 1)
