"""Pixels and compressed images."""

import io

import numpy as np
import pytest
from PIL import Image

from mmpt.store import images
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


NO_IMAGES = [b"", b"GIF89a\1\0\1\0", b"\xff\xd8\xff\xe0 not more", encode_jpeg(picture())[:300]]


@pytest.mark.parametrize("content", NO_IMAGES)
def test_what_is_no_image_or_cut_is_an_error(content: bytes) -> None:
    with pytest.raises(DataError, match="bytes, not decodable"):
        decode_image(content)


def bent(count: int) -> list[bytes]:
    """JPEGs with one byte changed, as a disk does it."""
    rng, content = np.random.default_rng(0), encode_jpeg(picture())
    found = []
    for _ in range(count):
        changed = bytearray(content)
        changed[rng.integers(2, len(content))] = rng.integers(256)
        found.append(bytes(changed))
    return found


def variants() -> list[bytes]:
    image = Image.fromarray(picture(61, 83))
    found = []
    for mode in ("RGB", "L", "CMYK"):
        for options in ({"quality": 30}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}):
            buffer = io.BytesIO()
            image.convert(mode).save(buffer, "JPEG", **options)
            found.append(buffer.getvalue())
    return found


def test_both_decoders_give_the_same_pixels_and_refuse_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("simplejpeg")

    def outcome(content: bytes) -> np.ndarray | str:
        try:
            return decode_image(content)
        except DataError as error:
            return str(error)

    contents = [*variants(), *NO_IMAGES, *bent(200)]
    found = [outcome(content) for content in contents]
    assert sum(images._decode_fast(content) is not None for content in variants()) == 8
    monkeypatch.setattr(images, "_simplejpeg", lambda: None)
    for content, first in zip(contents, found, strict=True):
        second = outcome(content)
        assert type(first) is type(second)
        np.testing.assert_array_equal(first, second)
