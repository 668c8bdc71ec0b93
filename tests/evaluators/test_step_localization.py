"""The dynamic program against all choices there are, and the chance of an ordered choice against counting."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmpt.evaluators.step_localization import log_softmax, one_hot, ordered_chance, ordered_frames
from mmpt.utils.errors import DataError


def cost_of(cost: np.ndarray, chosen) -> float:
    return cost[np.array(chosen), np.arange(cost.shape[1])].sum()


def brute_force(cost: np.ndarray) -> tuple[int, ...]:
    """Of all increasing choices the cheapest one; among those, the earliest last step, then the one before it."""
    choices = itertools.combinations(range(len(cost)), cost.shape[1])
    return min(choices, key=lambda chosen: (cost_of(cost, chosen), chosen[::-1]))


@st.composite
def costs(draw, elements) -> np.ndarray:
    steps = draw(st.integers(1, 5))
    frames = draw(st.integers(steps, 9))
    return draw(arrays(np.float64, (frames, steps), elements=elements))


@settings(deadline=None)
@given(costs(st.integers(-2, 2)))
def test_equals_brute_force_with_ties(cost: np.ndarray) -> None:
    assert tuple(ordered_frames(cost)) == brute_force(cost)


@settings(deadline=None)
@given(costs(st.floats(-1e3, 1e3, width=32)))
def test_costs_as_little_as_brute_force(cost: np.ndarray) -> None:
    chosen = ordered_frames(cost)
    assert (np.diff(chosen) > 0).all() and chosen[0] >= 0 and chosen[-1] < len(cost)
    assert cost_of(cost, chosen) == pytest.approx(cost_of(cost, brute_force(cost)), rel=1e-12, abs=1e-9)


def test_worked_example() -> None:
    # the best frame of step 1 lies before the best frame of step 0: one of them has to give way
    cost = np.array([[9, 0, 9], [9, 1, 9], [0, 9, 9], [9, 3, 0], [9, 9, 2]])
    assert ordered_frames(cost).tolist() == [2, 3, 4]
    assert ordered_frames(cost[:, :1]).tolist() == [2]
    assert ordered_frames(np.zeros((3, 3))).tolist() == [0, 1, 2]
    assert ordered_frames(np.zeros((5, 2))).tolist() == [0, 1]
    assert ordered_frames(cost.astype(np.float16)).dtype == np.int64


def test_refuses_what_has_no_answer() -> None:
    with pytest.raises(DataError, match="2 frames cannot hold 3 steps"):
        ordered_frames(np.zeros((2, 3)))
    with pytest.raises(DataError, match="1 of 6 costs of steps are not finite"):
        ordered_frames(np.array([[0, 0], [0, np.nan], [0, 0]]))
    with pytest.raises(DataError, match=r"expected \(frames, steps\)"):
        ordered_frames(np.zeros(3))


def test_a_long_video_takes_milliseconds() -> None:
    cost = np.random.default_rng(0).standard_normal((2000, 20))
    begin = time.process_time()
    for _ in range(10):
        chosen = ordered_frames(cost)
    assert (time.process_time() - begin) / 10 < 0.05
    assert (np.diff(chosen) > 0).all()


def test_one_hot() -> None:
    assert one_hot(np.array([0, 2]), 3).tolist() == [[1, 0], [0, 0], [0, 1]]


def test_log_softmax_over_steps() -> None:
    logits = np.array([[0.0, np.log(3)], [1000.0, 1000.0]], dtype=np.float32)
    np.testing.assert_allclose(np.exp(log_softmax(logits)), [[0.25, 0.75], [0.5, 0.5]], rtol=1e-6)


@pytest.mark.parametrize(("frames", "steps"), [(1, 1), (5, 1), (4, 4), (6, 3), (9, 4)])
def test_chance_of_an_ordered_choice_by_counting(frames: int, steps: int) -> None:
    choices = list(itertools.combinations(range(frames), steps))
    counted = sum(one_hot(np.array(chosen), frames).astype(np.float64) for chosen in choices) / len(choices)
    np.testing.assert_allclose(ordered_chance(frames, steps), counted, atol=1e-12)


def test_chance_of_many_frames_sums_to_one() -> None:
    np.testing.assert_allclose(ordered_chance(1500, 12).sum(axis=0), np.ones(12), rtol=1e-9)
    with pytest.raises(DataError, match="2 frames cannot hold 3 steps"):
        ordered_chance(2, 3)
