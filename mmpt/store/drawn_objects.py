"""Objects of an image drawn into it, so that a model can tell which ones a text means (VCR).

MERLOT (arXiv:2106.02636) draws outlines with a light filling, persons in colours of their own and all other objects in
one; MERLOT Reserve (arXiv:2201.02639) draws boxes, coloured by a hash of what the object is called.
"""

import colorsys
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmpt.utils.errors import DataError

__all__ = ["DrawnObject", "draw_objects", "hashed_colour", "person_colour"]

#: Pixels of an outline, and the part of the colour in the filling, in 255ths (15 %).
OUTLINE, FILLING = 7, 38
#: Colours of persons, in turn; the last is that of every other object.
_COLOURS = 12

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class DrawnObject:
    """What is drawn: ``box`` (left, top, right, bottom), ``polygons`` of (x, y), in pixels; the colour."""

    box: tuple[float, float, float, float]
    polygons: Sequence[Sequence[tuple[float, float]]]
    colour: Colour


def person_colour(number: int | None) -> Colour:
    """Return the colour of a person by its number; None: of an object that is no person."""
    place = _COLOURS - 1 if number is None else number % (_COLOURS - 1)
    return _bright(place / _COLOURS)


def hashed_colour(name: str) -> Colour:
    """Return a bright colour that is the same for the same name, everywhere."""
    return _bright(hashlib.blake2b(name.encode(), digest_size=2).digest()[0] / 256)


def draw_objects(image: np.ndarray, objects: Sequence[DrawnObject], boxes: bool) -> np.ndarray:
    """Return the image, uint8 (height, width, 3), with the outlines, lightly filled, or the boxes of objects.

    An object without polygons is drawn as its box.

    Raises:
        DataError: if an outline has fewer than three corners, or a coordinate is no number.
    """
    from PIL import Image, ImageDraw

    whole = Image.fromarray(image).convert("RGBA")
    for drawn in objects:
        layer = Image.new("RGBA", whole.size)
        pen = ImageDraw.Draw(layer)
        outlines = [] if boxes else list(drawn.polygons)
        for outline in outlines or [_corners(drawn.box)]:
            points = _points(outline)
            pen.polygon(points, fill=None if boxes else (*drawn.colour, FILLING))
            pen.line([*points, points[0]], fill=(*drawn.colour, 255), width=OUTLINE, joint="curve")
        whole = Image.alpha_composite(whole, layer)
    return np.array(whole.convert("RGB"))


def _corners(box: tuple[float, float, float, float]) -> list[tuple[float, float]]:
    left, top, right, bottom = box
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _points(outline: Any) -> list[tuple[float, float]]:
    try:
        points = [(float(x), float(y)) for x, y in outline]
    except (TypeError, ValueError) as error:
        raise DataError(f"an outline has a corner that is no pair of numbers ({error})") from error
    if len(points) < 3 or not np.isfinite(points).all():
        raise DataError(f"an outline of {len(points)} corners; 3 or more numbers are needed")
    return points


def _bright(hue: float) -> Colour:
    red, green, blue = (round(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.9, 1.0))
    return red, green, blue
