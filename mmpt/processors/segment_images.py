"""Frames of any size as oblongs of one size: fitted in, black below and beside them (MERLOT and MERLOT Reserve).

Training and evaluation give uint8, which the models divide by 255 on their device. The floats of the published
evaluation are :func:`fit_corners` (MERLOT) and :func:`fit_antialiased` (MERLOT Reserve).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.processors.resize_kernels import resize_part
from mmpt.utils.errors import ConfigError

__all__ = [
    "MERLOT_SCALE",
    "MERLOTTransform",
    "RESERVE_SCALE",
    "ReserveTransform",
    "fit_antialiased",
    "fit_corners",
    "fitted_size",
    "image_scale",
]

#: Least and greatest factor by which training enlarges a frame before it crops it.
MERLOT_SCALE, RESERVE_SCALE = (1.125, 1.5), (1.05, 1.1)
#: A frame is jittered with this probability, by a factor of each channel that differs from 1 by at most so much.
_JITTERED, _JITTER = 0.8, 0.32
#: No side of a frame becomes shorter in training, unless the model's side is.
_LEAST_SIDE = 64
#: A frame so much higher than wide was filmed with the camera on its side.
_TALL = 4 / 3

_CORNER_KERNELS = ("bilinear", "bicubic", "nearest", "area")
_RESERVE_KERNELS = ("bilinear", "bicubic", "nearest", "area", "lanczos3", "lanczos5", "gaussian", "mitchell")


def fitted_size(shape: Sequence[int], most: tuple[int, int]) -> tuple[int, int]:
    """Return the largest height and width of the proportions of ``shape`` within ``most``; rounded down, 1 or more."""
    (height, width), (most_height, most_width) = shape[:2], most
    if most_height * width <= most_width * height:
        return most_height, max(width * most_height // height, 1)
    return max(height * most_width // width, 1), most_width


def fit_corners(image: np.ndarray, height: int, width: int) -> Tensor:
    """Fit a frame in as MERLOT's evaluation does: bilinear, corner pixels on corner pixels, no antialias.

    Args:
        image: uint8 (H, W, 3).
        height: to fit into, in pixels; ``width`` too.

    Returns:
        float32 (3, height, width) in [0, 1], zero below and to the right of the frame.
    """
    return _fitted(image, height, width, {"align_corners": True})


def fit_antialiased(image: np.ndarray, height: int, width: int) -> Tensor:
    """Fit a frame in as MERLOT Reserve's evaluation does: bilinear over all pixels that a new one covers (antialias).

    Args:
        image: uint8, or floats in [0, 1], (H, W, 3).
        height: to fit into, in pixels; ``width`` too.

    Returns:
        float32 (3, height, width) in [0, 1], zero below and to the right of the frame.
    """
    return _fitted(image, height, width, {"align_corners": False, "antialias": True})


def _fitted(image: np.ndarray, height: int, width: int, how: dict[str, bool]) -> Tensor:
    size = fitted_size(image.shape, (height, width))
    pixels = _tensor(image)
    pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
    resized = F.interpolate(pixels[None], size, mode="bilinear", **how)[0]
    return F.pad(resized, (0, width - size[1], 0, height - size[0]))


class MERLOTTransform:
    """Bring a frame to (height, width) as MERLOT does (section 3.3).

    In training it is fitted into an oblong that is larger by a random factor, by one of four kernels with corners on
    corners, then cropped at random; most frames are jittered in brightness or contrast (published: by a slip always in
    contrast). Otherwise :func:`fit_corners`, rounded.

    Args:
        size: height and width, in pixels.
        scale: least and greatest factor.
    """

    def __init__(self, size: tuple[int, int], scale: tuple[float, float] = MERLOT_SCALE) -> None:
        self.size, self.scale = size, scale

    def __call__(
        self, image: np.ndarray, rng: np.random.Generator | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the frame, uint8 (3, height, width).

        Args:
            image: uint8 (H, W, 3).
            rng: draws what is random, in training; None does as evaluation.
            out: where to write it; None: into new memory.
        """
        pixels = _tensor(image)
        if rng is None:
            return _on_black(_resize_corners(pixels, fitted_size(image.shape, self.size), "bilinear"), self.size, out)
        grown = _grown(self.size, rng.uniform(*self.scale))
        least = [min(side, _LEAST_SIDE) for side in self.size]
        fitted = fitted_size(image.shape, grown)
        resized = _resize_corners(
            pixels, (max(fitted[0], least[0]), max(fitted[1], least[1])), str(rng.choice(_CORNER_KERNELS))
        )
        (top, left), (rows, columns) = _crop(resized.shape[1:], self.size, rng)
        resized = resized[:, top : top + rows, left : left + columns]
        return _on_black(_jittered(resized, rng) if rng.random() < _JITTERED else resized, self.size, out)


