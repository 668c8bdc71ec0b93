"""Sliding windows: where they begin, what is in them, and how what they say is put together."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmpt.processors.windows import Windows, average_windows, video_only_text
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.tokenizers import SpecialIds


def published_starts(seconds: int, size: int, stride: int) -> list[int]:
    """Windows one after another, up to the first that reaches the end."""
    starts = []
    for start in itertools.count(0, stride):
        starts.append(start)
        if start + size >= seconds:
            return starts
    raise AssertionError


@given(st.integers(1, 200), st.integers(1, 40), st.data())
def test_starts(seconds, size, data):
    stride = data.draw(st.integers(1, size))
    assert Windows(size, stride).starts(seconds).tolist() == published_starts(seconds, size, stride)


def test_worked_example_of_the_published_windows():
    # 32 s every 16 s: 50 s are covered by the windows at 0, 16 and 32, 48 s by two
    assert Windows(32, 16).starts(50).tolist() == [0, 16, 32]
    assert Windows(32, 16).starts(48).tolist() == [0, 16]
    assert Windows(32, 8).starts(48).tolist() == [0, 8, 16]
    assert Windows(32, 16).starts(32).tolist() == Windows(32, 16).starts(20).tolist() == [0]


@given(st.integers(1, 60), st.integers(1, 12), st.data())
def test_windows_hold_the_seconds_that_they_say(seconds, size, data):
    windows = Windows(size, data.draw(st.integers(1, size)))
    feature = np.stack([np.arange(seconds), -np.arange(seconds)], axis=1).astype(np.float16)
    cut = windows.cut(feature)
    assert cut.vfeats.dtype == torch.float32 and cut.vmasks.dtype == torch.bool
    assert cut.vfeats.shape == (len(cut.starts), size, 2)
    for row, (start, length) in enumerate(zip(cut.starts, cut.lengths, strict=True)):
        assert cut.vmasks[row].tolist() == [True] * length + [False] * (size - length)
        assert cut.vfeats[row, :length, 0].tolist() == list(range(start, start + length))
        assert not cut.vfeats[row, length:].any()
    inside = windows.cut_seconds(np.arange(seconds), -100)
    assert (inside[cut.vmasks.numpy()] == cut.vfeats[..., 0][cut.vmasks].numpy()).all()
    assert (inside[~cut.vmasks.numpy()] == -100).all()


@given(st.integers(1, 40), st.integers(1, 12), st.data())
def test_average_by_second(seconds, size, data):
    windows = Windows(size, data.draw(st.integers(1, size)))
    cut = windows.cut(np.zeros((seconds, 1), np.float32))
    rng = np.random.default_rng(seconds)
    rows = rng.standard_normal((int(cut.lengths.sum()), 3)).astype(np.float32)
    said: dict[int, list[np.ndarray]] = {second: [] for second in range(seconds)}
    positions = [start + n for start, length in zip(cut.starts, cut.lengths, strict=True) for n in range(length)]
    for position, row in zip(positions, rows, strict=True):
        said[position].append(row)
    wanted = np.stack([np.mean(values, axis=0) for values in said.values()])
    merged = average_windows(rows, cut.starts, cut.lengths, seconds)
    assert merged.dtype == np.float32
    np.testing.assert_allclose(merged, wanted, atol=1e-6)


def test_average_of_one_value_per_second():
    assert average_windows(np.array([1.0, 2.0, 4.0, 6.0]), [0, 1], [2, 2], 3).tolist() == [1.0, 3.0, 6.0]


@pytest.mark.parametrize(
    ("rows", "starts", "lengths", "message"),
    [
        (5, [0, 2], [4, 2], "5 rows for 2 windows of 6 seconds"),
        (6, [0, 3], [4, 2], "reaches beyond a video of 4 seconds"),
        (3, [0, 3], [2, 1], "no window holds second 2 of a video of 4"),
    ],
)
def test_windows_that_do_not_fit_are_refused(rows, starts, lengths, message):
    with pytest.raises(DataError, match=message):
        average_windows(np.zeros((rows, 2)), starts, lengths, 4)


def test_options():
    assert Windows.of({"max_video_len": 32, "sliding_window": 8, "sliding_window_size": 32}) == Windows(32, 8)
    assert Windows.of({"max_video_len": 12}) == Windows(12, 6)
    assert Windows.of({"max_video_len": 1}) == Windows(1, 1)
    assert Windows.of({"max_video_len": 12, "sliding_window_size": 8}) == Windows(8, 4)
    with pytest.raises(ConfigError, match=r"sliding_window_size: 33 is not in 1 \.\. dataset\.max_video_len 32"):
        Windows.of({"sliding_window_size": 33})
    with pytest.raises(ConfigError, match=r"sliding_window: a window every 17 s; .* seconds are left out"):
        Windows.of({"sliding_window_size": 16, "sliding_window": 17})
    with pytest.raises(ConfigError, match="sliding_window: a window every 0 s"):
        Windows.of({"sliding_window": 0})


def test_features_that_are_none_are_refused():
    with pytest.raises(DataError, match="no seconds"):
        Windows(4, 2).cut(np.zeros((0, 3)))
    with pytest.raises(DataError, match=r"shape \(3,\)"):
        Windows(4, 2).cut(np.zeros(3))


def test_text_of_a_video_alone():
    caps, cmasks = video_only_text(SpecialIds(cls=2, sep=3, pad=0, mask=4), 2)
    assert caps.tolist() == [[2, 3, 0, 3]] * 2
    assert cmasks.tolist() == [[False, True, False, True]] * 2
