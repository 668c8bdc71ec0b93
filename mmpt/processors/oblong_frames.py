"""Frames of the downstream tasks of MERLOT and MERLOT Reserve: decoded, fitted into an oblong, stacked.

Shapes: T frames, (H, W) pixels of a frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mmpt.modules.reserve_tokens import PATCH
from mmpt.processors.base import UnusableItemError
from mmpt.processors.frame_transforms import refuse_oblong
from mmpt.processors.segment_images import MERLOT_SCALE, RESERVE_SCALE, MERLOTTransform, ReserveTransform, image_scale
from mmpt.processors.subword_texts import SubwordOptions
from mmpt.store.images import decode_image
from mmpt.utils.errors import ConfigError, DataError
from mmpt.utils.options import read_options

__all__ = ["MERLOTItemOptions", "OblongFrames", "ReserveItemOptions", "merlot_frames", "reserve_frames"]


@dataclass
class MERLOTItemOptions(SubwordOptions):
    """Sizes of what MERLOT reads.

    Attributes:
        split: train, valid or test; only training draws crops and colours at random.
        image_size: height and width of a frame, in pixels.
        image_scale: least and greatest factor of training's crops; null: 1.125 and 1.5.
        max_text_len: ids of a text, special ones among them (X).
    """

    split: str = "train"
    image_size: list[int] = field(default_factory=lambda: [192, 352])
    image_scale: Any = None
    max_text_len: int = 32


@dataclass
class ReserveItemOptions(SubwordOptions):
    """Sizes of what MERLOT Reserve reads.

    Attributes:
        split: train, valid or test; only training draws crops at random.
        image_grid: rows and columns of patches of 16 pixels of a frame.
        image_scale: least and greatest factor of training's crops; null: 1.05 and 1.1.
        lang_seq_len: ids of a text, special ones among them (X).
    """

    split: str = "train"
    image_grid: list[int] = field(default_factory=lambda: [12, 20])
    image_scale: Any = None
    lang_seq_len: int = 160


class OblongFrames:
    """Read images into frames of one size.

    Args:
        size: height and width, in pixels.
        transform: makes uint8 (3, H, W) of an image uint8 (rows, columns, 3).
    """

    def __init__(self, size: tuple[int, int], transform: MERLOTTransform | ReserveTransform) -> None:
        self.size, self.transform = size, transform

    def __call__(
        self, images: Sequence[Any], name: str, frames: int, rng: np.random.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode and transform images.

        Args:
            images: JPEGs as bytes or uint8 (bytes,), or decoded, uint8 (rows, columns, 3); not more than ``frames``.
            name: of the item, for errors.
            frames: T; the missing ones are black, at the end.
            rng: draws crops, in training; None does as evaluation.

        Returns:
            ``vfeats`` uint8 (T, 3, H, W) and ``vmasks`` bool (T,), false where there is no image.

        Raises:
            UnusableItemError: if there is no image, or one is damaged; names the item and the image.
        """
        if not len(images):
            raise UnusableItemError(f"{name}: has no image")
        vfeats = np.empty((frames, 3, *self.size), np.uint8)
        for number, image in enumerate(images):
            try:
                pixels = image if isinstance(image, np.ndarray) and image.ndim == 3 else decode_image(image)
                self.transform(refuse_oblong(pixels), rng, vfeats[number])
            except DataError as error:
                raise UnusableItemError(f"{name}: image {number}: {error}") from error
        vfeats[len(images) :] = 0
        return torch.from_numpy(vfeats), torch.arange(frames) < len(images)


def merlot_frames(config: Any) -> OblongFrames:
    """Return what reads frames for MERLOT; ConfigError if ``image_size`` is not two multiples of 32."""
    options = read_options(config, MERLOTItemOptions)
    size = _size(options.image_size, "image_size", 2 * PATCH)
    return OblongFrames(size, MERLOTTransform(size, image_scale(options.image_scale, MERLOT_SCALE)))


def reserve_frames(config: Any) -> OblongFrames:
    """Return what reads frames for MERLOT Reserve; ConfigError if ``image_grid`` is not two even numbers.

    Frames are not turned, as in the published fine-tuning and adaptation to other sizes.
    """
    options = read_options(config, ReserveItemOptions)
    rows, columns = _size(options.image_grid, "image_grid", 2)
    size = (rows * PATCH, columns * PATCH)
    return OblongFrames(size, ReserveTransform(size, image_scale(options.image_scale, RESERVE_SCALE), rotate=False))


def _size(given: Any, key: str, multiple: int) -> tuple[int, int]:
    if len(given) != 2 or any(side < multiple or side % multiple for side in given):
        raise ConfigError(f"dataset.{key}: {list(given)} is not height and width, multiples of {multiple}")
    return int(given[0]), int(given[1])
