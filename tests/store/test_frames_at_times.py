"""The picture on screen at a time, found by seeking, is the one that decoding everything finds."""

import pytest
from test_decode import coloured, indexes, write_video
from test_frame_seeking import write_groups

from mmpt.store.decode import DecodeReport
from mmpt.store.frames_at_times import frames_at_times
from mmpt.utils.errors import DataError

av = pytest.importorskip("av")


def numbers(frames) -> list[int]:
    return [indexes(frame[None])[0] for frame in frames]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_each_time_shows_its_frame(tmp_path, name):
    path = write_groups(tmp_path / name, 60, group=6)  # 25 frames a second
    times = [1.3, 0.0, 2.39, 0.05, 1.3, 0.999]
    assert numbers(frames_at_times(path, times)) == [32, 0, 59, 1, 32, 24]


def test_far_times_are_sought(tmp_path):
    pictures = [picture for index in range(60) for picture in coloured(1, first=index)]
    path = write_video(tmp_path / "a.mp4", pictures, fps=1, times=[1000 * k for k in range(60)])
    report = DecodeReport()
    frames = frames_at_times(path, [2.5, 31.0, 55.9], report=report)
    assert numbers(frames) == [2, 31, 55]


def test_a_picture_stays_on_screen_until_the_next(tmp_path):
    path = write_video(tmp_path / "a.mkv", coloured(4), times=[0, 100, 1900, 2000])
    assert numbers(frames_at_times(path, [0.09, 0.11, 1.8, 1.95, 2.5])) == [0, 1, 1, 2, 3]


def test_frames_are_made_once_by_what_is_given(tmp_path):
    path = write_video(tmp_path / "a.mp4", coloured(25))
    made = []
    found = frames_at_times(path, [0.5, 0.1, 0.5], lambda frame: made.append(frame.width) or len(made))
    assert found == [2, 1, 2]
    assert frames_at_times(path, []) == []


def test_what_is_not_there_is_named(tmp_path):
    path = write_video(tmp_path / "a.mp4", coloured(25))
    with pytest.raises(DataError, match="a.mp4: shows nothing at second 9.00"):
        frames_at_times(path, [0.5, 9.0])
    with pytest.raises(DataError, match="must be 0 or more"):
        frames_at_times(path, [-1.0])
    with pytest.raises(DataError, match="absent.mp4"):
        frames_at_times(tmp_path / "absent.mp4", [1.0])
