"""Small pictures of clips: what is on screen in the middle of each."""

import os
from typing import Any

import numpy as np

from mmpt.store.decode import Picture
from mmpt.store.frames_at_times import frames_at_times
from mmpt.store.images import encode_jpeg

__all__ = ["clip_thumbnails"]

_QUALITY = 70


def clip_thumbnails(path: str | os.PathLike[str], starts: np.ndarray, ends: np.ndarray, pixels: int) -> list[bytes]:
    """Return a JPEG file for each clip, of the second in its middle, ``pixels`` its shorter side; 0: none.

    Raises:
        DataError: if the video cannot be decoded.
    """
    if not pixels or not len(starts):
        return []
    scale = Picture(pixels, enlarge=False)

    def small(frame: Any) -> bytes:
        return encode_jpeg(scale(frame), _QUALITY)

    return [bytes(picture) for picture in frames_at_times(path, ((starts + ends) / 2).tolist(), small)]
