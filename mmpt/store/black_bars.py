"""Black bars around a picture: found in several frames of a video together, and cut off.

As MERLOT and MERLOT Reserve prepare their frames (arXiv:2106.02636 and 2201.02639, appendices).
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["BlackBars", "content_box", "trim_black_bars"]

THRESHOLD = 32
MOST_TRIMMED = 0.2


def content_box(
    frames: np.ndarray, threshold: int = THRESHOLD, most: float = MOST_TRIMMED
) -> tuple[int, int, int, int]:
    """Return (top, bottom, left, right) of what is not black in any frame; bottom and right are excluded.

    Args:
        frames: uint8 (..., height, width, 3).
        threshold: a row or column is part of a bar if no channel of any pixel in it reaches this.
        most: largest share of height or width that is taken off each side. Frames in which nothing is brighter are
            left whole.
    """
    bright = _bright(frames, threshold)
    return (*_extent(bright, 1, most), *_extent(bright, 0, most))


def trim_black_bars(frames: np.ndarray, threshold: int = THRESHOLD, most: float = MOST_TRIMMED) -> np.ndarray:
    """Cut the black bars off frames uint8 (..., height, width, 3), the same off all of them; returns a view."""
    top, bottom, left, right = content_box(frames, threshold, most)
    return frames[..., top:bottom, left:right, :]


@dataclass
class BlackBars:
    """The bars of a video whose frames come one by one: less is trimmed as soon as a frame shows that it is picture.

    Arguments as those of :func:`content_box`.
    """

    threshold: int = THRESHOLD
    most: float = MOST_TRIMMED
    _bright: np.ndarray | None = None

    def look(self, frame: np.ndarray) -> None:
        """Look at a frame uint8 (height, width, 3); one of another size begins anew."""
        bright = _bright(frame, self.threshold)
        if self._bright is not None and self._bright.shape == bright.shape:
            bright |= self._bright
        self._bright = bright

    def trim(self, frame: np.ndarray) -> np.ndarray:
        """Look at a frame uint8 (height, width, 3) and return the part within the bars known so far, a view."""
        self.look(frame)
        assert self._bright is not None
        top, bottom = _extent(self._bright, 1, self.most)
        left, right = _extent(self._bright, 0, self.most)
        return frame[top:bottom, left:right]


def _bright(frames: np.ndarray, threshold: int) -> np.ndarray:
    """Return where any channel of any frame reaches the threshold, bool (height, width)."""
    height, width, channels = frames.shape[-3:]
    flat = frames.reshape(-1, height, width, channels)
    return np.asarray((flat.max(0) >= threshold).any(-1))


def _extent(bright: np.ndarray, across: int, most: float) -> tuple[int, int]:
    """Return the first line that stays and the one after the last; a line runs across the axis ``across``."""
    size = bright.shape[1 - across]
    limit = int(size * most)
    lines = np.flatnonzero(bright.any(across))
    if not len(lines):
        return 0, size
    return min(int(lines[0]), limit), max(int(lines[-1]) + 1, size - limit)
