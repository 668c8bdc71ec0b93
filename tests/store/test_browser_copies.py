"""Copies for browsers: the same pictures at the same times."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mmpt.store.browser_copies import plays_in_browsers, write_browser_copy
from mmpt.store.video_frames import DecodeReport, timed_frames
from mmpt.store.video_info import open_video
from mmpt.utils.errors import DataError

RATE = 25


def write(path: Path, codec: str, size: tuple[int, int] = (64, 48), seconds: int = 1, first: int = 0) -> Path:
    """Pictures whose brightness is their number; the clock begins at ``first`` frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(RATE * seconds):
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 10 * number % 250, np.uint8))
            frame.pts = number + first
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def shown(path: Path) -> list[tuple[float, float]]:
    """Time and brightness of every picture."""
    with open_video(path) as (container, stream):
        frames = timed_frames(container, stream, Fraction(0), DecodeReport())
        return [(float(begins), frame.to_ndarray(format="rgb24").mean()) for frame, begins, _ in frames]


@pytest.mark.parametrize(
    ("name", "codec", "first"),
    [("a.avi", "mpeg4", 0), ("b.mkv", "libx264", 0), ("c.mkv", "libx264", 20), ("d.ts", "libx264", 0)],
)
def test_what_a_copy_shows_when(tmp_path: Path, name: str, codec: str, first: int) -> None:
    original = write(tmp_path / name, codec, first=first)
    copy = write_browser_copy(original, tmp_path / "copy")
    with open_video(original) as opened:
        assert not plays_in_browsers(*opened)
    with open_video(copy) as (container, stream):
        assert plays_in_browsers(container, stream)
        assert abs(container.start_time) < 1_000_000 / RATE  # what browsers call zero is what the house calls it
    np.testing.assert_allclose(shown(copy), shown(original), atol=4)
    np.testing.assert_allclose(np.array(shown(copy))[:, 0], np.arange(RATE) / RATE, atol=0.011)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, copy.name])


def test_large_videos_become_small_and_odd_sizes_even(tmp_path: Path) -> None:
    copy = write_browser_copy(write(tmp_path / "a.avi", "mpeg4", (162, 98), 1), tmp_path / "copy", shorter_side=49)
    with open_video(copy) as (_, stream):
        assert (stream.width, stream.height) == (80, 48)


def test_a_copy_that_would_be_too_large_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    original = write(tmp_path / "a.avi", "mpeg4", (640, 480), 2)
    with pytest.raises(DataError, match=r"a\.avi: a copy for browsers would have more than 0 MB"):
        write_browser_copy(original, tmp_path / "copy", most_bytes=10)
    assert list(tmp_path.iterdir()) == [original]


def test_a_video_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.avi").write_bytes(b"no video" * 50)
    with pytest.raises(DataError, match=r"a\.avi"):
        write_browser_copy(tmp_path / "a.avi", tmp_path / "copy")
