"""Compressed images as bytes: the one place that turns JPEG (or PNG) into pixels, and pixels into JPEG.

JPEGs are decoded by simplejpeg where it is installed (``pip install 'mmpt[jpeg]'``), else, and whatever it does not
take, by Pillow: both are libjpeg-turbo with its exact settings and give the same pixels, the first in two thirds of
the time.
"""

import functools
import io
from types import ModuleType

import numpy as np

from mmpt.utils.errors import DataError

__all__ = ["QUALITY", "decode_image", "encode_jpeg", "image_format"]

#: Pillow's own, which the published frames were written with.
QUALITY = 75

_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}
#: More pixels than Pillow takes without a warning are its to judge.
_MOST_PIXELS = 1 << 26


def image_format(content: bytes | np.ndarray) -> str | None:
    """Return ``"JPEG"`` or ``"PNG"`` by the first bytes, None if it is neither; looks at nothing else."""
    head = bytes(content[:8])
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def decode_image(content: bytes | np.ndarray, shortest_side: int | None = None) -> np.ndarray:
    """Decode a JPEG or PNG to RGB; grey, CMYK and palette images are converted, transparency is dropped.

    Args:
        content: the file's bytes, or uint8 (bytes,) as the stores hold them.
        shortest_side: let the JPEG decoder leave out resolution (by 2, 4 or 8) as long as the shorter side keeps at
            least this many pixels. Faster for large images, but the pixels after a resize differ a little from those
            of the whole image, as every published system decodes it: None, the default.

    Returns:
        uint8 (height, width, 3), its own memory.

    Raises:
        DataError: if it is neither, cut short, damaged, or absurdly large; says which. The caller names the video.
    """
    if shortest_side is None and (pixels := _decode_fast(content)) is not None:
        return pixels
    data = content if isinstance(content, bytes) else content.tobytes()
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            if shortest_side is not None:
                # draft() keeps both sides at least as large as asked for
                scale = shortest_side / min(image.size)
                image.draft("RGB", (round(image.width * scale), round(image.height * scale)))
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise DataError(f"an image that claims too many pixels ({error})") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises for damaged files
        kind = image_format(data) or "neither JPEG nor PNG"
        reason = "not its header" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"{kind}: {len(data)} bytes, not decodable ({reason})") from error


def encode_jpeg(image: np.ndarray, quality: int = QUALITY) -> bytes:
    """Encode RGB pixels uint8 (height, width, 3) as the bytes of a JPEG file of this quality, 1 to 95."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@functools.cache
def _simplejpeg() -> ModuleType | None:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def _decode_fast(data: bytes | np.ndarray) -> np.ndarray | None:
    """Decode an intact and usual JPEG; None leaves it, and the choice of the error, to Pillow."""
    simplejpeg = _simplejpeg()
    if simplejpeg is None or bytes(data[:3]) != b"\xff\xd8\xff":
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "Gray") or height * width > _MOST_PIXELS:
            return None
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, "RGB")
        return pixels
    except ValueError:
        return None