class ReserveTransform:
    """Bring a frame to (height, width) as MERLOT Reserve does.

    In training it is turned by a quarter if it is high and narrow, fitted into an oblong that is larger by a random
    factor, antialiased, by one of eight kernels, and cropped at random. Otherwise :func:`fit_antialiased`, rounded.

    Args:
        size: height and width, in pixels.
        scale: least and greatest factor; the published adaptation to other sizes takes (1, 1.1) or (1, 1.88).
        rotate: whether high frames are turned; the adaptation does not.
    """

    def __init__(self, size: tuple[int, int], scale: tuple[float, float] = RESERVE_SCALE, rotate: bool = True) -> None:
        self.size, self.scale, self.rotate = size, scale, rotate

    def __call__(
        self, image: np.ndarray, rng: np.random.Generator | None = None, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the frame, uint8 (3, height, width).

        Args:
            image: uint8 (H, W, 3).
            rng: draws what is random, in training; None does as evaluation.
            out: where to write it; None: into new memory.
        """
        if rng is None:
            size = fitted_size(image.shape, self.size)
            return _on_black(_resize(_tensor(image), size, (0, 0), size, "bilinear"), self.size, out)
        if self.rotate and image.shape[0] >= _TALL * image.shape[1]:
            image = np.ascontiguousarray(np.rot90(image))
        size = fitted_size(image.shape, _grown(self.size, rng.uniform(*self.scale)))
        corner, part = _crop(size, self.size, rng)
        return _on_black(_resize(_tensor(image), size, corner, part, str(rng.choice(_RESERVE_KERNELS))), self.size, out)


def image_scale(given: Any, default: tuple[float, float]) -> tuple[float, float]:
    """Return the least and the greatest factor of ``dataset.image_scale``; ``default`` where it is null.

    Raises:
        ConfigError: if it is not two numbers, 1 or more, the lesser first.
    """
    if given is None:
        return default
    numbers = [float(value) for value in given if isinstance(value, int | float)] if _is_list(given) else []
    if len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1]:
        raise ConfigError(f"dataset.image_scale: {given!r} is not [least, greatest], both 1 or more")
    return numbers[0], numbers[1]


def _is_list(given: Any) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, str)


def _tensor(image: np.ndarray) -> Tensor:
    """Return pixels (H, W, 3) as (3, H, W), in the same memory: torch resizes bytes in this order fastest."""
    return torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)


def _grown(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return int(size[0] * factor), int(size[1] * factor)


def _crop(
    shape: Sequence[int], size: tuple[int, int], rng: np.random.Generator
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return first row and column, and height and width, of a random part of ``shape`` no larger than ``size``."""
    part = min(shape[0], size[0]), min(shape[1], size[1])
    places = rng.random(2)
    corner = tuple(int(p * (s - kept + 1)) for p, s, kept in zip(places.tolist(), shape, part, strict=True))
    return (corner[0], corner[1]), part


def _resize_corners(pixels: Tensor, size: tuple[int, int], kernel: str) -> Tensor:
    """Resize uint8 (3, H, W), corner pixels on corner pixels but for the mean over areas."""
    if kernel == "nearest":
        return _nearest_corners(pixels, size)
    if kernel == "area":
        return _resize(pixels, size, (0, 0), size, "area")
    return F.interpolate(pixels[None], size, mode=kernel, align_corners=True)[0]


def _nearest_corners(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    from PIL import Image

    # Pillow's pixels have their centres at halves.
    rows, columns = ((old - 1) / max(new - 1, 1) for old, new in zip(pixels.shape[1:], size, strict=True))
    where = (columns, 0, 0.5 - columns / 2, 0, rows, 0.5 - rows / 2)
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    moved = image.transform((size[1], size[0]), Image.Transform.AFFINE, where, Image.Resampling.NEAREST)
    return _tensor(np.array(moved))


def _resize(
    pixels: Tensor, size: tuple[int, int], corner: tuple[int, int], part: tuple[int, int], kernel: str
) -> Tensor:
    """Resize uint8 (3, H, W) to ``size``, antialiased, and return the part of it that begins at ``corner``."""
    from PIL import Image

    if kernel in ("lanczos5", "gaussian", "mitchell"):
        return resize_part(pixels, size, corner, part, kernel)
    if kernel in ("bilinear", "bicubic"):
        resized = F.interpolate(pixels[None], size, mode=kernel, antialias=True, align_corners=False)[0]
    else:
        method = {
            "nearest": Image.Resampling.NEAREST,
            "area": Image.Resampling.BOX,
            "lanczos3": Image.Resampling.LANCZOS,
        }[kernel]
        image = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((size[1], size[0]), method)
        resized = _tensor(np.array(image))
    return resized[:, corner[0] : corner[0] + part[0], corner[1] : corner[1] + part[1]]


def _jittered(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Change brightness or contrast, by another factor of each channel; uint8 (3, H, W)."""
    values = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    factors = torch.from_numpy(rng.uniform(1 - _JITTER, 1 + _JITTER, (3, 1, 1)).astype(np.float32))
    pivots = values.mean((1, 2), keepdim=True) if rng.random() < 0.5 else torch.zeros(3, 1, 1)
    return values.mul_(factors).add_(pivots * (1 - factors)).round_().clamp_(0, 255).to(torch.uint8)


def _on_black(pixels: Tensor, size: tuple[int, int], out: np.ndarray | None) -> np.ndarray:
    """Return uint8 (3, *size), the pixels at the top left; ``out``, if that is given."""
    whole = np.empty((3, *size), np.uint8) if out is None else out
    rows, columns = pixels.shape[1:]
    whole[:, :rows, :columns] = pixels.numpy()
    whole[:, rows:], whole[:, :rows, columns:] = 0, 0
    return whole
