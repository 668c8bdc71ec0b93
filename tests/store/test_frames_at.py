"""Pictures at given seconds: by seeking, in one pass, and across damage."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.store import frames_at
from mmpt.store.decode import DecodeReport, Picture
from mmpt.store.frames_at import VideoClock, pictures_at, read_clock
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
    real = frames_at.sought_pictures

    def breaks(*arguments: Any) -> Any:
        for number, pair in enumerate(real(*arguments)):
            if number == 2:
                raise frames_at.CannotSeekError
            yield pair

    monkeypatch.setattr(frames_at, "sought_pictures", breaks)
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
