"""Black bars: against the published implementation, and frame by frame."""

from pathlib import Path

import numpy as np

from mmpt.store.black_bars import BlackBars, content_box, trim_black_bars

GOLDEN = Path(__file__).parents[1] / "data" / "reserve_preproc.npz"


def test_bars_are_those_of_the_published_implementation() -> None:
    with np.load(GOLDEN) as golden:
        frames, box = golden["bars/in"], golden["bars/out"]
    assert list(content_box(frames)) == box.tolist() == [6, 33, 3, 58]
    assert trim_black_bars(frames).shape == (2, 27, 55, 3)


def picture(bars: int, height: int = 40, width: int = 30, value: int = 32) -> np.ndarray:
    frame = np.full((height, width, 3), 31, np.uint8)
    frame[bars : height - bars, :, 1] = value
    return frame


def test_the_threshold_and_the_most_that_is_trimmed() -> None:
    assert content_box(picture(4)) == (4, 36, 0, 30)
    assert content_box(picture(15)) == (8, 32, 0, 30)  # a fifth of 40 each
    assert content_box(picture(4, value=31)) == (0, 40, 0, 30)  # nothing but dark: left whole
    assert content_box(np.stack([picture(4), picture(2)])) == (2, 38, 0, 30)
    assert content_box(picture(0)) == (0, 40, 0, 30)


def test_frame_by_frame_the_picture_only_grows() -> None:
    bars = BlackBars()
    heights = [bars.trim(picture(size)).shape[0] for size in (6, 8, 3, 6)]
    assert heights == [28, 28, 34, 34]
    assert bars.trim(picture(2, height=20)).shape[0] == 16  # of another size: begins anew
