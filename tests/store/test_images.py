"""Pixels and compressed images."""

import io

import numpy as np
import pytest
from PIL import Image

from mmpt.store.images import decode_image, encode_jpeg, image_format
from mmpt.utils.errors import DataError


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * x % 256, 5 * y % 256, (x + y) % 256], -1).astype(np.uint8)


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_what_is_written_is_what_pillow_writes_and_reads_by_default() -> None:
    content = encode_jpeg(picture())
    assert content == encoded(Image.fromarray(picture()), "JPEG")
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image)
    for given in (content, np.frombuffer(content, np.uint8)):
        found = decode_image(given)
        assert found.dtype == np.uint8 and found.flags.owndata
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_every_kind_of_jpeg_becomes_rgb(mode: str) -> None:
    content = encoded(Image.fromarray(picture()).convert(mode), "JPEG")
    assert image_format(content) == "JPEG"
    assert decode_image(content).shape == (48, 64, 3)


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "RGB"])
def test_png_becomes_rgb_without_loss(mode: str) -> None:
    image = Image.fromarray(picture()).convert(mode)
    content = encoded(image, "PNG")
    assert image_format(np.frombuffer(content, np.uint8)) == "PNG"
    np.testing.assert_array_equal(decode_image(content), np.asarray(image.convert("RGB")))


def test_a_smaller_decoding_is_asked_for_and_keeps_the_side() -> None:
    content = encode_jpeg(picture(480, 640), 95)
    assert decode_image(content).shape == (480, 640, 3)
    assert decode_image(content, 224).shape == (240, 320, 3)
    assert decode_image(content, 500).shape == (480, 640, 3)


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a\1\0\1\0", b"\xff\xd8\xff\xe0 not more", encode_jpeg(picture())[:300]]
)
def test_what_is_no_image_or_cut_is_an_error(content: bytes) -> None:
    with pytest.raises(DataError, match="bytes, not decodable"):
        decode_image(content)
