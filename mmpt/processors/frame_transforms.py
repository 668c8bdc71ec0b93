"""Frames of any size as squares of one size (VIOLET, section 4; LAVENDER, section 4.1).

uint8 in, uint8 out: the model divides by 255 and normalises on its device.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmpt.utils.errors import ConfigError, DataError, nearest

__all__ = [
    "TRANSFORMS",
    "FrameTransform",
    "crop_square",
    "pad_resize",
    "refuse_oblong",
    "resize",
    "resize_short_side",
    "transform_names",
]

#: A place in [0, 1) of the rows and of the columns that a crop may begin at; None is the centre.
Place = tuple[float, float] | None

#: The names; without randomness, a random crop is the one in the middle.
TRANSFORMS = ("pad_resize", "vid_rand_crop", "img_rand_crop", "vid_center_crop", "img_center_crop")
#: Longer side over shorter one beyond which an image is taken for damaged: resized, it would fill the memory.
_MOST_OBLONG = 100


class FrameTransform:
    """Bring the frames of a clip to (size, size).

    ===================  ==============================================================================
    ``pad_resize``       black beside the shorter side, then resized: all of the frame is seen
    ``vid_rand_crop``    shorter side to ``size``, then a random square, the same of every frame
    ``img_rand_crop``    shorter side to ``size``, then a random square, another of each frame
    ``vid_center_crop``  shorter side to ``size``, then the square in the middle
    ``img_center_crop``  the same
    ===================  ==============================================================================

    Of several names, training draws one for each clip (published: for each frame; frames of one clip would then lie
    differently in the same windows of the video transformer, and ``vid_rand_crop`` could not mean what it says).
    Outside of training the first is taken, with crops in the middle. The published configs all name a single one.

    Args:
        names: one of :data:`TRANSFORMS`, or several.
        size: side of the square, in pixels.

    Raises:
        ConfigError: if a name is not known, or there is none.
    """

    def __init__(self, names: str | Sequence[str], size: int) -> None:
        self.names = transform_names(names)
        if size < 1:
            raise ConfigError(f"dataset.image_size: {size} is not a number of pixels (1 or more)")
        self.size = size

    def __call__(
        self, images: Sequence[np.ndarray], rng: np.random.Generator | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the frames of one clip, uint8 (frames, 3, size, size).

        Args:
            images: each uint8 (height, width, 3); sizes may differ.
            rng: draws what is random, in training; None does as tests do.
            out: where to write them; None: into new memory.
        """
        name = self.names[0]
        if rng is not None and len(self.names) > 1:
            name = self.names[int(rng.integers(len(self.names)))]
        pixels = np.empty((len(images), 3, self.size, self.size), dtype=np.uint8) if out is None else out
        places = _places(name, len(images), rng)
        for number, (image, place) in enumerate(zip(images, places, strict=True)):
            square = pad_resize(image, self.size) if name == "pad_resize" else crop_square(image, self.size, place)
            pixels[number] = square.transpose(2, 0, 1)
        return pixels


def transform_names(names: Any) -> tuple[str, ...]:
    """Return the names of ``dataset.image_transform``, a list of them or a single one.

    Raises:
        ConfigError: if one is not known, or there is none.
    """
    given = (names,) if isinstance(names, str) else tuple(names) if isinstance(names, Sequence) else ()
    if not given:
        raise ConfigError(f"dataset.image_transform: {names!r} names none of {', '.join(TRANSFORMS)}")
    for name in given:
        if not isinstance(name, str) or name not in TRANSFORMS:
            raise ConfigError(
                f"dataset.image_transform: {name!r} is none of {', '.join(TRANSFORMS)}.{nearest(str(name), TRANSFORMS)}"
            )
    return given


def _places(name: str, frames: int, rng: np.random.Generator | None) -> Sequence[Place]:
    """Return where each frame of a clip is cropped."""
    if rng is None or name not in ("vid_rand_crop", "img_rand_crop"):
        return [None] * frames
    drawn = rng.random((1 if name == "vid_rand_crop" else frames, 2)).tolist()
    return [tuple(drawn[number % len(drawn)]) for number in range(frames)]


def refuse_oblong(image: np.ndarray) -> np.ndarray:
    """Return a frame (height, width, 3) that can be resized; DataError if it is longer and narrower than any video."""
    height, width = image.shape[:2]
    if max(height, width) > _MOST_OBLONG * min(height, width):
        raise DataError(f"has {width} x {height} pixels, which no video has")
    return image


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 (H, W, 3) to (height, width, 3): bilinear, over all pixels that a new one covers (antialias)."""
    from PIL import Image

    if image.shape[:2] == (height, width):
        return image
    resized = Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def pad_resize(image: np.ndarray, size: int) -> np.ndarray:
    """Return uint8 (size, size, 3): black of half the difference, rounded down, at each end of the shorter side.

    Where the sides differ by an odd number, one line is missing to a square; the resize makes it one.
    """
    height, width = image.shape[:2]
    rows, columns = max(width - height, 0) // 2, max(height - width, 0) // 2
    padded = np.zeros((height + 2 * rows, width + 2 * columns, 3), dtype=np.uint8)
    padded[rows : rows + height, columns : columns + width] = image
    return resize(padded, size, size)


def resize_short_side(image: np.ndarray, size: int) -> np.ndarray:
    """Resize so that the shorter side has ``size`` pixels; the longer one is rounded down."""
    height, width = image.shape[:2]
    if height <= width:
        return resize(image, size, int(size * width / height))
    return resize(image, int(size * height / width), size)


def crop_square(image: np.ndarray, size: int, place: Place = None) -> np.ndarray:
    """Resize the shorter side to ``size`` and cut out a square, uint8 (size, size, 3).

    ``place`` chooses among the rows and columns that the square may begin at; None takes the middle, rounded half to
    even.
    """
    resized = resize_short_side(image, size)
    rows, columns = resized.shape[0] - size, resized.shape[1] - size
    if place is None:
        top, left = round(rows / 2), round(columns / 2)
    else:
        top, left = int(place[0] * (rows + 1)), int(place[1] * (columns + 1))
    return resized[top : top + size, left : left + size]
