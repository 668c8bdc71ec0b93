"""The pictures of a video at given seconds: by seeking, in one pass, and across damage."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.store import frames_at_times as module
from mmpt.store.decode import DecodeReport, Picture
from mmpt.store.frames_at_times import VideoClock, frames_at_times, pictures_at, read_clock
from mmpt.utils.errors import DataError
from tests.store.sound_samples import FPS, write_sound_video

pytest.importorskip("av")

SECONDS = [0.0, 0.6, 0.6, 3.0, 9.5, 9.55, 11.9, 50.0]


def greys(path: Path, seconds: list[float], clock: VideoClock) -> list[int]:
    picture = Picture(None)
    return [int(np.rint(picture(frame).mean())) for frame in pictures_at(path, seconds, clock, DecodeReport())]


def expected(seconds: list[float], last: float) -> list[int]:
    """The grey of the frame on screen: it was written for the time at which it begins."""
    shown = [min(int(second * FPS), round(last * FPS) - 1) / FPS for second in seconds]
    return [40 + round(second) * 10 % 210 for second in shown]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_the_picture_on_screen(tmp_path: Path, suffix: str) -> None:
    path = write_sound_video(tmp_path / f"v.{suffix}", 12, sound=None)
    clock = read_clock(path)
    assert clock.duration == pytest.approx(12, abs=0.15)
    assert (clock.times is None) == (suffix == "avi")
    np.testing.assert_allclose(greys(path, SECONDS, clock), expected(SECONDS, 12), atol=3)
    in_one_pass = greys(path, SECONDS, VideoClock(clock.duration, None))
    np.testing.assert_allclose(in_one_pass, expected(SECONDS, 12), atol=3)
    assert greys(path, [], clock) == []
    assert greys(path, [7.1], VideoClock(clock.duration, None)) == greys(path, [7.1], clock)


def test_seeking_that_fails_on_the_way_goes_on_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sound_video(tmp_path / "v.mp4", 12)
    clock = read_clock(path)
    whole = greys(path, SECONDS, clock)
    real = module.sought_pictures

    def breaks(*arguments: Any) -> Any:
        for number, pair in enumerate(real(*arguments)):
            if number == 2:
                raise module.CannotSeekError
            yield pair

    monkeypatch.setattr(module, "sought_pictures", breaks)
    assert greys(path, SECONDS, clock) == whole


def test_a_truncated_file_is_as_long_as_what_is_there(tmp_path: Path) -> None:
    path = write_sound_video(tmp_path / "v.mkv", 12)
    path.write_bytes(path.read_bytes()[:-6000])
    clock = read_clock(path)
    assert 4 < clock.duration < 12
    assert len(greys(path, [0.5, clock.duration - 0.1, 11.0], clock)) == 3
    (tmp_path / "none.mp4").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"none\.mp4"):
        read_clock(tmp_path / "none.mp4")


def test_pictures_in_any_order(tmp_path: Path) -> None:
    path = write_sound_video(tmp_path / "v.mp4", 12)
    seconds = [9.5, 0.6, 3.0, 0.6, 12.8]
    frames = frames_at_times(path, seconds)
    assert all(frame.shape == (48, 64, 3) and frame.dtype == np.uint8 for frame in frames)
    np.testing.assert_allclose([frame.mean() for frame in frames], expected(seconds, 12), atol=3)
    assert frames_at_times(path, seconds, lambda frame: frame.width, threads=2) == [64] * 5
    assert frames_at_times(path, []) == []
    for seconds, told in (([1.0, 13.5], "shows nothing at second 13.50"), ([-1.0], "must be 0 or more")):
        with pytest.raises(DataError, match=told):
            frames_at_times(path, seconds)
